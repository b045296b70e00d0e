"""A quantity by epoch, averaged over the repeats of a condition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import altair as alt

from benchkit.results import EpochRecord, Trial
from benchkit_figures.metrics import t_interval

FEW = 3
"""Up to this many repeats a band is their range, from one more on the 95 % t interval of the mean."""

MOST_EPOCHS = 120
"""More epochs than this are thinned evenly for drawing."""

Point = TypeVar("Point")


def whole_ticks(numbers: Iterable[int], most: int) -> list[int]:
    """Return evenly spaced whole numbers for an axis over `numbers`, about `most` at most, each once.

    Left to itself, an axis of few epochs has ticks at halves, which are shown rounded: 1 2 2 3 3.
    """
    given = list(numbers)
    low, high = min(given), max(given)
    steps = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    step = next(step for step in steps if (high - low) / step <= most)
    return list(range(-(-low // step) * step, high + 1, step))


def epoch_axis(epochs: Iterable[int], most: int, *, labelled: bool = True) -> alt.X:
    """Return the horizontal axis of the field `epoch` over `epochs`, with at most about `most` ticks."""
    given = set(epochs)
    low, high = min(given), max(given)
    title = "Epoch" if labelled else None
    axis = alt.Axis(labels=labelled, title=title, format="d", values=whole_ticks(given, most))
    ends = [low, high] if high > low else [low - 1, high + 1]
    return alt.X("epoch:Q", axis=axis, scale=alt.Scale(domain=ends, nice=False))


Reading = Callable[[EpochRecord], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPoint:
    """The repeats that have a value at one epoch: how many, their mean, and the ends of the band."""

    epoch: int
    running: int
    mean: float
    low: float
    high: float


def band_kind(most: int) -> str:
    """Return range or interval, by the greatest number of repeats of any condition."""
    return "range" if most <= FEW else "interval"


def band_words(kind: str) -> str:
    """Return what a band is, for captions."""
    return "least to greatest repeat" if kind == "range" else "95 % t interval of the mean over repeats"


def averaged(trials: Iterable[Trial], reading: Reading, band: str = "range") -> tuple[SeriesPoint, ...]:
    """Return mean and band of a reading at every epoch at which a trial has a finite one."""
    at: dict[int, list[float]] = {}
    for trial in trials:
        for record in trial.history:
            value = reading(record)
            if value is not None and math.isfinite(value):
                at.setdefault(record.epoch, []).append(float(value))
    return tuple(_point(epoch, at[epoch], band) for epoch in sorted(at))


def _point(epoch: int, values: Sequence[float], band: str) -> SeriesPoint:
    interval = t_interval(values)
    ends = (min(values), max(values)) if band == "range" else (interval.low, interval.high)
    return SeriesPoint(epoch=epoch, running=len(values), mean=interval.mean, low=ends[0], high=ends[1])


def thinned(points: Sequence[Point], coarse: int = 1) -> list[Point]:
    """Return about `MOST_EPOCHS / coarse` of the points, the first and the last among them."""
    stride = max(1, coarse * len(points) // MOST_EPOCHS)
    return [point for index, point in enumerate(points) if index % stride == 0 or index == len(points) - 1]
