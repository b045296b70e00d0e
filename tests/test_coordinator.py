"""The coordinator's side of a trial: what counts of what workers tell, and what it writes down of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from scripted_seats import ScriptedSeats, finished, saved, scripted_sweep
from tiny_study import FACTOR, RECORD, SEARCH, InlinePool, Listener, all_facts, study_of, sweep_here

import benchkit.sweep.coordinator
import benchkit.sweep.orchestration
import benchkit.sweep.provenance
import benchkit.train.cost
from benchkit.ledger import Ledger, read_results
from benchkit.ledger.claims import Claim
from benchkit.results import Outcome
from benchkit.sweep.coordinator import LOOK_EVERY, LOOK_SHARE, Coordinator
from benchkit.sweep.messages import (
    CheckpointTaken,
    EpochEnded,
    Event,
    FileFinished,
    Job,
    PrintSplitter,
    Seat,
    Train,
    TrialAnswer,
    TrialBegan,
    TrialEnded,
    TrialFinished,
    TrialGivenBack,
    WorkerReady,
)


class Meddling(InlinePool):
    """A pool in which a node that was declared dead goes on telling of each trial under an older lease."""

    answers: list[TrialAnswer] = []

    def send(self, number: int, order: Train | TrialAnswer) -> None:
        if isinstance(order, TrialAnswer) and order.word == "drop":
            self.answers.append(order)
        else:
            super().send(number, order)

    def events(self, wait: float) -> Iterator[tuple[int, Event]]:
        for number, event in super().events(wait):
            if isinstance(event, EpochEnded):
                for late in told_late(event.trial, event.lease - 1):
                    yield number, late
            yield number, event


def told_late(trial: int, lease: int) -> list[Event]:
    named = {"trial": trial, "lease": lease}
    return [
        TrialBegan(**named, epochs=9, history=(RECORD,)),
        EpochEnded(**named, record=replace(RECORD, epoch=7)),
        CheckpointTaken(**named, epoch=7, content=b"late"),
        FileFinished(**named, name="weights.safetensors", content=b"late"),
        TrialGivenBack(trial=trial, lease=lease),
        TrialFinished(**named, outcome=Outcome(state="failed", reason="late")),
    ]


def test_what_is_told_under_an_older_lease_is_dropped_without_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, view = study_of(FACTOR, repeats=1), Listener()
    sweep_here(monkeypatch, tmp_path / "alone", study)
    monkeypatch.setattr(Meddling, "answers", [])
    monkeypatch.setattr(benchkit.sweep.orchestration, "Pool", Meddling)
    with monkeypatch.context() as patch:
        patch.setattr("tiny_study.InlinePool", Meddling)
        assert sweep_here(monkeypatch, tmp_path / "meddled", study, view=view) == {"done": 2}
    assert all_facts(read_results(tmp_path / "meddled")) == all_facts(read_results(tmp_path / "alone"))
    assert [event.state for event in view.events if isinstance(event, TrialEnded)] == ["done", "done"]
    assert len(Meddling.answers) == 2 * 3 * 6, "every late message is answered: drop it"


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_what_is_printed_belongs_to_the_trial_of_the_last_mark(size: int) -> None:
    text = b"before\n\0benchkit trial 12 3\nof\0 12\n\0benchkit no mark\n\0benchkit trial 0 0\nafter\0"
    splitter, found = PrintSplitter(), {}
    for place in range(0, len(text), size):
        for part in splitter.feed(text[place : place + size]):
            found[part.trial, part.lease] = found.get((part.trial, part.lease), b"") + part.content
    for part in splitter.feed(b""):
        found[part.trial, part.lease] = found.get((part.trial, part.lease), b"") + part.content
    assert found == {(0, 0): b"before\nafter\0", (12, 3): b"of\0 12\n\0benchkit no mark\n"}


def test_each_trials_log_comes_home_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, talking: Callable[[], Path]
) -> None:
    study = study_of('[[regularizers]]\nname = "talk"\n', FACTOR, repeats=1)
    sweep_here(monkeypatch, tmp_path / "runs", study, plugins=(talking(),))
    logs = [(trial.folder / "log.txt").read_text() for trial in read_results(tmp_path / "runs").trials]
    assert logs == ["epoch 1\nepoch 2\n"] * 2


@pytest.fixture
def talking(tmp_path: Path) -> Callable[[], Path]:
    """Return what writes a plugin that prints at the end of each epoch."""

    def write() -> Path:
        path = tmp_path / "talking.py"
        path.write_text(
            "import os\nfrom dataclasses import dataclass\nfrom benchkit import card\n"
            "@card(title='Talk', summary='Prints.')\n"
            "@dataclass(frozen=True)\n"
            "class Talk:\n"
            "    def stop(self, history):\n"
            "        os.write(2, b'epoch %d\\n' % len(history))\n"
            "        return False\n"
            "PLUGINS = {'benchkit.regularizers': {'talk': Talk}}\n"
        )
        return path

    return write


class Crowded(ScriptedSeats):
    """Many seats, all there before the first event is heard; from the first trial on, a turn takes no time at all."""

    sent: ClassVar[list[str]] = []

    @property
    def waiting(self) -> bool:  # type: ignore[override]
        return bool(self._told)

    def send(self, number: int, order: Train | TrialAnswer) -> None:
        self.sent.append("trial" if isinstance(order, Train) else order.word)
        benchkit.sweep.coordinator.TURN = 0.0
        super().send(number, order)


def test_workers_are_heard_while_many_trials_are_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchkit.sweep.coordinator, "TURN", math.inf)
    monkeypatch.setattr(Crowded, "sent", [])

    def script(order: Train, number: int) -> list[Event]:
        return [*saved(order), *finished(order)[-1:]]

    nodes = [Seat(node="here", kind="cpu")] * 12
    states, _ = scripted_sweep(monkeypatch, tmp_path, study_of(FACTOR, repeats=6), nodes, script, Crowded)
    assert states == {"done": 12}
    assert Crowded.sent[0] == "trial" and "go on" in Crowded.sent[1:4], Crowded.sent


class Silent(ScriptedSeats):
    """Workers that say nothing until they are told to drop what they have."""

    dropped: ClassVar[list[tuple[int, int]]] = []

    def send(self, number: int, order: Train | TrialAnswer) -> None:
        super().send(number, order)
        if isinstance(order, TrialAnswer) and order.word == "drop":
            self.dropped.append((order.trial, order.lease))
            self._told.append((number, TrialGivenBack(trial=order.trial, lease=order.lease)))


def test_a_silent_worker_is_told_at_once_that_its_trial_is_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Silent, "dropped", [])
    monkeypatch.setattr(Claim, "holds", lambda claim: claim.lease > 1)

    def script(order: Train, number: int) -> list[Event]:
        return finished(order) if order.lease > 1 else finished(order)[:1]

    nodes = [Seat(node="here", kind="cpu")]
    states, _ = scripted_sweep(monkeypatch, tmp_path, study_of(repeats=1), nodes, script, Silent)
    assert states == {"done": 1}
    assert Silent.dropped[0] == (ScriptedSeats.orders[0][0].trial, 1) and len(ScriptedSeats.orders) == 2


@pytest.mark.parametrize(("part", "recorded"), [(FACTOR, [0, 0, 1, 2]), (SEARCH, [0, 0, 1, 3, 4, 5])])
def test_a_worker_has_its_next_trial_before_an_end_is_recorded_where_nothing_is_chosen_by_it(
    part: str, recorded: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[int] = []

    def script(order: Train, number: int) -> list[Event]:
        known.append(len(list(tmp_path.rglob("files.json"))))
        return finished(order)

    states, _ = scripted_sweep(monkeypatch, tmp_path, study_of(part), [Seat(node="here", kind="cpu")], script)
    assert states == {"done": len(known)} and known[: len(recorded)] == recorded


def test_ends_that_were_heard_are_recorded_when_a_sweep_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(order: Train, number: int) -> list[Event]:
        if len(ScriptedSeats.orders) == 2:
            raise KeyboardInterrupt
        return finished(order)

    with pytest.raises(KeyboardInterrupt):
        scripted_sweep(monkeypatch, tmp_path, study_of(FACTOR), [Seat(node="here", kind="cpu")], script)
    assert [trial.state for trial in read_results(tmp_path).trials].count("done") == 1


def test_what_a_trial_is_trained_with_is_read_once_for_trials_of_the_same_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts of calls, where time itself tells nothing: reading sources took a third of a trial of milliseconds."""
    calls = Counter[str]()
    for module, name in ((benchkit.sweep.provenance, "sources_of"), (benchkit.train.cost, "forward_flops")):
        original = getattr(module, name)

        def counted(*given: Any, original: Callable[..., Any] = original, name: str = name) -> Any:
            calls[name] += 1
            return original(*given)

        monkeypatch.setattr(module, name, counted)
    monkeypatch.setattr(benchkit.train.cost, "KNOWN", {})
    sweep_here(monkeypatch, tmp_path, study_of('[factors]\n"model.norm" = ["bn", "gn"]\n', repeats=2))
    flops = [
        trial.outcome.cost.flops for trial in read_results(tmp_path).trials if trial.outcome and trial.outcome.cost
    ]
    assert calls == {"sources_of": 2, "forward_flops": 2} and len(set(flops)) == 1 and len(flops) == 4


def idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Coordinator, SimpleNamespace]:
    """Return the coordinator of one seat, which is free, and its clock."""
    clock = SimpleNamespace(now=100.0, takes=0.0)
    monkeypatch.setattr(
        benchkit.sweep.coordinator, "time", SimpleNamespace(monotonic=lambda: clock.now, perf_counter=lambda: 0.0)
    )
    study, pool = study_of(FACTOR, repeats=1), SimpleNamespace(size=1, changes=False, waiting=False)
    job = Job(task="train", study=study, data_root=tmp_path)
    coordinator = Coordinator(job, Ledger(tmp_path), pool, Listener())  # type: ignore[arg-type]
    coordinator._seats.ready[0] = WorkerReady(device="cpu", seat=Seat(node="one", kind="cpu", device="none"))
    coordinator._seats.free[0] = 0.0
    monkeypatch.setattr(coordinator, "_queue", SimpleNamespace())
    return coordinator, clock


def test_a_ledger_that_takes_long_to_read_is_looked_at_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator, clock = idle(tmp_path, monkeypatch)
    asked = []

    def look(wanted: object) -> None:
        asked.append(clock.now)
        clock.now += clock.takes

    monkeypatch.setattr(coordinator, "_queue", SimpleNamespace(next=look))
    for clock.takes, pause in ((0.001, LOOK_EVERY), (0.4, 0.4 / LOOK_SHARE)):
        clock.now = coordinator._look_at + 1.0
        coordinator._hand_out()
        for waited, looks in ((pause * 0.9, 1), (pause * 0.2, 2)):
            clock.now += waited
            coordinator._hand_out()
            assert len(asked) == looks
        asked.clear()


@pytest.mark.parametrize("where", ["_preferred", "_alone"])
def test_a_trial_that_waits_for_a_seat_is_handed_out_though_the_ledger_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    coordinator, _ = idle(tmp_path, monkeypatch)
    given: list[object] = []
    monkeypatch.setattr(coordinator, "_give", given.append)
    coordinator._look_at = math.inf
    coordinator._hand_out()
    assert given == []
    held = type("Waiting", (), {"model": "none", "number": 0, "alone": False})()
    if where == "_preferred":
        coordinator._preferred._waiting[held] = math.inf
    else:
        coordinator._alone["one"] = held
    coordinator._hand_out()
    assert given == [held]
