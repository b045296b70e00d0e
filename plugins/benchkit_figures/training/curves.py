"""Curves by epoch: a quantity averaged over repeats, its axis, and small panels of single conditions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import altair as alt

from benchkit.results import EpochRecord, StudyResults, Trial
from benchkit_figures.encodings import OTHERS, WIDTH, Layers, done_repeats, heading, rounded, t_interval

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
    pad = 0.02 * (high - low) or 1.0  # so that points in the first and the last epoch are whole
    ends = [rounded(low - pad), rounded(high + pad)]
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


def band_kind(results: StudyResults) -> str:
    """Return range or interval, by the greatest number of done repeats of any condition."""
    most = max((len(done_repeats(results, condition)) for condition in results.conditions), default=0)
    return "range" if most <= FEW else "interval"


def band_words(kind: str) -> str:
    """Return what a band is, for captions."""
    return "least to greatest repeat" if kind == "range" else "95 % t interval of the mean over repeats"


def averaged(
    trials: Iterable[Trial], reading: Reading, band: str = "range", metric: str = ""
) -> tuple[SeriesPoint, ...]:
    """Return mean and band of a reading, which may be a `metric`, at every epoch at which a trial has a finite one."""
    at: dict[int, list[float]] = {}
    for trial in trials:
        for record in trial.history:
            value = reading(record)
            if value is not None and math.isfinite(value):
                at.setdefault(record.epoch, []).append(float(value))
    return tuple(series_point(epoch, at[epoch], band, metric) for epoch in sorted(at))


def series_point(epoch: int, values: Sequence[float], band: str, metric: str) -> SeriesPoint:
    """Return mean and band of the values, which may be of a `metric`, that repeats have at an epoch."""
    interval = t_interval(values, metric)
    ends = (min(values), max(values)) if band == "range" else (interval.low, interval.high)
    return SeriesPoint(epoch=epoch, running=len(values), mean=interval.mean, low=ends[0], high=ends[1])


def most_running(points: Iterable[SeriesPoint]) -> int:
    """Return over how many repeats a curve is at most."""
    return max((point.running for point in points), default=0)


def thinned(points: Sequence[Point], coarse: int = 1, epochs: int = 0) -> list[Point]:
    """Return the first, the last and every so-manieth point that about `MOST_EPOCHS / coarse` of `epochs` are left.

    Without `epochs`, these are as many as there are points.
    """
    stride = max(1, coarse * (epochs or len(points)) // MOST_EPOCHS)
    return [point for index, point in enumerate(points) if index % stride == 0 or index == len(points) - 1]


def series_rows(
    condition: str, points: Iterable[SeriesPoint], shown: Callable[[float], float] = float
) -> list[dict[str, Any]]:
    """Return rows of mean and band by epoch, as numbers that are `shown`."""
    return [
        {"condition": condition, "epoch": point.epoch}
        | {name: rounded(shown(getattr(point, name))) for name in ("mean", "low", "high")}
        for point in points
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallPanel:
    """The place of a condition's own panel among others in `columns`, and its width in pixels."""

    index: int
    condition: str
    columns: int
    left: bool
    bottom: bool
    width: int

    def y_axis(self, title: str) -> alt.Axis:
        """Return the vertical axis, which panels at the left alone have labels and a title of."""
        return alt.Axis(labels=self.left, title=title if self.left else None, tickCount=4)

    def own(self, chart: alt.Chart) -> alt.Chart:
        """Return a chart of the condition's rows alone."""
        filtered: alt.Chart = chart.transform_filter(alt.FieldEqualPredicate(field="condition", equal=self.condition))
        return filtered


def small_panels(
    conditions: Sequence[str],
    draw: Callable[[SmallPanel], Layers],
    rows: Sequence[Mapping[str, Any]],
    *,
    columns: int,
    room: int = WIDTH - 72,
) -> alt.ConcatChart:
    """Return what is drawn of each condition, in columns under their labels, from rows that all panels share."""
    width = (room - 10 * (columns - 1)) // columns
    panels = []
    for index, label in enumerate(conditions):
        place = SmallPanel(
            index=index,
            condition=label,
            columns=columns,
            left=index % columns == 0,
            bottom=index + columns >= len(conditions),
            width=width,
        )
        panels.append(draw(place).properties(title=heading(label, limit=width)))
    values = alt.InlineData(values=rows)
    return alt.concat(*panels, columns=columns, data=values, spacing={"row": 10, "column": 10})


def grey_lines(chart: alt.Chart, **encoding: Any) -> alt.Chart:
    """Return thin grey lines of all conditions, before which one stands out."""
    lines = chart.mark_line(clip=True, strokeWidth=0.5, color=OTHERS, strokeOpacity=0.3)
    encoded: alt.Chart = lines.encode(detail=alt.Detail("condition:N"), **encoding)
    return encoded
