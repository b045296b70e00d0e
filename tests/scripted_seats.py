"""A pool of seats on several nodes whose workers do what a script says: no process, no training."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tiny_study import DATA, METRICS, RECORD, InlinePool, Listener

import benchkit.sweep.coordinator
import benchkit.sweep.orchestration
from benchkit.registry import Registry
from benchkit.results import Cost, Outcome
from benchkit.study import Study
from benchkit.sweep.devices import Device
from benchkit.sweep.messages import (
    CheckpointTaken,
    EpochEnded,
    Event,
    Job,
    NetworksChecked,
    Seat,
    Train,
    TrialAnswer,
    TrialBegan,
    TrialFinished,
    WorkerIdle,
    WorkerLost,
    WorkerReady,
)
from benchkit.sweep.orchestration import Request, sweep

Script = Callable[[Train, int], list[Event]]
DONE = Outcome(
    state="done",
    metrics={"val": METRICS, "test": METRICS},
    cost=Cost(
        parameters=7, flops=1, seconds=2.0, images_per_second=1, peak_memory=1, device="cpu", precision="float32"
    ),
)
KILLED = WorkerLost(code=-9, words="ended the process by signal SIGKILL")


def finished(order: Train, outcome: Outcome = DONE, memory: str = "") -> list[Event]:
    """Return the events of a trial that is trained for an epoch and ends."""
    named = {"trial": order.trial, "lease": order.lease}
    return [
        TrialBegan(**named, epochs=1),
        EpochEnded(**named, record=RECORD),
        TrialFinished(trial=order.trial, lease=order.lease, outcome=outcome, memory=memory),  # type: ignore[arg-type]
    ]


def saved(order: Train, epoch: int = 1) -> list[Event]:
    """Return the events of a trial that is trained for an epoch and saves it."""
    named = {"trial": order.trial, "lease": order.lease}
    return [
        TrialBegan(**named, epochs=9),
        EpochEnded(**named, record=replace(RECORD, epoch=epoch)),
        CheckpointTaken(**named, epoch=epoch, content=b"checkpoint"),
    ]


class ScriptedSeats(InlinePool):
    """Workers on `nodes`, a seat each; each order is answered by what the script returns for it and its seat.

    `orders` keeps them with their seats and the seats that had a trial at that time.
    """

    script: ClassVar[Script]
    nodes: ClassVar[Sequence[Seat]]
    orders: ClassVar[list[tuple[Train, int, tuple[int, ...]]]]

    def __init__(self, seats: Sequence[Device], threads: int, logs: Path, per_process: int = 1) -> None:
        self.size = len(self.nodes)
        self._told: deque[tuple[int, Event]] = deque()
        self._busy: set[int] = set()

    def give(self, number: int, job: Job) -> None:
        seat = self.nodes[number]
        self._told.append((number, WorkerReady(device=seat.kind, seat=seat)))
        if job.task == "check":
            self._told += [
                (number, NetworksChecked(problems=(), checked=1, networks=1)),
                (number, WorkerIdle()),
            ]

    def send(self, number: int, order: Train | TrialAnswer) -> None:
        if isinstance(order, Train):
            self.orders.append((order, number, tuple(sorted(self._busy))))
            self._busy.add(number)
            self._told += [(number, event) for event in type(self).script(order, number)]

    def events(self, wait: float) -> Iterator[tuple[int, Event]]:
        while self._told:
            number, event = self._told.popleft()
            if isinstance(event, TrialFinished | WorkerLost) or type(event).__name__ == "TrialGivenBack":
                self._busy.discard(number)
            yield number, event

    def retire(self, number: int) -> None:
        return

    def stop(self) -> None:
        self._told += [(number, WorkerLost(code=0)) for number in self._busy]


def scripted_sweep(
    monkeypatch: pytest.MonkeyPatch,
    workspace: Path,
    study: Study,
    nodes: Sequence[Seat],
    script: Script,
    pool: type[ScriptedSeats] = ScriptedSeats,
    **more: Any,
) -> tuple[Counter[str], Listener]:
    """Sweep a study on scripted seats; return the states of its trials and what was shown."""
    for name, value in {"script": staticmethod(script), "nodes": nodes, "orders": []}.items():
        monkeypatch.setattr(ScriptedSeats, name, value, raising=False)
    monkeypatch.setattr(benchkit.sweep.orchestration, "Pool", pool)
    monkeypatch.setattr(benchkit.sweep.coordinator, "LOOK_EVERY", 0.01)
    view = Listener()
    request = Request(study=study, workspace=workspace, data_root=DATA, jobs=len(nodes), **more)
    return +sweep(request, Registry.installed(), view), view
