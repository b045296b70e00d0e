"""Compiling as a job that one seat is given: who waits for code meanwhile, who does not, and what becomes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from scripted_seats import Script, ScriptedSeats, finished, scripted_sweep
from tiny_study import DATA, Listener, all_facts, study_of

from benchkit.ledger import read_results
from benchkit.registry import Registry
from benchkit.results import WAS_COMPILED
from benchkit.sweep import starts
from benchkit.sweep.compile_jobs import MEMORY, SHARE
from benchkit.sweep.messages import (
    EpochEnded,
    Event,
    Said,
    Seat,
    Train,
    TrialAnswer,
    TrialGivenBack,
    TrialTaken,
    WorkerLost,
)
from benchkit.sweep.orchestration import Request, sweep
from benchkit.sweep.starts import free_memory

ALWAYS = ("train.compile=always",)
WIDTHS = '[factors]\n"model.hidden" = [[8], [9]]\n'
RATES = '[factors]\n"train.optimizer.lr" = [0.1, 0.2]\n'
ROOMY = Seat(node="here", kind="cpu", device="a processor, 1 thread", free=int(4 * MEMORY / SHARE))
TIGHT = replace(ROOMY, free=MEMORY)


@pytest.fixture
def handed_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[Counter[str], Listener, list[str]]]:
    """Return what sweeps a study on scripted seats; returns states, view, and each order in words.

    These are the layer's width, the repeat, the seat, and `compiles` where it only does so.
    """

    def run(tables: str, seats: Sequence[Seat], script: Script, **more: Any) -> Any:
        given = {"overrides": ALWAYS, **more}
        states, view = scripted_sweep(monkeypatch, tmp_path, study_of(tables, **given), seats, script)
        return states, view, [words(order, number) for order, number, _ in ScriptedSeats.orders]

    return run


def words(order: Train, seat: int) -> str:
    width = order.settings["model"]["hidden"][0]
    return f"{width} repeat {order.index} on {seat}{' compiles' if order.compiles else ''}"


def at_once(order: Train, seat: int) -> list[Event]:
    """Compile or train without anything going wrong."""
    return [TrialGivenBack(trial=order.trial, lease=order.lease)] if order.compiles else finished(order)


def test_one_compiles_and_trials_of_other_code_are_handed_out_meanwhile(handed_out: Callable[..., Any]) -> None:
    """Two codes, two repeats of each, three seats: the third has nothing to do before the first code is there."""
    states, _, orders = handed_out(WIDTHS, [ROOMY] * 3, at_once)
    assert states == {"done": 4}
    assert orders[:3] == ["8 repeat 0 on 0 compiles", "9 repeat 0 on 1 compiles", "8 repeat 0 on 0"]
    assert sum(order.endswith("compiles") for order in orders) == 2
    places = {name: at for at, name in enumerate(orders)}
    later = [at for name, at in places.items() if "repeat 1" in name]
    assert len(orders) == 6 and min(later) > places["8 repeat 0 on 0"] and places["9 repeat 0 on 1"] < len(orders)


def test_trials_that_differ_in_the_rate_wait_for_one_code(handed_out: Callable[..., Any]) -> None:
    _, _, orders = handed_out(RATES, [ROOMY] * 2, at_once)
    assert [order.endswith("compiles") for order in orders] == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("tables", "seats", "more"),
    [
        (WIDTHS, [ROOMY], {}),
        (WIDTHS, [ROOMY] * 2, {"repeats": 1}),
        (WIDTHS, [ROOMY] * 2, {"overrides": ("train.compile=never",)}),
    ],
    ids=["one seat", "one trial", "eager"],
)
def test_where_nobody_would_wait_a_trial_compiles_by_itself(
    tables: str, seats: Sequence[Seat], more: dict[str, Any], handed_out: Callable[..., Any]
) -> None:
    states, _, orders = handed_out(tables, seats, at_once, **more)
    assert set(states) == {"done"} and not any(order.endswith("compiles") for order in orders)


@pytest.mark.parametrize(("seat", "most"), [(TIGHT, 1), (ROOMY, 2)], ids=["tight", "roomy"])
def test_so_many_compile_at_once_as_a_node_has_memory_for(
    seat: Seat, most: int, handed_out: Callable[..., Any]
) -> None:
    """Before the first answer is heard, every free seat has been asked for."""
    _, _, orders = handed_out(WIDTHS, [seat] * 3, at_once)
    before = next(at for at, order in enumerate(orders) if not order.endswith("compiles"))
    assert before == most and sum(order.endswith("compiles") for order in orders) == 2


@pytest.mark.parametrize(("seat", "waits"), [(TIGHT, True), (ROOMY, False)], ids=["tight", "roomy"])
def test_a_trial_of_its_own_code_takes_memory_until_its_first_epoch(
    seat: Seat, waits: bool, handed_out: Callable[..., Any]
) -> None:
    """Of two trials that compile by themselves, the second waits on a tight node."""
    states, view, _ = handed_out(WIDTHS, [seat] * 2, at_once, repeats=1)
    shown = [type(event) for event in view.events if type(event) in (TrialTaken, EpochEnded)]
    assert states == {"done": 2} and shown[:2] == ([TrialTaken, EpochEnded] if waits else [TrialTaken, TrialTaken])


class Late(ScriptedSeats):
    """Seats whose first trial ends only once a second one was handed out."""

    def send(self, number: int, order: Train | TrialAnswer) -> None:
        first = not self.orders
        super().send(number, order)
        if isinstance(order, Train) and first:
            self.last = self._told.pop()
        elif isinstance(order, Train):
            self._told.append(self.last)


def test_after_its_first_epoch_a_trial_holds_no_memory_of_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first trial would otherwise never end."""
    study = study_of(WIDTHS, overrides=ALWAYS, repeats=1)
    assert scripted_sweep(monkeypatch, tmp_path, study, [TIGHT] * 2, at_once, Late)[0] == {"done": 2}


