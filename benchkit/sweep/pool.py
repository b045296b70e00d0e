"""The workers of a sweep: started on their devices, given jobs, heard, and ended. Imports no torch."""

from __future__ import annotations

import functools
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from benchkit.errors import BenchkitError
from benchkit.sweep import worker as worker_process
from benchkit.sweep.devices import Device
from benchkit.sweep.lines import LAST_WORDS, End, Line, Opener, local_line
from benchkit.sweep.messages import (
    Event,
    Job,
    Printed,
    Train,
    TrialAnswer,
    WorkerFailed,
    WorkerIdle,
    WorkerLost,
    dump,
    event_of,
)
from benchkit.sweep.stopping import GRACE

HEAR_EVERY = 0.25
"""Seconds without an event after which the view is refreshed."""


Offered = Callable[[], Sequence[Device]]
"""Tells the seats that there are now, where they come and go."""


class Pool:
    """A worker process for each of `seats`, its device, with `threads` CPU threads; their output goes into `logs`."""

    def __init__(
        self,
        seats: Sequence[Device],
        threads: int,
        logs: Path,
        opener: Opener = local_line,
        offered: Offered | None = None,
    ) -> None:
        """Start nothing yet: a worker starts when it is first given a job. Seats stay, unless some are `offered`."""
        self._seats = list(seats)
        self.size = len(seats)
        self.changes = offered is not None
        self._offered = offered or (lambda: self._seats)
        self._threads = threads
        self._logs = logs
        self._opener = opener
        self._events: queue.Queue[tuple[int, Event]] = queue.Queue()
        self._lines: dict[int, Line] = {}
        self._over: dict[Line, threading.Event] = {}
        self._stopped_at: float | None = None

    def _start(self, number: int) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        over = threading.Event()

        def end(how: End) -> None:
            self._events.put((number, WorkerLost(code=how.code, machine=how.machine, words=how.words)))
            over.set()

        seat = self._seats[number]
        environment = {**worker_process.environment(self._threads, self.size), **seat.environment}
        self._lines[number] = self._opener(seat, environment, functools.partial(self._hear, number), end)
        self._over[self._lines[number]] = over

    def _hear(self, number: int, whole: bytes) -> None:
        event = event_of(whole)
        if isinstance(event, Printed) and not event.trial:
            with (self._logs / f"worker-{number}.log").open("ab") as log:
                log.write(event.content)
        else:
            self._events.put((number, event))

    def start(self) -> None:
        """Start all workers, so that they import what they need while the sweep still prepares."""
        for number in range(self.size):
            if number not in self._lines:
                self._start(number)

    def grow(self) -> range:
        """Return the numbers of the seats that came since it was asked last."""
        before = self.size
        self._seats += [one for one in self._offered() if one not in self._seats]
        self.size = len(self._seats)
        return range(before, self.size)

    def has(self, number: int) -> bool:
        """Return whether a seat is still there."""
        return self._seats[number] in self._offered()

    def give(self, number: int, job: Job) -> None:
        """Hand a job to a worker, starting it when there is none, and again when its process is gone.

        Where its process ends just now, its `WorkerLost` is under way, and whoever hears that gives again.
        """
        if number not in self._lines or self._lines[number].ended:
            self._start(number)
        seat = self._seats[number]
        self._lines[number].send(dump(_seated(job, seat, max(seat.at_once, self._seats.count(seat)))))

    def send(self, number: int, order: Train | TrialAnswer) -> None:
        """Pass an order on to a worker that has a job; it is lost where the worker is gone."""
        self._lines[number].send(dump(order))

    def events(self, wait: float) -> Iterator[tuple[int, Event]]:
        """Yield the workers' events that come within `wait` seconds of each other."""
        while True:
            try:
                yield self._events.get(timeout=wait)
            except queue.Empty:
                return

    @property
    def waiting(self) -> bool:
        """Return whether some event is there already."""
        return not self._events.empty()

    def retire(self, number: int) -> None:
        """End a worker whose seat is used no more, once it has saved its epoch."""
        if number in self._lines:
            self._lines[number].stop()

    def stop(self) -> None:
        """Ask all workers to end, who may end and save their epoch within `GRACE`; their events still come."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
            for line in self._lines.values():
                line.stop()

    def close(self) -> None:
        """End all workers, those that have not been asked to before as `stop` does."""
        self.stop()
        end = (self._stopped_at or 0.0) + GRACE
        for line in self._lines.values():
            if not self._over[line].wait(max(0.0, end - time.monotonic())):
                line.kill()
        for over in self._over.values():
            over.wait(timeout=LAST_WORDS)

    def __enter__(self) -> Pool:
        """Return the pool."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers."""
        self.close()


def _seated(job: Job, seat: Device, sharing: int) -> Job:
    """Return a job that names the device of its worker, who then chooses none; without its UUID, CUDA chooses a GPU.

    So many workers are `sharing` the device.
    """
    job = replace(job, at_once=min(job.at_once, sharing))
    if seat.kind == "cuda" and not seat.uuid:
        return replace(job, device="cuda") if job.device == "auto" else job
    return replace(job, device=seat.kind, device_label=seat.label)


def answers(pool: Pool, job: Job, seconds: float = math.inf, number: int = 0) -> Iterator[Event]:
    """Hand a job to one of a pool's workers; yield its events until it is idle, cannot go on, is lost or time is up."""
    pool.give(number, job)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for worker, event in pool.events(0.5):
            if worker != number:
                continue
            yield event
            if isinstance(event, WorkerIdle | WorkerFailed | WorkerLost):
                return


def worker_failure(event: WorkerFailed, workspace: Path) -> BenchkitError:
    """Return the error of a sweep whose worker cannot go on."""
    return cannot_go_on(f"a worker cannot go on: {event.message}", workspace)


def cannot_go_on(what: str, workspace: Path, problems: Sequence[str] = ()) -> BenchkitError:
    """Return the error of a sweep that has no worker left to go on with."""
    logs = workspace / "logs"
    return BenchkitError(
        what, problems=problems, hint=f"the whole story is in {logs}; the same command goes on where it stopped"
    )
