"""How many trials a device is best given at once: what was measured, and what is concluded. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

GAIN = 1.1
"""From this ratio of total rates on, more trials at once are worth it."""

SHARE = 0.8
"""The share of the free memory that trials may take together."""

WORTH = 60.0
"""Seconds of training left, one trial after another, below which looking for more speed is not worth it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLevel:
    """So many trials at once trained `rate` images per second together; 0 when they could not be trained."""

    at_once: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """What was measured on `device`: levels from one trial on, and of one trial its memory and images.

    `peak_bytes` is what one trial takes of the device's memory and `free_bytes` what was free before it, 0 where
    nobody knows. `images` is the number that it trains on in an epoch.
    """

    device: str = ""
    levels: tuple[ConcurrencyLevel, ...] = ()
    peak_bytes: int = 0
    free_bytes: int = 0
    images: int = 0

    def fitting(self) -> int:
        """Return how many trials fit into `SHARE` of the free memory, at least one."""
        if not self.peak_bytes or not self.free_bytes:
            return 2**31
        return max(1, int(SHARE * self.free_bytes / self.peak_bytes))


def next_level(concurrency: Concurrency, most: int, epochs: float = math.inf) -> int | None:
    """Return how many trials at once to measure next, None when enough is known.

    The number doubles, up to `most` and what fits into memory, while the total rate rises by a tenth each time, and
    only if training the `epochs` that are left, one trial after another, would take a while.
    """
    if not concurrency.levels:
        return 1
    *before, last = concurrency.levels
    if last.rate <= 0 or (before and last.rate < GAIN * before[-1].rate):
        return None
    if concurrency.images * epochs / concurrency.levels[0].rate < WORTH:
        return None
    following = min(2 * last.at_once, most, concurrency.fitting())
    return following if following > last.at_once else None


def best_count(concurrency: Concurrency, most: int) -> int:
    """Return the last number of trials at once that was a tenth faster than the one before it, 1 to `most`."""
    best = 1
    for before, level in pairwise(concurrency.levels):
        if level.rate < GAIN * before.rate:
            break
        best = level.at_once
    return max(1, min(best, most))


def concurrency_text(concurrency: Concurrency, count: int) -> str:
    """Return the choice and what it rests on: `2 trials at once on cuda:0: probed 1: 900, 2: 1,700 images/s`."""
    rates = ", ".join(
        f"{one.at_once}: {one.rate:,.0f}" if one.rate else f"{one.at_once}: failed" for one in concurrency.levels
    )
    trials = "1 trial" if count == 1 else f"{count} trials"
    return f"{trials} at once on {concurrency.device}: probed {rates} images/s"
