"""Trials that were begun on another model of device than the free seat has: they wait for one like theirs for a while.

The last digits of what they go on to compute, and their speed, are then those of one device. Imports no torch.
"""

from __future__ import annotations

import time

from benchkit.sweep.held_trial import HeldTrial
from benchkit.sweep.seats import Seats, model_of


class PreferredSeats:
    """The trials that wait, each for `patience` seconds at most. Where `more_come`, seats like theirs may join."""

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
