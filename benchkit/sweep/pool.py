"""The worker processes of a sweep, and its stages: trials handed out, their events heard, lost workers counted."""

from __future__ import annotations

import functools
import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

from benchkit.errors import BenchkitError
from benchkit.ledger import Ledger
from benchkit.plan import Plan
from benchkit.storage import encode
from benchkit.sweep import worker as worker_process
from benchkit.sweep.devices import Device
from benchkit.sweep.frames import frame, parted
from benchkit.sweep.lines import LAST_WORDS, PRINTED, End, Line, Opener, local_line
from benchkit.sweep.messages import (
    EpochEnded,
    Event,
    Job,
    TrialEnded,
    TrialTaken,
    WorkerFailed,
    WorkerIdle,
    WorkerLost,
    load,
)
from benchkit.sweep.stopping import GRACE


class Pool:
    """A worker process for each of `seats`, its device, with `threads` CPU threads; their output goes into `logs`."""

    def __init__(self, seats: Sequence[Device], threads: int, logs: Path, opener: Opener = local_line) -> None:
        """Start nothing yet: a worker starts when it is first given a job."""
        self._seats = seats
        self.size = len(seats)
        self._threads = threads
        self._logs = logs
        self._opener = opener
        self._events: queue.Queue[tuple[int, Event]] = queue.Queue()
        self._lines: dict[int, Line] = {}
        self._over: dict[Line, threading.Event] = {}

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
        table, payload = parted(whole)
        if table["event"] == PRINTED:
            with (self._logs / f"worker-{number}.log").open("ab") as log:
                log.write(payload)
        else:
            self._events.put((number, load(table)))

    def start(self) -> None:
        """Start all workers, so that they import what they need while the sweep still prepares."""
        for number in range(self.size):
            if number not in self._lines:
                self._start(number)

    def give(self, number: int, job: Job) -> None:
        """Hand a job to a worker, starting it when there is none, and again when its process is gone.

        Where its process ends just now, its `WorkerLost` is under way, and whoever hears that gives again.
        """
        if number not in self._lines or self._lines[number].ended:
            self._start(number)
        self._lines[number].send(frame(encode(_seated(job, self._seats[number]))))

    def events(self, wait: float) -> Iterator[tuple[int, Event]]:
        """Yield the workers' events that come within `wait` seconds of each other."""
        while True:
            try:
                yield self._events.get(timeout=wait)
            except queue.Empty:
                return

    def close(self) -> None:
        """End all workers, who may end and save their epoch in some seconds; what they were at can be gone on with."""
        end = time.monotonic() + GRACE
        for line in self._lines.values():
            line.stop()
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


def _seated(job: Job, seat: Device) -> Job:
    """Return a job that names the device of its worker, who then chooses none; without its UUID, CUDA chooses."""
    if seat.kind == "cuda" and not seat.uuid:
        return job
    return replace(job, device=seat.kind, device_label=seat.label)


def answers(pool: Pool, job: Job, seconds: float = math.inf) -> Iterator[Event]:
    """Hand a job to a pool's first worker; yield its events until it is idle, cannot go on, is lost or time is up."""
    pool.give(0, job)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for number, event in pool.events(0.5):
            if number != 0:
                continue
            yield event
            if isinstance(event, WorkerIdle | WorkerFailed | WorkerLost):
                return


PATIENCE = 2
"""How often a trial may take its worker's process down without coming any further, before it counts as failed."""

IDLE_PATIENCE = 3
"""How many workers in a row may end before any of them took a trial."""

HEAR_EVERY = 0.25
"""Seconds without an event after which the view is refreshed."""

LOOK_EVERY = 1.0
"""Seconds between looks at trials that another sweep trains."""


class View(Protocol):
    """Whoever watches a sweep."""

    def stage(self, title: str, states: Mapping[str, int], total: int) -> None:
        """Show that a stage begins, of `total` trials, some of them in a state already."""
        ...

    def event(self, worker: int, event: Event) -> None:
        """Show an event of a worker."""
        ...

    def tick(self) -> None:
        """Refresh what changes with time."""
        ...


def is_missing(ledger: Ledger, plan: Plan) -> bool:
    """Return whether any trial of a plan has not ended."""
    return missing_count(ledger, plan) > 0


