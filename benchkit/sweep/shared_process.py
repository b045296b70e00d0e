"""A worker's process and the seats whose trials it trains: which of them each event is told of. Imports no torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from benchkit.sweep.devices import Device
from benchkit.sweep.lines import Line
from benchkit.sweep.messages import (
    Event,
    OfTrial,
    Printed,
    Train,
    TrialFinished,
    TrialGivenBack,
    WorkerEnds,
    WorkerFailed,
    WorkerIdle,
    WorkerLost,
    WorkerReady,
)


def groups(seats: Sequence[Device], per_process: int) -> Mapping[int, tuple[int, ...]]:
    """Return for each seat, by its number, the seats of its process: up to `per_process` of one device, in order."""
    alike: dict[Device, list[int]] = {}
    for number, device in enumerate(seats):
        alike.setdefault(device, []).append(number)
    parts = [
        tuple(numbers[first : first + per_process])
        for numbers in alike.values()
        for first in range(0, len(numbers), per_process)
    ]
    return {number: part for part in parts for number in part}


class SharedProcess:
    """A worker's process with its `line`: its seats, the jobs that it has not answered, and the trials that it has.

    What is told of a trial is told of the seat that it was handed to; what answers a job, of the seat whose job it is;
    the end of the process, of all its seats.
    """

    line: Line

    def __init__(self, seats: tuple[int, ...]) -> None:
        """Have neither jobs nor trials yet."""
        self.seats = seats
        self.jobs: deque[tuple[int, bool]] = deque()
        self.retired: set[int] = set()
        self._trials: dict[tuple[int, int], int] = {}
        self._beside: set[tuple[int, int]] = set()

    def begin(self, number: int, order: Train) -> None:
        """Note that a seat is handed a trial."""
        if self._trials:
            self._beside |= {*self._trials, (order.trial, order.lease)}
        self._trials[order.trial, order.lease] = number

    def told(self, event: Event) -> Iterator[tuple[int, Event]]:
        """Yield the seats that an event is told of, each with it."""
        if isinstance(event, WorkerLost):
            had = {number: trial for trial, number in self._trials.items()}
            for number in self.seats:
                shared = had[number] in self._beside if number in had else bool(had)
                yield number, replace(event, shared=shared)
        elif isinstance(event, WorkerFailed | WorkerEnds):
            yield from ((number, event) for number in self.seats)
        elif isinstance(event, (*get_args(OfTrial), Printed)):
            name = event.trial, event.lease  # type: ignore[union-attr]
            yield self._trials.get(name, self.seats[0]), event
            if isinstance(event, TrialFinished | TrialGivenBack):
                self._trials.pop(name, None)
                self._beside.discard(name)
        else:
            yield self._answered(event), event

    def _answered(self, event: Event) -> int:
        """Return the seat whose job is answered, or has been."""
        if not self.jobs:
            return self.seats[0]
        number, training = self.jobs[0]
        if isinstance(event, WorkerIdle) or (training and isinstance(event, WorkerReady)):
            self.jobs.popleft()
        return number
