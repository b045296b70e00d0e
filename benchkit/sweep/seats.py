"""The seats of a sweep: which are free, get ready or were set aside, and which of them trials wait for.

Imports no torch.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from benchkit.errors import BenchkitError
from benchkit.sweep.compile_jobs import Place
from benchkit.sweep.held_trial import HeldTrial
from benchkit.sweep.messages import Job, WorkerReady
from benchkit.sweep.pool import Pool, cannot_go_on

COUNT = re.compile(r", \d+ (core|thread)s?$")
"""What stands behind the name of a processor: how much of it is there, or in use."""

IDLE_PATIENCE = 3
"""How many workers of a seat in a row may end before any of them took a trial."""


LOOK_EVERY = 2.0
"""Seconds between looks for seats that came."""

SURPLUS = 20.0
"""Seconds without a trial after which a seat is given back, where others may use it."""


class Seats:
    """The seats of a pool that are given a job; `tell` is told in words of each that is set aside.

    Where seats come and go, new ones are used, and those that have nothing to do are given back.
    """

    def __init__(self, pool: Pool, job: Job, tell: Callable[[str], None]) -> None:
        """Start none yet."""
        self.free: dict[int, float] = {}
        self.starting: set[int] = set()
        self.ready: dict[int, WorkerReady] = {}
        self.aside: dict[int, str] = {}
        self._ending: set[int] = set()
        self._pool = pool
        self.job = job
        self._tell = tell
        self._idle_deaths: Counter[int] = Counter()
        self._resting: set[int] = set()
        self._to_blame: dict[str | tuple[str, str], str] = {}
        self._gone = float("-inf")
        self._looked = time.monotonic()

    def start_all(self) -> None:
        """Have all workers make ready for trials, but for those whose seats were set aside."""
        self._resting.clear()
        for number in range(self._pool.size):
            if number not in self.aside:
                self.start(number)

    def refresh(self) -> None:
        """Start workers on seats that came, and give back those that have been without a trial for long."""
        now = time.monotonic()
        if not self._pool.changes or now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        for number in self._pool.grow():
            self.start(number)
        for number in [one for one, since in self.free.items() if now - since > SURPLUS]:
            if self.left - len(self._resting) > 1:  # one looks for what another sweep leaves
                del self.free[number]
                self._resting.add(number)
                self._pool.retire(number)

    def _wake(self) -> None:
        """Start workers anew on the seats that were given back: there is one less than there was."""
        for number in list(self._resting):
            self._resting.discard(number)
            self.start(number)

    def start(self, number: int) -> None:
        """Have a worker make ready for trials; one that cannot be started is set aside."""
        self.free.pop(number, None)
        self.starting.add(number)
        try:
            self._pool.give(number, self.job)
        except BenchkitError as error:
            self.set_aside(number, str(error))

    def is_ready(self, number: int, event: WorkerReady) -> None:
        """Note that a worker waits for trials."""
        if number in self.aside:
            return
        self.ready[number] = event
        why = self._to_blame.get(self.node(number)) or self._to_blame.get(self.device(number))
        self.starting.discard(number)
        if why:
            self.aside[number] = why
            self._pool.retire(number)
        else:
            self.free[number] = time.monotonic()

    def take(self, number: int) -> None:
        """Note that a worker has a trial."""
        del self.free[number]
        self._idle_deaths[number] = 0

    def release(self, number: int) -> None:
        """Note that a worker has no trial any more."""
        if number not in self.aside and number not in self._ending:
            self.free[number] = time.monotonic()

    def ends(self, number: int) -> None:
        """Note that a worker is about to end: it gets nothing more, and another one starts then."""
        self._ending.add(number)
        self.free.pop(number, None)
        self.starting.add(number)

    def node(self, number: int) -> str:
        """Return the name of a ready worker's node."""
        return self.ready[number].seat.node

    def device(self, number: int) -> tuple[str, str]:
        """Return what tells a ready worker's device from others: its node, and what it is called there."""
        return self.node(number), self.ready[number].device

    def place(self, number: int) -> Place:
        """Return where a ready worker shares what it compiles: its node, and the model of its device."""
        return self.node(number), model_of(self.ready[number].seat.device)

    def alike(self, number: int) -> bool:
        """Return whether another seat is at a ready worker's place, or may be once it has started."""
        others = (one for one in self.ready if one != number and one not in self.aside)
        return bool(self.starting) or any(self.place(one) == self.place(number) for one in others)

    def lost(self, number: int, words: str, *, idle: bool) -> None:
        """Start a worker anew that has ended, but where its seat is gone.

        A seat of which several workers in a row took no trial is set aside.
        """
        told = number in self._ending
        self._ending.discard(number)
        if number in self.aside or number in self._resting:
            return
        self.free.pop(number, None)
        if not self._pool.has(number):
            self.starting.discard(number)
            self.aside[number] = words
            self._gone = time.monotonic()
            self._wake()
            if not self.left:
                self._tell("no seat is left; waiting for another one to come")
            return
        self._idle_deaths[number] += idle and not told
        if self._idle_deaths[number] >= IDLE_PATIENCE:
            self.set_aside(number, f"workers end before they train anything, the last {words}")
        else:
            self.start(number)

    def set_aside(self, number: int, why: str, scope: Literal["seat", "device", "node"] = "seat") -> None:
        """Use a seat no more, nor any other on the same device or node where these are to blame; tell of it once."""
        alike = [number]
        if number in self.ready and scope != "seat":
            key = self.node if scope == "node" else self.device
            self._to_blame[key(number)] = why
            alike = [one for one in self.ready if key(one) == key(number)]
        new = [one for one in alike if one not in self.aside]
        for one in new:
            self.aside[one] = why
            self.free.pop(one, None)
            self.starting.discard(one)
            self._pool.retire(one)
        if not new:  # seats side by side meet the same fault at the same moment
            return
        self._wake()
        if self.left:
            named = f"{self.ready[number].device} on {self.node(number)}" if number in self.ready else f"seat {number}"
            self._tell(f"set aside: {named}: {why}")

    @property
    def left(self) -> int:
        """Return how many seats have not been set aside."""
        return self._pool.size - len(self.aside)

    def refuse_none(self, patience: float, workspace: Path) -> None:
        """Raise `BenchkitError` where no seat is left, and none came for so many seconds since one was gone."""
        if not self.left and time.monotonic() - self._gone > patience:
            reasons = tuple(dict.fromkeys(self.aside.values()))
            if len(reasons) == 1:
                raise cannot_go_on(reasons[0], workspace)
            raise cannot_go_on("no seat is left to train on", workspace, reasons)