def test_a_compiler_that_ends_its_worker_twice_fails_its_trial_alone(handed_out: Callable[..., Any]) -> None:
    def script(order: Train, seat: int) -> list[Event]:
        broken = order.compiles and order.settings["model"]["hidden"] == [8] and order.index == 0
        return [WorkerLost(code=1, words="ended with status 1")] if broken else at_once(order, seat)

    states, _, _ = handed_out(WIDTHS, [ROOMY] * 2, script)
    assert states == {"done": 3, "failed": 1}


def test_a_machine_that_cannot_compile_is_set_aside_and_its_trial_compiles_elsewhere(
    handed_out: Callable[..., Any],
) -> None:
    sick = replace(ROOMY, node="sick")

    def script(order: Train, seat: int) -> list[Event]:
        if order.compiles and seat < 2:
            return [TrialGivenBack(trial=order.trial, lease=order.lease, why="no room left on its disk")]
        return at_once(order, seat)

    states, view, orders = handed_out(WIDTHS, [sick, sick, ROOMY, ROOMY], script)
    assert states == {"done": 4} and any(
        isinstance(event, Said) and event.words.startswith("set aside: ") for event in view.events
    )
    assert all(int(order.removesuffix(" compiles")[-1]) >= 2 for order in orders if not order.endswith("compiles"))


def test_a_step_that_could_not_be_compiled_for_want_of_the_machine_is_compiled_by_the_next(
    handed_out: Callable[..., Any],
) -> None:
    refused: list[int] = []

    def script(order: Train, seat: int) -> list[Event]:
        if order.compiles and not refused:
            refused.append(seat)
            why = "no memory could be pinned"
            return [TrialGivenBack(trial=order.trial, lease=order.lease, why=why, scope="pinned memory")]
        return at_once(order, seat)

    states, _, orders = handed_out(RATES, [ROOMY] * 2, script)
    assert states == {"done": 4} and refused
    assert [order.endswith("compiles") for order in orders] == [True, True, False, False, False, False]


def test_what_is_free_is_told_under_the_limit_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_memory() > 0
    monkeypatch.setattr(starts, "memory_here", lambda at_once: starts.Memory(limit=2**20))
    assert free_memory() == 2**20
    monkeypatch.setattr(starts, "memory_here", lambda at_once: starts.Memory())
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=9000 * 1024, available=3000 * 1024))
    assert free_memory() == 3000 * 1024


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "store"))
    yield tmp_path / "store"


@pytest.mark.slow
def test_real_workers_compile_once_and_train_as_one_alone_does(store: Path, tmp_path: Path) -> None:
    """Two networks, two repeats, two workers: the code is in the store before any trial begins."""
    study = study_of(WIDTHS, epochs=1, overrides=ALWAYS)
    for name, jobs in {"two": 2, "one": 1}.items():
        request = Request(study=study, workspace=tmp_path / name, data_root=DATA, jobs=jobs)
        assert +sweep(request, Registry.installed(), Listener()) == {"done": 4}
    assert len(list(store.glob("*.zip"))) == 2
    trials = read_results(tmp_path / "two").trials
    assert all(trial.outcome is not None and WAS_COMPILED in trial.outcome.notes for trial in trials)
    told = [(trial.folder / "log.txt").read_text().count(WAS_COMPILED) for trial in trials]
    assert sorted(told) == [1, 1, 2, 2]  # the first repeat of each network says it of the job, too
    assert all_facts(read_results(tmp_path / "one")) == all_facts(read_results(tmp_path / "two"))
