"""The trials of one worker process, in turns: a few steps of one, then of the next.

Steps on a GPU are queued and not waited for, so one loop keeps a stream busy for each trial. It is a loop and no
threads: random numbers, flags and threads are kept for a whole process, and so are only ever those of one trial, which
are put in place for its turn and taken out after it. Each trial computes to the bit what it would alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchkit.sweep.messages import (
    Event,
    Job,
    Order,
    Train,
    TrialAnswer,
    TrialGivenBack,
    is_asked,
    mark,
)
from benchkit.sweep.stopping import WorkerStop
from benchkit.sweep.training import Telling
from benchkit.sweep.work import WorkerTasks
from benchkit.train import surroundings
from benchkit.train.fit import Pause
from benchkit.train.surroundings import Surroundings


class Lane:
    """A trial under way: what it tells, and the process as it has it. `waits` says that it waits for an answer."""

    def __init__(self, order: Train, telling: Telling, stream: torch.cuda.Stream | None) -> None:
        """Begin a trial."""
        self.order = order
        self.telling = telling
        self.stream = stream
        self.surroundings = Surroundings(stream)
        self.answer: TrialAnswer | None = None
        self.waits = False


class Turns:
    """The trials that a worker has, and whose turn it is; `send` tells the sweep."""

    def __init__(self, work: WorkerTasks, send: Callable[[Event], None], stop: WorkerStop | None = None) -> None:
        """Have no trial yet; `stop` is told while there is one."""
        self._work = work
        self._send = send
        self._stop = stop
        self._lanes: list[Lane] = []
        self._streams: list[torch.cuda.Stream | None] = []
        self._printing: Train | None = None

    @property
    def waiting(self) -> bool:
        """Return whether nothing can be done before another order comes."""
        return all(lane.waits for lane in self._lanes)

    def take(self, order: Order) -> None:
        """Begin a trial, hand over an answer, or do a job to its end."""
        if isinstance(order, TrialAnswer):
            for lane in list(self._lanes):
                if lane.order.whose != order.whose:
                    continue
                if order.word == "drop":
                    self._drop(lane)
                else:
                    lane.answer, lane.waits = order, False
        elif isinstance(order, Train):
            self._begin(order)
        else:
            self._do(order)

    def turn(self) -> None:
        """Give each trial that waits for nothing its turn."""
        for lane in list(self._lanes):
            if not lane.waits:
                self._advance(lane)

    def _do(self, job: Job) -> None:
        self._print_for(None)
        for event in self._work.do(job):
            if not isinstance(event, Pause):
                self._send(event)

    def _begin(self, order: Train) -> None:
        if self._stop is not None:
            if self._stop.asked:
                return
            self._stop.training = True
        stream = self._streams.pop() if self._streams else None
        if stream is None and (device := self._work.shared_device) is not None:
            stream = surroundings.own_stream(device)
        self._lanes.append(Lane(order, self._work.do(order), stream))

    def _advance(self, lane: Lane) -> None:
        """Let a trial train until it waits for an answer, its turn is over, or it has ended."""
        self._print_for(lane.order)
        end = time.monotonic() + surroundings.TURN
        with lane.surroundings.in_place():
            while not lane.waits:
                answer, lane.answer = lane.answer, None
                try:
                    event = lane.telling.send(answer)
                except StopIteration:
                    return self._end(lane)
                if not isinstance(event, Pause):
                    self._send(event)
                    lane.waits = is_asked(event, asks=lane.order.asks) and lane.answer is None
                elif event is Pause.WAIT or time.monotonic() >= end:
                    return

    def _drop(self, lane: Lane) -> None:
        """End a trial where it is: it is another's by now."""
        self._print_for(lane.order)
        with lane.surroundings.in_place():
            lane.telling.close()
        self._send(TrialGivenBack(trial=lane.order.trial, lease=lane.order.lease))
        self._end(lane)

    def _end(self, lane: Lane) -> None:
        self._lanes.remove(lane)
        self._streams.append(lane.stream)
        self._print_for(None)
        if self._stop is not None and not self._lanes:
            self._stop.over()

    def _print_for(self, order: Train | None) -> None:
        """Mark what is printed from now on as a trial's, or as none's."""
        if order is not self._printing:
            self._printing = order
            mark(*(order.whose if order else (0, 0)))