def missing_count(ledger: Ledger, plan: Plan) -> int:
    """Return how many trials of a plan have not ended."""
    states = ledger.states(plan, files=False)
    return sum(states[state] for state in ("waiting", "stale", "running", "missing"))


class Stage:
    """Workers on one plan. A worker that dies is replaced; a trial that kills its workers becomes a failed one."""

    def __init__(self, job: Job, ledger: Ledger, pool: Pool, view: View) -> None:
        """Prepare to hand out a job."""
        self._job = job
        self._ledger = ledger
        self._pool = pool
        self._view = view
        self._taken: dict[int, TrialTaken] = {}
        self._reached: Counter[tuple[str, int]] = Counter()
        self._deaths: Counter[tuple[str, int]] = Counter()
        self._idle_deaths = 0

    def train(self, plan: Plan, title: str, end: float = math.inf) -> bool:
        """Return True when every trial of the plan has ended, by our workers or by another sweep's.

        Return False at `end`, a moment of `time.monotonic()`: whatever the workers are at then can be gone on with.
        Raises `BenchkitError` when the workers themselves cannot go on.
        """
        self._view.stage(title, self._ledger.states(plan, files=False), len(plan.units()))
        while is_missing(self._ledger, plan):
            if time.monotonic() >= end:
                return False
            busy = set(range(self._pool.size))
            for number in busy:
                self._pool.give(number, self._job)
            while busy and time.monotonic() < end:
                for number, event in self._pool.events(HEAR_EVERY):
                    self._hear(busy, number, event)
                    if not busy or time.monotonic() >= end:
                        break
                self._view.tick()
            if is_missing(self._ledger, plan) and time.monotonic() < end:
                time.sleep(LOOK_EVERY)
        return True

    def _hear(self, busy: set[int], number: int, event: Event) -> None:
        self._view.event(number, event)
        if isinstance(event, TrialTaken):
            self._taken[number] = event
            self._idle_deaths = 0
        elif isinstance(event, EpochEnded):
            self._note_progress(self._taken[number], event.record.epoch)
        elif isinstance(event, TrialEnded):
            self._taken.pop(number, None)
        elif isinstance(event, WorkerIdle):
            busy.discard(number)
        elif isinstance(event, WorkerFailed):
            raise worker_failure(event, self._job.workspace)
        elif isinstance(event, WorkerLost):
            self._on_worker_lost(number, event)
            self._pool.give(number, self._job)

    def _note_progress(self, trial: TrialTaken, epoch: int) -> None:
        """Forget a trial's earlier deaths once it comes further than it ever did."""
        key = (trial.key, trial.number)
        if epoch > self._reached[key]:
            self._reached[key] = epoch
            self._deaths.pop(key, None)

    def _on_worker_lost(self, number: int, event: WorkerLost) -> None:
        """Count a worker's death against the trial it was at; a trial that kills again and again is a failed one."""
        trial = self._taken.pop(number, None)
        if trial is None:
            self._idle_deaths += 1
            if self._idle_deaths >= IDLE_PATIENCE:
                raise _error(
                    f"workers end before they train anything, the last with status {event.code}", self._job.workspace
                )
            return
        self._deaths[trial.key, trial.number] += 1
        if self._deaths[trial.key, trial.number] >= PATIENCE:
            self._give_up(number, trial, event.code)

    def _give_up(self, number: int, trial: TrialTaken, code: int) -> None:
        reason = f"its process ended with status {code}, {PATIENCE} times"
        if code == -9:
            reason += "; killed from outside, most likely out of memory: try a smaller train.batch_size or --jobs"
        condition = next(one for one in self._job.conditions if one.key == trial.key)
        self._ledger.give_up(self._job.study, condition, trial.number, reason)
        self._view.event(
            number,
            TrialEnded(
                condition=trial.condition,
                phase=trial.phase,
                index=trial.index,
                state="failed",
                reason=reason,
                seconds=0.0,
                scores={},
            ),
        )


def worker_failure(event: WorkerFailed, workspace: Path) -> BenchkitError:
    """Return the error of a sweep whose worker cannot go on."""
    return _error(f"a worker cannot go on: {event.message}", workspace)


def _error(what: str, workspace: Path) -> BenchkitError:
    logs = workspace / "logs"
    return BenchkitError(what, hint=f"the whole story is in {logs}; the same command goes on where it stopped")
