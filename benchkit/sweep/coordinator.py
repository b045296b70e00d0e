"""The coordinator of a sweep: the only one that touches ledger and workspace.

It claims trials, hands them to workers, hears their epochs, asks the pruner, receives files and records ends. Only a
trial's own doing is its result: what a machine does gives the trial back, and its seat is set aside. Imports no torch.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

from benchkit.errors import LedgerError
from benchkit.ledger import Ledger
from benchkit.ledger.claims import Queue
from benchkit.plan import Plan
from benchkit.results import Outcome
from benchkit.sweep.compile_jobs import CompileJobs
from benchkit.sweep.decided import Rules, decide_training, unfit
from benchkit.sweep.held_trial import HeldTrial
from benchkit.sweep.messages import (
    EpochEnded,
    Event,
    Job,
    OfTrial,
    Printed,
    TrialAnswer,
    TrialFinished,
    TrialGivenBack,
    WorkerEnds,
    WorkerFailed,
    WorkerLost,
    WorkerReady,
)
from benchkit.sweep.pool import HEAR_EVERY, Pool
from benchkit.sweep.progress import View
from benchkit.sweep.seats import PreferredSeats, Seats
from benchkit.sweep.starts import Starts, memory_before, memory_here
from benchkit.sweep.stopping import GRACE

KILLED = -9
"""The exit status of a process that was killed."""
LOOK_EVERY = 1.0
"""Seconds between looks at trials that another sweep trains, at least."""
LOOK_SHARE = 0.05
"""The share of the time that such looks take, at most: workers may wait for an answer."""

TURN = 0.1
"""Seconds for which trials are handed out, or ends recorded, while workers wait: many seats may start at once."""

HEARD = 5
"""Turns for which workers are heard while seats wait: those wait for their own sake, and theirs are trained."""


class Coordinator:
    """Workers on one plan after another, and the trials that they have."""

    def __init__(self, job: Job, ledger: Ledger, pool: Pool, view: View, rules: Rules | None = None) -> None:
        """Prepare to hand out trials to whoever is ready for a job."""
        self._rules = rules or Rules()
        self._job = job
        self._ledger = ledger
        self._pool = pool
        self._view = view
        self._seats = Seats(pool, job, view.say)
        self._preferred = PreferredSeats(self._seats, self._rules.patience, more_come=pool.changes)
        self._queue: Queue | None = None
        self._look_at = 0.0
        self._codes = CompileJobs()
        self._memory_of = self._rules.memory or memory_here
        self._memory = self._memory_of(pool.size)
        self._before = memory_before(ledger.workspace, self._memory)
        self._held: dict[tuple[int, int], HeldTrial] = {}
        self._at: dict[int, tuple[int, int]] = {}
        self._alone: dict[str, HeldTrial | None] = {}
        self._logs: dict[tuple[int, int], Path] = {}
        self._end = math.inf
        self._longest: dict[str, float] = {}
        self._late: list[HeldTrial] = []
        self._ended: list[tuple[HeldTrial, TrialFinished]] = []

    def train(self, plan: Plan, title: str, end: float = math.inf) -> bool:
        """Return True when every trial of the plan has ended, by our workers or by another sweep's.

        Return False at `end`, a moment of `time.monotonic()`: whatever the workers are at then can be gone on with.
        Raises `BenchkitError` when no worker can go on.
        """
        self._view.stage(title, self._ledger.states(plan, files=False), len(plan.units()))
        self._queue, self._look_at, self._end = Queue(self._ledger, plan), 0.0, end
        self._codes.begin(plan)
        try:
            self._seats.start_all()
            while time.monotonic() < end:
                if not self._held and not self._ledger.is_unfinished(plan):
                    return True
                if not self._held and not self._seats.starting:
                    if self._late:
                        return False
                    self._seats.refuse_none(self._rules.patience, self._ledger.workspace)
                    time.sleep(min(LOOK_EVERY, max(0.0, end - time.monotonic())))
                    self._look_at = 0.0
                self._hear_for_a_while()
                self._view.tick()
            return not self._ledger.is_unfinished(plan)
        finally:
            self._let_go()

    def _hear_for_a_while(self) -> None:
        """Hand out trials and hear of them until nothing is told for a while."""
        self._drop_lost()
        self._hand_out()
        handed = time.monotonic()
        for number, event in self._pool.events(HEAR_EVERY):
            self._hear(number, event)
            if not self._pool.waiting or time.monotonic() - handed > HEARD * TURN:
                self._hand_out()
                self._record_ends(TURN)
                handed = time.monotonic()
            if time.monotonic() >= self._end or not (self._held or self._seats.starting):
                break
        self._record_ends()

    def _hand_out(self) -> None:
        """Give the workers that have nothing to do what is there to take; on some nodes a trial is to be alone."""
        self._seats.refresh()
        began = time.monotonic()
        if not self._alone and not self._preferred.some_wait and (began < self._look_at or self._late):
            return
        for turn, number in enumerate(list(self._seats.free)):
            if turn and self._pool.waiting and time.monotonic() - began > TURN:
                return
            node = self._seats.node(number)
            if node in self._alone:
                held = self._alone[node]
                if held is not None and not self._company(number, held):
                    self._alone[node] = None
                    held.number = number
                    self._give(held)
            elif (held := self._next(number)) is None:
                continue
            elif held.alone and self._company(number, held):
                self._alone[node] = held  # it waits for the others to end; none is begun beside it
            else:
                if held.alone:
                    self._alone[node] = None
                self._give(held)

    def _company(self, number: int, held: HeldTrial) -> list[HeldTrial]:
        """Return the other trials on the node of a seat."""
        node = self._seats.node(number)
        return [
            one for one in self._held.values() if one is not held and one.given and self._seats.node(one.number) == node
        ]

    def _next(self, number: int) -> HeldTrial | None:
        """Return the next trial to train; the ledger is not asked again at once where there is none.

        Those whose end was not recorded any more, and those whose starts all ended badly, end here.
        """
        assert self._queue is not None
        if (waited := self._preferred.take(number)) is not None:
            return waited
        while time.monotonic() >= self._look_at and not self._late:
            began = time.monotonic()
            claim = self._queue.next(self._codes.wanted(self._seats.place(number)))
            if claim is None:
                self._look_at = (now := time.monotonic()) + max(LOOK_EVERY, (now - began) / LOOK_SHARE)
                return None
            held = HeldTrial(claim, number, self._rules.patience)
            self._held[held.name] = held
            outcome = held.begin(self._memory, self._before)
            if outcome is None and time.monotonic() + self._longest.get(held.taken.key, 0.0) >= self._end:
                self._put_off(held)
                return None
            if outcome is None and not self._preferred.fits(held, number):
                continue
            if outcome is None:
                return held
            self._view.event(number, held.taken)
            self._finish(held, outcome)
        return None

    def _give(self, held: HeldTrial) -> None:
        """Hand a trial to its worker."""
        number = held.number
        device = None if self._seats.ready[number].seat.kind == "cpu" else self._seats.device(number)
        for other in self._company(number, held):
            held.beside_node = other.beside_node = True
            if device is not None and self._seats.device(other.number) == device:
                held.beside_device = other.beside_device = True
        others = self._seats.alike(number) and not held.alone and not self._job.profile
        held.compiles = self._codes.take(self._seats.place(number), held.name, held.claim.condition, others=others)
        order = held.order(self._codes.decided, self._end - time.monotonic())
        held.given = True
        self._logs[held.name] = held.claim.folder.log
        self._seats.take(number)
        self._at[number] = held.name
        self._view.event(number, held.taken)
        self._pool.send(number, order)

    def _hear(self, number: int, event: Event) -> None:
        if isinstance(event, Printed):
            self._print(event)
        elif isinstance(event, OfTrial):
            self._hear_of_trial(number, event)
        elif isinstance(event, WorkerReady):
            self._on_worker_ready(number, event)
        elif isinstance(event, WorkerEnds):
            self._seats.ends(number)
        elif isinstance(event, WorkerFailed):
            self._seats.set_aside(number, f"a worker cannot go on: {event.message}")
        elif isinstance(event, WorkerLost):
            self._view.event(number, event)
            held = self._held.get(self._at.pop(number, (0, 0)))
            if held is not None and number in self._seats.aside:
                self._give_back(held)
            elif held is not None:
                self._on_death(held, event)
            self._seats.lost(number, event.words, idle=held is None and not event.shared)
        else:
            self._view.event(number, event)

    def _on_worker_ready(self, number: int, event: WorkerReady) -> None:
        """Decide by the first seat what is not decided of the study's training; use no seat that cannot obey it."""
        self._view.event(number, event)
        self._codes.free[event.seat.node] = event.seat.free
        if not self._codes.decided:
            asked, rules = f"--device {self._job.device}", self._rules
            self._codes.decided = decide_training(
                self._ledger, self._job.study, event.seat, asked, works=rules.works, unrecorded=rules.unrecorded
            )
        self._seats.is_ready(number, event)
        problem = unfit(event.seat, self._codes.decided, self._job.study)
        if problem and not self._rules.any_seat:
            self._seats.set_aside(number, problem, "device")

    def _hear_of_trial(self, number: int, event: OfTrial) -> None:
        """Take in what is told of a trial under the lease that it was handed out with; drop whatever is not."""
        held = self._held.get(event.whose)
        if held is not None and held.given and not held.claim.holds():
            self._drop(held)
            held = None
        if held is None or held.number != number or not held.given:
            self._pool.send(number, TrialAnswer(trial=event.trial, lease=event.lease, word="drop"))
        elif isinstance(event, TrialFinished):
            held.given = False
            # What is handed out next depends on some ends; of the others the folder tells, should the sweep be killed.
            at_once = event.outcome.state != "done" or held.alone or held.claim.phase == "search"
            if not at_once:
                held.write_end(event.outcome)
            self._ended.append((held, event))
            if at_once:
                self._record_ends()
        elif isinstance(event, TrialGivenBack):
            if event.late:
                self._put_off(held)
            elif not held.compiles or event.why or time.monotonic() >= self._end:
                self._give_back(held)
            if event.scope == "pinned memory":
                self._seats.job = replace(self._seats.job, pageable=True)
            elif event.why:
                self._seats.set_aside(number, event.why, event.scope)
        else:
            try:
                shown, answer = held.hear(event)
            except LedgerError:
                self._drop(held)  # what else is told of it would stand on what could not be written
                raise
            if isinstance(event, EpochEnded):
                self._compiled(held, there=True)
                known = self._longest.get(held.taken.key, 0.0)
                self._longest[held.taken.key] = max(known, event.record.seconds)
            if shown is not None:
                self._view.event(number, shown)
            if answer is not None:
                self._pool.send(number, answer)
        if isinstance(event, TrialFinished | TrialGivenBack) and self._at.get(number) == event.whose:
            del self._at[number]
            self._seats.release(number)
            if held is not None and held.given and held.name in self._held:  # its code is there, or cannot be had
                self._compiled(held, there=True)
                if number in self._seats.free:
                    return self._give(held)
                self._give_back(held)

    def _print(self, event: Printed) -> None:
        if (log := self._logs.get(event.whose)) is not None:
            with log.open("ab") as file:
                file.write(event.content)

    def _record_ends(self, seconds: float = math.inf) -> None:
        """Record ends that were heard of, for so long: the workers have their next trials, unless there are none."""
        began = time.monotonic()
        while self._ended and time.monotonic() - began <= seconds:
            self._on_end(*self._ended.pop(0))

    def _on_end(self, held: HeldTrial, event: TrialFinished) -> None:
        """Record an end; one for want of memory that others had a share of is tried again alone."""
        beside = {"": False, "node": held.beside_node, "device": held.beside_device}[event.memory]
        if beside:
            self._give_back(held, held.starts.crowded(held.lease))
        else:
            self._finish(held, event.outcome)

    def _on_death(self, held: HeldTrial, event: WorkerLost) -> None:
        """Count the death of a trial's worker against it where it may be the trial's doing, and no other's."""
        starts, killed = held.starts, event.code == KILLED
        beside = held.beside_device or (killed and held.beside_node)
        if event.machine:
            starts = starts.excused(held.lease)
        elif event.shared or (beside and not held.saved):
            starts = starts.crowded(held.lease)
        elif not held.saved:
            starts = starts.counted(held.lease, event.words or f"ended with status {event.code}")
        if killed:
            self._memory = self._memory_of(self._pool.size)
            memory_before(self._ledger.workspace, self._memory)
        if starts.failed:
            self._finish(held, Outcome(state="failed", reason=starts.reason))
        else:
            self._give_back(held, starts)

    def _finish(self, held: HeldTrial, outcome: Outcome) -> None:
        ended = held.finish(outcome)
        self._forget(held)
        if ended is not None:
            self._view.event(held.number, ended)

    def _give_back(self, held: HeldTrial, starts: Starts | None = None) -> None:
        """Let go of a trial as it is: it is the next one that is handed out."""
        held.give_back(starts)
        self._forget(held)
        assert self._queue is not None
        self._queue.forget()
        self._look_at = 0.0

    def _put_off(self, held: HeldTrial) -> None:
        """Keep a trial, no epoch of which would end in time, from being handed out again; none is begun any more."""
        self._forget(held)
        self._late.append(held)

    def _drop(self, held: HeldTrial) -> None:
        """Let go of a trial as it is, of which nothing more is heard."""
        held.claim.release()
        self._forget(held)

    def _drop_lost(self) -> None:
        """Tell workers at once to drop the trials that are another sweep's by now."""
        for held in [one for one in self._held.values() if one.given and not one.claim.holds()]:
            self._drop(held)
            self._pool.send(held.number, TrialAnswer(trial=held.id, lease=held.lease, word="drop"))

    def _compiled(self, held: HeldTrial, *, there: bool) -> None:
        """Let the trials begin that waited for the code of one."""
        if self._codes.over(held.name, there=there):
            self._look_at = 0.0

    def _forget(self, held: HeldTrial) -> None:
        del self._held[held.name]
        self._compiled(held, there=False)
        if held.alone:
            node = self._seats.node(held.number)
            if self._alone.get(node, self) in (held, None):
                del self._alone[node]

    def _let_go(self) -> None:
        """Let the workers end and save the epochs that they are at, if some are; let go of all trials."""
        try:
            self._record_ends()
            if self._at:
                self._stop_workers()
        finally:
            for held in (*self._held.values(), *self._late):
                held.give_back()
            self._held.clear()
            self._late.clear()
            self._ended.clear()
            self._alone.clear()
            self._preferred.clear()

    def _stop_workers(self) -> None:
        """Hear what workers that were told to end still have to tell, as long as they may take for it."""
        self._pool.stop()
        self._end = -math.inf
        for held in self._held.values():
            if held.waited_for:
                self._pool.send(held.number, held.answer("go on"))
        end = time.monotonic() + GRACE
        while self._at and time.monotonic() < end:
            for number, event in self._pool.events(HEAR_EVERY):
                if isinstance(event, WorkerLost):
                    self._at.pop(number, None)
                elif isinstance(event, Printed):
                    self._print(event)
                elif isinstance(event, OfTrial):
                    self._hear_of_trial(number, event)
                    self._record_ends()
                if not self._at or time.monotonic() >= end:
                    break