def model_of(device: str) -> str:
    """Return the model of a device by its name, without the number of cores or threads."""
    return COUNT.sub("", device)


class PreferredSeats:
    """Trials that were begun on another model of device than the free seat has: they wait for one like theirs.

    The last digits of what they go on to compute, and their speed, are then those of one device. Each waits for
    `patience` seconds at most. Where `more_come`, seats like theirs may join.
    """

    def __init__(self, seats: Seats, patience: float, *, more_come: bool) -> None:
        """Have none wait yet."""
        self._seats = seats
        self._patience = patience
        self._more_come = more_come
        self._waiting: dict[HeldTrial, float] = {}

    @property
    def some_wait(self) -> bool:
        """Return whether any trial waits."""
        return bool(self._waiting)

    def fits(self, held: HeldTrial, number: int) -> bool:
        """Return whether a trial is to go on at a seat; one that is to wait is noted."""
        if not held.model or self._alike(held, number) or not self._may_come(held):
            return True
        self._waiting[held] = time.monotonic() + self._patience
        return False

    def take(self, number: int) -> HeldTrial | None:
        """Return a trial that waited for a seat like this one, or for long enough, or for one that does not come."""
        for held, until in self._waiting.items():
            if self._alike(held, number) or time.monotonic() >= until or not self._may_come(held):
                del self._waiting[held]
                held.number = number
                return held
        return None

    def clear(self) -> None:
        """Let no trial wait any more."""
        self._waiting.clear()

    def _alike(self, held: HeldTrial, number: int) -> bool:
        return model_of(self._seats.ready[number].seat.device) == model_of(held.model)

    def _may_come(self, held: HeldTrial) -> bool:
        """Return whether a seat like that of a trial is in use, or may get ready."""
        if self._more_come or self._seats.starting:
            return True
        return any(self._alike(held, one) for one in self._seats.ready if one not in self._seats.aside)
