"""The coordinator of a sweep: the only one that touches ledger and workspace.

It claims trials, hands them to workers, hears their epochs, asks the pruner, receives files and records ends. A worker
that dies is replaced; a trial that kills its workers becomes a failed one. Imports no torch.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, get_args

from benchkit.ledger import Ledger
from benchkit.ledger.claims import Claim, Queue
from benchkit.plan import Plan
from benchkit.results import Outcome, State
from benchkit.sweep.decided import decide_training
from benchkit.sweep.held_trial import HeldTrial
from benchkit.sweep.messages import (
    Answer,
    EpochEnded,
    Event,
    Job,
    OfTrial,
    Printed,
    TrialFinished,
    TrialGivenBack,
    WorkerFailed,
    WorkerLost,
    WorkerReady,
)
from benchkit.sweep.pool import HEAR_EVERY, Pool, cannot_go_on, worker_failure
from benchkit.sweep.stopping import GRACE

PATIENCE = 2
"""How often a trial may take its worker's process down without coming any further, before it counts as failed."""

IDLE_PATIENCE = 3
"""How many workers in a row may end before any of them took a trial."""

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


UNFINISHED: tuple[State, ...] = ("waiting", "stale", "running")
"""The states of trials that were queued and have not ended."""


def is_missing(ledger: Ledger, plan: Plan) -> bool:
    """Return whether any trial of a plan has not ended."""
    return missing_count(ledger, plan) > 0


def missing_count(ledger: Ledger, plan: Plan) -> int:
    """Return how many trials of a plan have not ended."""
    states = ledger.states(plan, files=False)
    return sum(states[state] for state in (*UNFINISHED, "missing"))


