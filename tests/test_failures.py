"""Only a trial's own doing is a trial's result: what machines do gives it back, and deaths are counted with care."""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from scripted_seats import KILLED, Script, ScriptedSeats, finished, saved, scripted_sweep
from tiny_study import DATA, FACTOR, Listener, study_of

import benchkit.sweep.coordinator
import benchkit.sweep.held_trial
import benchkit.sweep.orchestration
from benchkit.errors import BenchkitError, PinningRefusedError
from benchkit.ledger import read_results
from benchkit.ledger.trials import TrialFolder
from benchkit.registry import Registry
from benchkit.results import Outcome
from benchkit.study import Study
from benchkit.sweep.machine_faults import fault_of
from benchkit.sweep.messages import (
    Event,
    Job,
    Said,
    Seat,
    Train,
    TrialGivenBack,
    WorkerFailed,
    WorkerLost,
    WorkerReady,
)
from benchkit.sweep.orchestration import Request, sweep
from benchkit.sweep.seats import Seats
from benchkit.sweep.starts import Memory, Starts, memory_before, memory_here
from benchkit.train.streaming import Slot

CPU = Seat(node="here", kind="cpu", device="a processor")
FOUR = '[factors]\n"train.optimizer.lr" = [0.1, 0.2, 0.3, 0.4]\n'
AUTO = ("train.precision=auto",)
NO_MEMORY = Outcome(state="failed", reason="out of memory")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Counter[str], Listener]]:
    """Return what sweeps a study on scripted seats, and returns the states of its trials and what was shown."""

    def run(study: Study, nodes: Sequence[Seat], script: Script, **more: Any) -> tuple[Counter[str], Listener]:
        return scripted_sweep(monkeypatch, tmp_path, study, nodes, script, **more)

    return run


def rate_of(order: Train) -> float:
    return float(order.settings["train"]["optimizer"]["lr"])


def asides(view: Listener) -> list[str]:
    """Return what was said of seats."""
    told = [event.words for event in view.events if isinstance(event, Said)]
    return [words for words in told if words.startswith(("set aside: ", "no seat is left"))]


