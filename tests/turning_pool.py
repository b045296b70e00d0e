"""A pool whose seats share this process, which trains their trials in turns, as a worker of several trials does."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_study import InlinePool

from benchkit.sweep.devices import Device
from benchkit.sweep.messages import Event, Job, Train, TrialAnswer, WorkerLost, dump, event_of, order_of
from benchkit.sweep.pool import SharedProcess


class Exited(BaseException):
    """The process would have ended."""


class TurningPool(InlinePool):
    """A process of all seats; one that ends is followed by another, as a real one is. `told` keeps all events."""

    told: list[tuple[int, Event]] = []
    processes = 0

    def __init__(self, seats: Sequence[Device], threads: int, logs: Path, per_process: int = 1) -> None:
        self.size = len(seats)
        self._events: deque[tuple[int, Event]] = deque()
        self._begin()

    def _begin(self) -> None:
        from benchkit.sweep.turns import Turns
        from benchkit.sweep.work import WorkerTasks

        type(self).processes += 1
        self._process = SharedProcess(tuple(range(self.size)))
        self._turns: Turns | None = Turns(WorkerTasks(), self._hear)

    def _hear(self, event: Event) -> None:
        self._events += self._process.told(event_of(dump(event)))

    def give(self, number: int, job: Job) -> None:
        if self._turns is None:
            self._begin()
        self._process.jobs.append((number, job.task == "train"))
        self._do(replace(job, device="cpu"))

    def send(self, number: int, order: Train | TrialAnswer) -> None:
        if self._turns is not None:
            if isinstance(order, Train):
                self._process.begin(number, order)
            self._do(order)

    def _do(self, order: Job | Train | TrialAnswer) -> None:
        assert self._turns is not None
        self._turns.take(order_of(dump(order)))

    def events(self, wait: float) -> Iterator[tuple[int, Event]]:
        while True:
            while self._events:
                self.told.append(self._events[0])
                yield self._events.popleft()
            if self._turns is None or self._turns.waiting:
                return
            try:
                self._turns.turn()
            except Exited:
                self._turns = None
                self._hear(WorkerLost(code=1, words="ended the process with exit status 1"))

    def retire(self, number: int) -> None:
        return

    def stop(self) -> None:
        self._turns = None
        self._hear(WorkerLost(code=0))


def turning(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> type[TurningPool]:
    """Have sweeps of this process train in turns of so many seconds; return the pool, which keeps what was told."""

    def leave(code: int) -> None:
        raise Exited

    monkeypatch.setattr("benchkit.train.surroundings.TURN", seconds)
    monkeypatch.setattr("tiny_study.InlinePool", TurningPool)
    monkeypatch.setattr(TurningPool, "told", [])
    monkeypatch.setattr(TurningPool, "processes", 0)
    monkeypatch.setattr(os, "_exit", leave)
    return TurningPool
