"""The workers of a sweep: started on their devices, given jobs, heard, and ended; one may serve several seats.

Each is a process at the end of a line: frames to it, frames from it, and how it ended. Whatever runs workers elsewhere
brings an opener of lines of its own; nothing else of a sweep differs then. Imports no torch.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

from benchkit.child import exit_words
from benchkit.errors import BenchkitError
from benchkit.sweep import worker
from benchkit.sweep.devices import Device, worker_environment
from benchkit.sweep.messages import (
    CHUNK,
    Event,
    Job,
    OfTrial,
    Printed,
    PrintSplitter,
    Train,
    TrialAnswer,
    TrialFinished,
    TrialGivenBack,
    WorkerEnds,
    WorkerFailed,
    WorkerIdle,
    WorkerLost,
    WorkerReady,
    dump,
    event_of,
    frames,
)
from benchkit.sweep.stopping import GRACE

LAST_WORDS = 1.0
"""Seconds in which what a process printed must come to its end: its own children may hold the pipe open for longer."""


class Line(Protocol):
    """A line to a worker process, which it starts. Every call returns at once, also where the worker stands still."""

    @property
    def ended(self) -> WorkerLost | None:
        """Return how it ended, None while it has not."""
        ...

    def send(self, whole: bytes) -> None:
        """Pass a frame on; it is lost where the line has ended."""
        ...

    def stop(self) -> None:
        """Ask the worker to end, who saves the epoch under way first."""
        ...

    def kill(self) -> None:
        """End the worker at once."""
        ...


class Opener(Protocol):
    """Whoever opens lines to workers of one kind."""

    def __call__(
        self,
        device: Device,
        environment: Mapping[str, str],
        hear: Callable[[bytes], None],
        over: Callable[[WorkerLost], None],
    ) -> Line:
        """Return a line to a new worker on a device; raise `BenchkitError` where none can be started.

        `environment` is that of the process: threads, allocator and device are set before Python starts. From threads
        of the line's own, `hear` gets whole frames, in order, and `over` is called once, after the last of them.
        """
        ...


class LocalLine:
    """A line to a worker process of this machine."""

    def __init__(
        self,
        device: Device,
        environment: Mapping[str, str],
        hear: Callable[[bytes], None],
        over: Callable[[WorkerLost], None],
    ) -> None:
        """Start the process; which device it sees, its environment says."""
        self._hear = hear
        self._over = over
        self.ended: WorkerLost | None = None
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            worker.COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
        )
        printing = threading.Thread(target=self._pass_on_prints, daemon=True)
        reading = threading.Thread(target=self._read, args=(printing,), daemon=True)
        for thread in (printing, reading, threading.Thread(target=self._write, daemon=True)):
            thread.start()

    def send(self, whole: bytes) -> None:
        """Pass a frame on."""
        self._waiting.put(whole)

    def stop(self) -> None:
        """Ask the worker to end, who saves the epoch under way first."""
        self._process.terminate()

    def kill(self) -> None:
        """End the worker at once."""
        self._process.kill()

    def _write(self) -> None:
        """Write what is sent: a thread of its own, since a worker that stands still reads nothing."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as stream:
            while (whole := self._waiting.get()) is not None:
                stream.write(whole)
                stream.flush()

    def _read(self, printing: threading.Thread) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for whole in frames(stream):
                self._hear(whole)
        code = self._process.wait()
        self._waiting.put(None)
        printing.join(LAST_WORDS)
        self.ended = WorkerLost(code=code, words=exit_words(code))
        self._over(self.ended)

    def _pass_on_prints(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            splitter, piece = PrintSplitter(), b"begin"
            while piece:
                piece = os.read(stream.fileno(), CHUNK)
                for printed in splitter.feed(piece):
                    self._hear(dump(printed))


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
            self._beside |= {*self._trials, order.whose}
        self._trials[order.whose] = number

    def told(self, event: Event) -> Iterator[tuple[int, Event]]:
        """Yield the seats that an event is told of, each with it."""
        if isinstance(event, WorkerLost):
            had = {number: trial for trial, number in self._trials.items()}
            for number in self.seats:
                shared = had[number] in self._beside if number in had else bool(had)
                yield number, replace(event, shared=shared)
        elif isinstance(event, WorkerFailed | WorkerEnds):
            yield from ((number, event) for number in self.seats)
        elif isinstance(event, OfTrial):
            yield self._trials.get(event.whose, self.seats[0]), event
            if isinstance(event, TrialFinished | TrialGivenBack):
                self._trials.pop(event.whose, None)
                self._beside.discard(event.whose)
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
        opener: Opener = LocalLine,
        offered: Offered | None = None,
        per_process: int = 1,
    ) -> None:
        """Start nothing yet: a worker starts when it is first given a job. Seats stay, unless some are `offered`.

        Up to `per_process` seats of one device are in one process, which trains their trials in turns.
        """
        self._seats = list(seats)
        self.size = len(seats)
        self.changes = offered is not None
        self._offered = offered or (lambda: self._seats)
        self._threads = threads
        self._logs = logs
        self._opener = opener
        self._groups = groups(seats, per_process)
        self._events: queue.Queue[tuple[SharedProcess, Event]] = queue.Queue()
        self._told: deque[tuple[int, Event]] = deque()
        self._processes: dict[int, SharedProcess] = {}
        self._over: dict[Line, threading.Event] = {}
        self._environments: dict[int, dict[str, str]] = {}
        self._stopped_at: float | None = None

    def _start(self, number: int) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        over = threading.Event()
        process = SharedProcess(self._group(number))

        def end(how: WorkerLost) -> None:
            self._events.put((process, how))
            over.set()

        seat, count = self._seats[number], len(set(map(self._group, range(self.size))))
        if count not in self._environments:  # it looks at disks and processors
            self._environments[count] = worker_environment(self._threads, count)
        environment = {**self._environments[count], **seat.environment}
        process.line = self._opener(seat, environment, functools.partial(self._hear, process), end)
        self._processes |= dict.fromkeys(process.seats, process)
        self._over[process.line] = over

    def _group(self, number: int) -> tuple[int, ...]:
        """Return the seats of a seat's process."""
        return self._groups.get(number, (number,))

    def _hear(self, process: SharedProcess, whole: bytes) -> None:
        event = event_of(whole)
        if isinstance(event, Printed) and not event.trial:
            with (self._logs / f"worker-{process.seats[0]}.log").open("ab") as log:
                log.write(event.content)
        else:
            self._events.put((process, event))

    def start(self) -> None:
        """Start all workers, so that they import what they need while the sweep still prepares."""
        for number in range(self.size):
            if number not in self._processes:
                self._start(number)

    def grow(self) -> range:
        """Return the numbers of the seats that came since it was asked last."""
        before, known = self.size, set(self._seats)
        self._seats += [one for one in self._offered() if one not in known]
        self.size = len(self._seats)
        return range(before, self.size)

    def has(self, number: int) -> bool:
        """Return whether a seat is still there."""
        return self._seats[number] in self._offered()

    def give(self, number: int, job: Job) -> None:
        """Hand a job to a worker, starting it when there is none, and again when its process is gone.

        Where its process ends just now, its `WorkerLost` is under way, and whoever hears that gives again.
        """
        if number not in self._processes or self._processes[number].line.ended:
            self._start(number)
        process, seat = self._processes[number], self._seats[number]
        process.jobs.append((number, job.task == "train"))
        process.line.send(dump(_seated(job, seat, max(seat.at_once, self._seats.count(seat)))))

    def send(self, number: int, order: Train | TrialAnswer) -> None:
        """Pass an order on to a worker that has a job; it is lost where the worker is gone."""
        process = self._processes[number]
        if isinstance(order, Train):
            process.begin(number, order)
        process.line.send(dump(order))

    def events(self, wait: float) -> Iterator[tuple[int, Event]]:
        """Yield the workers' events that come within `wait` seconds of each other, each with the seat it is told of."""
        while True:
            while self._told:
                yield self._told.popleft()
            try:
                process, event = self._events.get(timeout=wait)
            except queue.Empty:
                return
            now = [one for one in process.seats if self._processes.get(one) is process]
            self._told += [(number, found) for number, found in process.told(event) if number in now]

    @property
    def waiting(self) -> bool:
        """Return whether some event is there already."""
        return bool(self._told) or not self._events.empty()

    def retire(self, number: int) -> None:
        """End a worker none of whose seats is used any more, once it has saved its epoch."""
        if number in self._processes:
            process = self._processes[number]
            process.retired.add(number)
            if process.retired.issuperset(process.seats):
                process.line.stop()

    def stop(self) -> None:
        """Ask all workers to end, who may end and save their epoch within `GRACE`; their events still come."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
            for line in self._lines():
                line.stop()

    def close(self) -> None:
        """End all workers, those that have not been asked to before as `stop` does."""
        self.stop()
        end = (self._stopped_at or 0.0) + GRACE
        for line in self._lines():
            if not self._over[line].wait(max(0.0, end - time.monotonic())):
                line.kill()
        for over in self._over.values():
            over.wait(timeout=LAST_WORDS)

    def _lines(self) -> list[Line]:
        return list(dict.fromkeys(process.line for process in self._processes.values()))

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
    if job.task == "train":
        job = replace(job, at_once=min(job.at_once, sharing))
    if seat.kind == "cuda" and not seat.uuid:
        return replace(job, device="cuda") if job.device == "auto" else job
    return replace(job, device=seat.kind, device_label=seat.label)


def answers(pool: Pool, job: Job, seconds: float = math.inf, number: int = 0) -> Iterator[Event]:
    """Hand a job to one of a pool's workers; yield its events until it is idle, cannot go on, is lost or time is up."""
    pool.give(number, job)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for one, event in pool.events(0.5):
            if one != number:
                continue
            yield event
            if isinstance(event, WorkerIdle | WorkerFailed | WorkerLost):
                return


def cannot_go_on(what: str, workspace: Path, problems: Sequence[str] = ()) -> BenchkitError:
    """Return the error of a sweep that has no worker left to go on with."""
    logs = workspace / "logs"
    return BenchkitError(
        what, problems=problems, hint=f"the whole story is in {logs}; the same command goes on where it stopped"
    )