class Coordinator:
    """Workers on one plan after another, and the trials that they have."""

    def __init__(self, job: Job, ledger: Ledger, pool: Pool, view: View) -> None:
        """Prepare to hand out trials to whoever is ready for a job."""
        self._job = job
        self._ledger = ledger
        self._pool = pool
        self._view = view
        self._queue: Queue | None = None
        self._look_at = 0.0
        self._decided: dict[str, str] = {}
        self._starting: set[int] = set()
        self._free: dict[int, None] = {}
        self._held: dict[tuple[int, int], HeldTrial] = {}
        self._at: dict[int, tuple[int, int]] = {}
        self._logs: dict[tuple[int, int], Path] = {}
        self._reached: Counter[int] = Counter()
        self._deaths: Counter[int] = Counter()
        self._idle_deaths = 0

    def train(self, plan: Plan, title: str, end: float = math.inf) -> bool:
        """Return True when every trial of the plan has ended, by our workers or by another sweep's.

        Return False at `end`, a moment of `time.monotonic()`: whatever the workers are at then can be gone on with.
        Raises `BenchkitError` when the workers themselves cannot go on.
        """
        self._view.stage(title, self._ledger.states(plan, files=False), len(plan.units()))
        self._queue, self._look_at = Queue(self._ledger, plan), 0.0
        try:
            for number in range(self._pool.size):
                self._start(number)
            while time.monotonic() < end:
                if not self._held and not self._starting:
                    if not self._unfinished(plan):
                        return True
                    time.sleep(min(LOOK_EVERY, max(0.0, end - time.monotonic())))
                    self._look_at = 0.0
                self._hear_for_a_while(end)
                self._view.tick()
            return not self._unfinished(plan)
        finally:
            self._let_go()

    def _unfinished(self, plan: Plan) -> bool:
        """Return whether any trial that was queued has not ended."""
        states = self._ledger.states(plan, files=False)
        return any(states[state] for state in UNFINISHED)

    def _start(self, number: int) -> None:
        """Have a worker make ready for trials."""
        self._free.pop(number, None)
        self._starting.add(number)
        self._pool.give(number, self._job)

    def _hear_for_a_while(self, end: float) -> None:
        """Hand out trials and hear of them until nothing is told for a while."""
        self._hand_out()
        for number, event in self._pool.events(HEAR_EVERY):
            self._hear(number, event)
            self._hand_out()
            if time.monotonic() >= end or not (self._held or self._starting):
                return

    def _hand_out(self) -> None:
        """Give the workers that have nothing to do what is there to take."""
        while self._free and (claim := self._next()) is not None:
            number = next(iter(self._free))
            held = HeldTrial(claim, number)
            self._held[held.name] = held
            self._logs[held.name] = claim.folder.log
            self._idle_deaths = 0
            self._view.event(number, held.taken)
            if (outcome := claim.folder.read_outcome()) is not None:  # a kill came between its end and the ledger
                self._finish(held, outcome)
                continue
            order = held.order(self._decided)
            self._free.pop(number)
            self._at[number] = held.name
            self._pool.send(number, order)

    def _next(self) -> Claim | None:
        """Return the next trial to train, None where there is none now; the ledger is not asked again at once."""
        if time.monotonic() < self._look_at:
            return None
        assert self._queue is not None
        claim = self._queue.next()
        if claim is None:
            self._look_at = time.monotonic() + LOOK_EVERY
        return claim

    def _hear(self, number: int, event: Event) -> None:
        if isinstance(event, get_args(OfTrial)):
            self._hear_of_trial(number, event)
        elif isinstance(event, Printed):
            self._print(event)
        elif isinstance(event, WorkerReady):
            self._decided = self._decided or decide_training(
                self._ledger, self._job.study, event.seat, f"--device {self._job.device}"
            )
            self._view.event(number, event)
            self._starting.discard(number)
            self._free[number] = None
        elif isinstance(event, WorkerFailed):
            raise worker_failure(event, self._ledger.workspace)
        elif isinstance(event, WorkerLost):
            self._view.event(number, event)
            self._on_worker_lost(number, event)
            self._start(number)
        else:
            self._view.event(number, event)

    def _hear_of_trial(self, number: int, event: OfTrial) -> None:
        """Take in what is told of a trial under the lease that it was handed out with; drop whatever is not."""
        name = event.trial, event.lease
        held = self._held.get(name)
        if held is not None and not held.claim.holds():
            self._drop(held)
            held = None
        if held is None or held.number != number:
            self._pool.send(number, Answer(trial=event.trial, lease=event.lease, word="drop"))
        elif isinstance(event, TrialFinished):
            self._finish(held, event.outcome)
        elif isinstance(event, TrialGivenBack):
            self._give_back(held)
        else:
            shown, answer = held.hear(event)
            if shown is not None:
                self._view.event(number, shown)
            if isinstance(event, EpochEnded):
                self._note_progress(held, event.record.epoch)
            if answer is not None:
                self._pool.send(number, answer)
        if isinstance(event, TrialFinished | TrialGivenBack) and self._at.get(number) == name:
            del self._at[number]
            self._free[number] = None

    def _print(self, event: Printed) -> None:
        if (log := self._logs.get((event.trial, event.lease))) is not None:
            with log.open("ab") as file:
                file.write(event.content)

    def _finish(self, held: HeldTrial, outcome: Outcome) -> None:
        ended = held.finish(outcome)
        del self._held[held.name]
        if ended is not None:
            self._view.event(held.number, ended)

    def _drop(self, held: HeldTrial) -> None:
        """Let go of a trial that another sweep has taken meanwhile, since this one was thought to be gone."""
        del self._held[held.name]
        held.claim.release()

    def _give_back(self, held: HeldTrial) -> None:
        """Let go of a trial as it is: it is the next one that is handed out."""
        held.claim.release()
        del self._held[held.name]
        assert self._queue is not None
        self._queue.forget()
        self._look_at = 0.0

    def _note_progress(self, held: HeldTrial, epoch: int) -> None:
        """Forget a trial's earlier deaths once it comes further than it ever did."""
        if epoch > self._reached[held.id]:
            self._reached[held.id] = epoch
            self._deaths.pop(held.id, None)

    def _on_worker_lost(self, number: int, event: WorkerLost) -> None:
        """Count a worker's death against the trial it was at; a trial that kills again and again is a failed one."""
        held = self._held.get(self._at.pop(number, (0, 0)))
        if held is None:
            self._idle_deaths += 1
            if self._idle_deaths >= IDLE_PATIENCE:
                raise cannot_go_on(
                    f"workers end before they train anything, the last with status {event.code}",
                    self._ledger.workspace,
                )
            return
        self._deaths[held.id] += 1
        if self._deaths[held.id] < PATIENCE:
            self._give_back(held)
            return
        reason = f"its process ended with status {event.code}, {PATIENCE} times"
        if event.code == -9:
            reason += "; killed from outside, most likely out of memory: try a smaller train.batch_size or --jobs"
        self._finish(held, Outcome(state="failed", reason=reason))

    def _let_go(self) -> None:
        """Let the workers end and save the epochs that they are at, if some are; let go of all trials."""
        try:
            if self._held:
                self._stop_workers()
        finally:
            for held in self._held.values():
                held.claim.release()
            self._held.clear()

    def _stop_workers(self) -> None:
        """Hear what workers that were told to end still have to tell, as long as they may take for it."""
        self._pool.stop()
        for held in self._held.values():
            if held.waited_for:
                self._pool.send(held.number, held.answer("go on"))
        end = time.monotonic() + GRACE
        while self._held and time.monotonic() < end:
            for number, event in self._pool.events(HEAR_EVERY):
                if isinstance(event, WorkerLost):
                    lost = self._held.pop(self._at.pop(number, (0, 0)), None)
                    if lost is not None:
                        lost.claim.release()
                elif not isinstance(event, WorkerFailed | WorkerReady):
                    self._hear(number, event)
                if not self._held or time.monotonic() >= end:
                    break