@pytest.mark.parametrize("how", ["gives back", "cannot start"])
def test_a_node_that_fails_everything_is_set_aside_after_its_first_failure(
    trained: Callable[..., tuple[Counter[str], Listener]], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [replace(CPU, node=name) for name in ("good", "bad", "fine", "bad")]

    def script(order: Train, number: int) -> list[Event]:
        if nodes[number].node != "bad":
            return finished(order)
        if how == "cannot start":
            return [WorkerFailed(message="ImportError: libcudart.so.12 is not there"), WorkerLost(code=1)]
        return [TrialGivenBack(trial=order.trial, lease=order.lease, why="no space left on /tmp", scope="node")]

    states, view = trained(study_of(FOUR, repeats=6), nodes, script)
    assert states == {"done": 24}
    assert sum(nodes[number].node == "bad" for _, number, _ in ScriptedSeats.orders) <= 2
    assert all("bad" in words for words in asides(view)) and asides(view)


@pytest.mark.parametrize(("scope", "closed"), [("seat", {1}), ("device", {1, 2}), ("node", {0, 1, 2})])
def test_all_seats_that_are_to_blame_are_set_aside_at_once(
    scope: Literal["seat", "device", "node"], closed: set[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ScriptedSeats, "nodes", [CPU] * 4, raising=False)
    told: list[str] = []
    job = Job(task="train", study=study_of(), data_root=DATA)
    seats = Seats(ScriptedSeats((), 1, tmp_path), job, told.append)  # type: ignore[arg-type]
    for number, (node, device) in enumerate([("a", "cuda:0"), ("a", "cuda:1"), ("a", "cuda:1"), ("b", "cuda:1")]):
        seats.is_ready(number, WorkerReady(device=device, seat=replace(CPU, node=node)))
    seats.set_aside(1, "broken", scope)
    for number in closed:  # each had a trial at that moment, and meets the same fault
        seats.set_aside(number, "broken", scope)
    assert set(seats.aside) == closed and set(seats.free) == set(range(4)) - closed
    assert told == ["set aside: cuda:1 on a: broken"]


def test_a_sweep_without_a_seat_left_ends_with_what_was_wrong_and_loses_nothing(
    trained: Callable[..., tuple[Counter[str], Listener]], tmp_path: Path
) -> None:
    def script(order: Train, number: int) -> list[Event]:
        why = f"CUDA error: device {number} is lost"
        return [*saved(order), TrialGivenBack(trial=order.trial, lease=order.lease, why=why, scope="device")]

    seats = [Seat(node=f"node-{number}", kind="cpu") for number in range(2)]
    with pytest.raises(BenchkitError, match="no seat is left") as caught:
        trained(study_of(FACTOR, repeats=1), seats, script)
    assert caught.value.problems == ("CUDA error: device 0 is lost", "CUDA error: device 1 is lost")
    trials = read_results(tmp_path).trials
    assert {trial.state for trial in trials} == {"stale"}
    assert all((trial.folder / "checkpoint.pt").read_bytes() == b"checkpoint" for trial in trials)


def test_nodes_that_are_lost_never_make_a_trial_fail(
    trained: Callable[..., tuple[Counter[str], Listener]], tmp_path: Path
) -> None:
    lost = Counter[int]()

    def script(order: Train, number: int) -> list[Event]:
        lost[order.trial] += 1
        if lost[order.trial] <= 5:
            return [WorkerLost(code=-9, machine=True, words="was taken away")]
        return finished(order)

    states, _ = trained(study_of(repeats=1), [CPU], script)
    assert states == {"done": 1} and len(ScriptedSeats.orders) == 6
    assert [order.lease for order, _, _ in ScriptedSeats.orders] == [1, 2, 3, 4, 5, 6]


def test_a_trial_that_ends_its_process_twice_has_failed_with_both_ends_in_the_reason(
    trained: Callable[..., tuple[Counter[str], Listener]], tmp_path: Path
) -> None:
    ends = [WorkerLost(code=7, words="ended the process with exit status 7"), KILLED]

    def script(order: Train, number: int) -> list[Event]:
        return [ends[order.lease - 1]] if rate_of(order) == 0.1 else finished(order)

    states, _ = trained(study_of(FACTOR, repeats=1), [CPU], script)
    assert states == {"failed": 1, "done": 1}
    (reason,) = [trial.reason for trial in read_results(tmp_path).trials if trial.state == "failed"]
    assert "exit status 7" in reason and "SIGKILL" in reason and "out of memory" in reason


def test_an_epoch_that_was_saved_makes_earlier_ends_forgotten(
    trained: Callable[..., tuple[Counter[str], Listener]],
) -> None:
    def script(order: Train, number: int) -> list[Event]:
        if order.lease > 5:
            return finished(order)
        return [*(saved(order, order.lease) if order.lease % 2 == 0 else []), KILLED]

    states, _ = trained(study_of(repeats=1), [CPU], script)
    assert states == {"done": 1} and len(ScriptedSeats.orders) == 6


@pytest.mark.parametrize("how", ["killed", "node", "device"])
def test_an_end_beside_others_does_not_count_and_the_next_start_is_alone(
    trained: Callable[..., tuple[Counter[str], Listener]], tmp_path: Path, how: str
) -> None:
    card = Seat(node="here", kind="cuda", device="a card", precision="float32")
    hungry: list[tuple[int, ...]] = []

    def script(order: Train, number: int) -> list[Event]:
        if rate_of(order) != 0.1:
            return finished(order)
        hungry.append(ScriptedSeats.orders[-1][2])
        return [KILLED] if how == "killed" else finished(order, NO_MEMORY, how)

    # The first trial is handed out before the second seat is ready, and heard of after the second trial is.
    states, _ = trained(study_of(FOUR, repeats=1), [card, card], script)
    assert states == {"failed": 1, "done": 3}
    assert len(hungry) == (3 if how == "killed" else 2), "killed twice alone, but out of memory alone is a result"
    assert hungry[1:] == [()] * (len(hungry) - 1), "every further start is alone"
    for order, _, beside in ScriptedSeats.orders:
        if rate_of(order) == 0.1 and order.lease > 1:
            assert beside == ()
    place = [rate_of(order) for order, _, _ in ScriptedSeats.orders].index(0.1, 1)
    assert ScriptedSeats.orders[place + 1][2] == (), "none is begun beside a trial that is to be alone"


def test_out_of_memory_on_a_card_of_ones_own_is_a_result_at_once(
    trained: Callable[..., tuple[Counter[str], Listener]],
) -> None:
    nodes = [Seat(node=name, kind="cpu") for name in ("one", "two")]
    script: Script = lambda order, number: finished(order, NO_MEMORY, "node")  # noqa: E731
    assert trained(study_of(FACTOR, repeats=1), nodes, script)[0] == {"failed": 2}
    assert len(ScriptedSeats.orders) == 2


def test_a_seat_that_lacks_the_studys_precision_is_set_aside_and_its_trial_waits(
    trained: Callable[..., tuple[Counter[str], Listener]], tmp_path: Path
) -> None:
    new = Seat(node="new", kind="cpu", device="a processor with bf16", precision="bf16", bf16=True)
    old = Seat(node="old", kind="cpu", device="an old processor")
    study = study_of(repeats=2, overrides=AUTO)
    states, view = trained(study, [new, old], lambda order, number: finished(order))
    assert states == {"done": 2} and {number for _, number, _ in ScriptedSeats.orders} == {0}
    assert asides(view) == [
        "set aside: cpu on old: an old processor computes no bf16 in hardware, in which tiny is trained"
    ]
    more = replace(study, repeats=3)

    def stopping(order: Train, number: int) -> list[Event]:
        return [*saved(order), TrialGivenBack(trial=order.trial, lease=order.lease, why="x")]

    with pytest.raises(BenchkitError):
        trained(more, [new], stopping)
    with pytest.raises(BenchkitError, match="computes no bf16 in hardware"):
        trained(more, [old], lambda order, number: finished(order))
    trial = next(trial for trial in read_results(tmp_path).trials if trial.index == 2)
    assert trial.state == "stale" and (trial.folder / "checkpoint.pt").read_bytes() == b"checkpoint"
    assert ScriptedSeats.orders == []
    assert trained(more, [new], lambda order, number: finished(order))[0] == {"done": 3}
    assert ScriptedSeats.orders[0][0].content == b"checkpoint"


def test_a_device_of_another_kind_is_not_used(trained: Callable[..., tuple[Counter[str], Listener]]) -> None:
    card = Seat(node="server", kind="cuda", device="a card")
    states, view = trained(study_of(FACTOR), [CPU, card], lambda order, number: finished(order))
    assert states == {"done": 4} and {number for _, number, _ in ScriptedSeats.orders} == {0}
    assert "its device is cuda, and tiny has been decided to have the device kind 'cpu'" in asides(view)[0]


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT])
@pytest.mark.parametrize("method", ["append_epoch", "write_outcome", "write_history", "write_atomically"])
def test_a_disk_that_does_not_answer_is_asked_again(
    trained: Callable[..., tuple[Counter[str], Listener]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    code: int, method: str,
) -> None:  # fmt: skip
    failed = Counter[str]()
    home = benchkit.sweep.held_trial if method == "write_atomically" else TrialFolder  # which writes checkpoints
    work = getattr(home, method)

    def slow(*given: object) -> None:
        failed[method] += 1
        if failed[method] < 3:
            raise OSError(code, os.strerror(code))
        work(*given)

    monkeypatch.setattr(home, method, slow)
    states, _ = trained(study_of(repeats=1), [CPU], lambda order, number: [*saved(order), finished(order)[-1]])
    assert states == {"done": 1} and len(ScriptedSeats.orders) == 1 and failed[method]
    (trial,) = read_results(tmp_path).trials
    assert [record.epoch for record in trial.history] == [1]


@pytest.mark.parametrize(
    ("code", "hint"),
    [(errno.ESTALE, "workspace is where it was"), (errno.ENOENT, "workspace is where it was"), (errno.EDQUOT, "room")],
)
def test_a_disk_that_never_answers_leaves_the_trial_as_it_is(
    trained: Callable[..., tuple[Counter[str], Listener]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    code: int, hint: str,
) -> None:  # fmt: skip
    def never(*given: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(TrialFolder, "append_epoch", never)
        patch.setattr(benchkit.sweep.held_trial.HeldTrial, "_written_again", never)
        with pytest.raises(BenchkitError, match=os.strerror(code)) as told:
            trained(study_of(repeats=1), [CPU], lambda order, number: finished(order), patience=0.2)
        assert hint in told.value.hint
    (trial,) = read_results(tmp_path).trials
    assert trial.state == "stale"
    assert trained(study_of(repeats=1), [CPU], lambda order, number: finished(order))[0] == {"done": 1}


def test_refused_pinned_memory_means_a_fresh_process_with_pageable_memory(
    trained: Callable[..., tuple[Counter[str], Listener]], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = []
    give = ScriptedSeats.give
    monkeypatch.setattr(ScriptedSeats, "give", lambda self, number, job: (jobs.append(job), give(self, number, job))[1])

    def script(order: Train, number: int) -> list[Event]:
        if order.lease > 1:
            return finished(order)
        why = "pinned memory is refused: CUDA error: out of memory"
        given = TrialGivenBack(trial=order.trial, lease=order.lease, why=why, scope="pinned memory")
        return [given, WorkerLost(code=1, words="ended the process with exit status 1")]

    states, view = trained(study_of(repeats=1), [CPU], script)
    assert states == {"done": 1} and asides(view) == []
    assert [job.pageable for job in jobs if job.task == "train"] == [False, True]


@pytest.mark.skipif(torch.cuda.is_available(), reason="memory can be pinned here")
def test_memory_that_cannot_be_pinned_is_no_result() -> None:
    with pytest.raises(PinningRefusedError, match="pinned memory is refused") as caught:
        Slot(2, (1, 1, 1), pinned=True)
    fault = fault_of(caught.value)
    assert fault is not None and fault.scope == "pinned memory"


@pytest.mark.parametrize(("jobs", "starts"), [(1, 2), (2, 3)])
def test_a_trial_that_takes_the_whole_sweep_along_fails_and_the_others_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, starts: int
) -> None:
    """A pod whose memory one trial exceeds, which ends everything in it: it is started again until all is done."""
    begun = tmp_path / "begun"

    def script(order: Train, number: int) -> list[Event]:
        if rate_of(order) != 0.2:
            return finished(order)
        with begun.open("a") as file:
            file.write(f"{order.lease}\n")
        if jobs == 1 or ScriptedSeats.orders[-1][2] or order.lease > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return []

    ended, pods = -signal.SIGKILL, 0
    while ended == -signal.SIGKILL and pods < 9:
        pods += 1
        pid = os.fork()
        if not pid:
            try:
                limited = functools.partial(Memory, limit=2**30, group=f"pod {pods}")
                monkeypatch.setattr(benchkit.sweep.coordinator, "memory_here", lambda count: limited(at_once=jobs))  # noqa: B023
                monkeypatch.setattr(ScriptedSeats, "script", staticmethod(script), raising=False)
                monkeypatch.setattr(ScriptedSeats, "nodes", [CPU] * jobs, raising=False)
                monkeypatch.setattr(ScriptedSeats, "orders", [], raising=False)
                monkeypatch.setattr(benchkit.sweep.orchestration, "Pool", ScriptedSeats)
                request = Request(study=study_of(FOUR, repeats=1), workspace=tmp_path, data_root=DATA, jobs=jobs)
                sweep(request, Registry.installed(), Listener())
            finally:
                os._exit(3)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    states = Counter(trial.state for trial in read_results(tmp_path).trials)
    assert states == {"failed": 1, "done": 3}
    (reason,) = [trial.reason for trial in read_results(tmp_path).trials if trial.state == "failed"]
    assert "under a limit of memory" in reason and "out of memory" in reason
    assert len(begun.read_text().split()) == starts == pods - 1


def test_a_sweep_that_was_killed_without_a_limit_of_memory_counts_against_nobody() -> None:
    starts = Starts()
    for lease in range(2, 9):
        starts = starts.after_other_sweeps(lease, Memory(), Memory())
    assert starts.ended == () and not starts.alone
    same = Memory(limit=2**30, group="a", kills=4)
    assert Starts().after_other_sweeps(2, same, same).ended == ()
    assert Starts().after_other_sweeps(2, replace(same, kills=5), same).ended != ()
    assert Starts().after_other_sweeps(2, replace(same, kills=5), replace(same, at_once=2)) == Starts(
        since=1, alone=True
    )


def test_the_least_limit_of_memory_is_read_with_its_kills(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/pod/container\n")
    for name, limit in (("pod", "1000"), ("pod/container", "max"), (".", "5000")):
        folder = tmp_path / "groups" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    found = memory_here(4, tmp_path / "groups", tmp_path / "own")
    assert (found.limit, found.kills, found.at_once) == (1000, 2, 4) and found.group
    assert memory_here(1, tmp_path, tmp_path / "absent") == Memory()
    (tmp_path / "own").write_text("4:memory:/job\n2:cpuacct:/\n0::/\n")
    (tmp_path / "groups" / "memory" / "job").mkdir(parents=True)
    (tmp_path / "groups" / "memory" / "job" / "memory.limit_in_bytes").write_text("700\n")
    (tmp_path / "groups" / "memory" / "job" / "memory.oom_control").write_text("under_oom 0\noom_kill 5\n")
    older = memory_here(1, tmp_path / "groups", tmp_path / "own")
    assert (older.limit, older.kills) == (700, 5)


@pytest.mark.parametrize("content", [None, "", "[]", '{"limit": "none"}', "\0"])
def test_a_damaged_record_of_the_last_sweeps_memory_counts_as_absent(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "memory.json").write_text(content)
    now = Memory(limit=2**30, group="a", kills=4)
    assert memory_before(tmp_path, now) == Memory()
    assert memory_before(tmp_path, Memory()) == now


@pytest.mark.parametrize(
    ("error", "scope"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "node"),
        (OSError(errno.ESTALE, "Stale file handle"), "node"),
        (ImportError("libcudnn.so.9: cannot open shared object file"), "node"),
        (ModuleNotFoundError("No module named 'torch.x'", name="torch.x"), "node"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "device"),
        (RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"), "device"),
        (RuntimeError("CUDA error: device-side assert triggered"), None),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), None),
        (ModuleNotFoundError("No module named 'mine'", name="mine"), None),
        (FileNotFoundError(errno.ENOENT, "No such file"), None),
        (ValueError("no good"), None),
    ],
    ids=lambda value: re.sub(r"\W+", "-", str(value))[:40],
)
def test_what_is_a_machines_doing_and_what_a_trials(error: Exception, scope: str | None) -> None:
    fault = fault_of(error)
    assert (fault.scope if fault else None) == scope
