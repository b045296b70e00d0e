"""The results as a forest plot: mean and interval of every condition, best first, with its single repeats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import altair as alt

from benchkit import NothingToDraw, card
from benchkit.analysis import CONFIDENCE, confidence_of
from benchkit.metrics import metric_of
from benchkit.plan import Condition
from benchkit.results import StudyResults
from benchkit_figures.encodings import (
    MOST_COLOURS,
    OTHERS,
    WIDTH,
    Layers,
    by_condition,
    colour,
    comparable_metric,
    label_width,
    left_out,
    may_be_best,
    numbers_beside,
    planned_labels,
    quantity,
    repeats_words,
    t_interval,
    tooltips,
    values_of,
)

SQUEEZED = 0.4
"""Leading conditions that have less than this share of the axis are drawn enlarged beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestRow:
    """A condition: mean, 95 % t interval (ends at the mean when n = 1), single repeats, mean of the second metric."""

    condition: str
    n: int
    mean: float
    low: float
    high: float
    repeats: tuple[float, ...]
    also: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestData:
    """The rows, best mean first, of `metric`; `also` is the second metric or empty; `labels` are all planned ones.

    `leading` are the conditions that may be the best; what separates them is drawn enlarged where the others need most
    of the axis. `looks` tells that looks were planned, which make the intervals wider.
    """

    metric: str
    also: str
    labels: tuple[str, ...]
    rows: tuple[ForestRow, ...]
    leading: tuple[str, ...]
    without: tuple[str, ...]
    looks: bool

    @property
    def enlarged(self) -> tuple[float, float] | None:
        """Return the ends of the leading conditions' own axis, None where the common axis shows them well."""
        leading = [row for row in self.rows if row.condition in self.leading]
        if not 1 < len(leading) < len(self.rows):
            return None
        (low, high), (least, most) = _reach(leading), _reach(self.rows)
        return (low, high) if 0 < high - low <= SQUEEZED * (most - least) else None


@card(
    title="Results by condition",
    summary="Mean and 95 % t interval of a metric for every condition, with the single repeats.",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsForest:
    """A forest plot of `metric` (empty: the study's main metric).

    `also` adds the mean of a second metric: auto takes the validation value beside a test value, none leaves it out.
    """

    metric: str = ""
    also: str = "auto"

    def data(self, results: StudyResults) -> ForestData:
        """Return mean, interval and repeats of every condition that has a done repeat with the metric."""
        metric = self.metric or results.study.report.metric
        also = self._second(results, metric)
        rows, without = by_condition(results, lambda condition: _row(results, condition, metric, also))
        if not rows:
            raise NothingToDraw(f"no repeat has finished with a value of {metric}")
        rows.sort(key=lambda row: quantity(metric).rank(row.mean))
        return ForestData(
            metric=metric,
            also=also,
            labels=planned_labels(results),
            rows=tuple(rows),
            leading=may_be_best(results, metric),
            without=without,
            looks=confidence_of(results) > CONFIDENCE,
        )

    def draw(self, data: ForestData) -> Any:
        """Return a line for each condition: interval, mean, repeats, and the numbers beside it.

        The leading ones stand on an axis of their own again where the common one squeezes them.
        """
        order, ends = [row.condition for row in data.rows], data.enlarged
        room = WIDTH - label_width(order) - 150
        step = alt.Step(26 if len(order) <= 10 else 20)
        width = room if ends is None else int(0.42 * room) - 14
        plots = [_plot(data, _reach(data.rows), labels=True).properties(width=width, height=step)]
        if ends is not None:
            plots.append(_plot(data, ends, labels=False).properties(width=int(0.58 * room), height=step))
        return alt.hconcat(*plots, numbers_beside(_mean_rows(data), order, width=120, height=step), spacing=10)

    def caption(self, data: ForestData) -> str:
        """Return what point, bar, small points and diamond are, and over how many repeats."""
        parts = [f"{quantity(data.metric).capital} by condition, best first."]
        if all(row.n == 1 for row in data.rows):
            parts.append("One repeat per condition, so there is no interval.")
        else:
            n = repeats_words(row.n for row in data.rows)
            bars = "t interval" if data.looks else "95 % t interval"
            parts.append(f"Large points: mean of {n}; bars: {bars}; small points: single repeats.")
            if data.looks:
                parts.append("The intervals are so wide that those of all planned looks hold together with 95 %.")
        if data.also:
            parts.append(f"Open diamonds: mean {quantity(data.also).name} of the same weights.")
        if len(data.leading) < len(data.rows):
            parts.append(f"{'Bold' if len(data.labels) <= MOST_COLOURS else 'Bold and blue'}: may be the best.")
        if data.enlarged:
            parts.append("At the right, enlarged: those that may be the best; triangles stand for what lies beyond.")
        parts += left_out("Without a finished repeat", data.without)
        return " ".join(parts)

    def alt_text(self, data: ForestData) -> str:
        """Return one sentence with the best condition, its mean and interval, and the worst one."""
        unit, best, worst = quantity(data.metric), data.rows[0], data.rows[-1]
        spread = (
            f" ({'' if data.looks else '95 % '}interval {unit.text(best.low)} to {unit.text(best.high)})"
            if best.n > 1
            else ""
        )
        if best is worst:
            return f"{best.condition} has a {unit.name} of {unit.text(best.mean)}{spread}."
        return (
            f"{best.condition} has the best mean {unit.name}, {unit.text(best.mean)}{spread}; "
            f"{worst.condition} has the worst, {unit.text(worst.mean)}."
        )

    def _second(self, results: StudyResults, metric: str) -> str:
        comparable_metric(results, metric)
        if self.also == "none":
            return ""
        if self.also == "auto":
            return metric.replace("test.", "val.") if metric.startswith("test.") else ""
        return comparable_metric(results, self.also)


def _row(results: StudyResults, condition: Condition, metric: str, also: str) -> ForestRow | None:
    values = list(values_of(results, condition, metric).values())
    seconds = values_of(results, condition, also).values() if also else ()
    if not values:
        return None
    interval = t_interval(values, metric, confidence_of(results), results.resampled)
    return ForestRow(
        condition=condition.label,
        n=interval.n,
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        repeats=tuple(values),
        also=fmean(seconds) if seconds else None,
    )


def _reach(rows: Sequence[ForestRow]) -> tuple[float, float]:
    """Return the least and the greatest value of some rows: intervals, repeats and means of both metrics."""
    values = [value for row in rows for value in (row.low, row.high, row.also, *row.repeats) if value is not None]
    return min(values), max(values)


def _plot(data: ForestData, reach: tuple[float, float], *, labels: bool) -> Layers:
    unit, order = quantity(data.metric), [row.condition for row in data.rows]
    low, high = _ends(data.metric, reach)
    bold = {"condition": {"test": f"indexof({json.dumps(data.leading)}, datum.value) >= 0", "value": 700}, "value": 400}
    axis = alt.Axis(
        domain=False, ticks=False, grid=True, labels=labels, labelFontWeight=bold if labels else alt.Undefined
    )
    y = alt.Y("condition:N", sort=order, title=None, axis=axis)
    title = unit.title if not data.also else f"{quantity(data.also).common(unit)} ({unit.unit})"
    title = title if labels else "The leading ones, enlarged"
    scale = alt.Scale(domain=[low, high], nice=False, zero=False)
    color = colour(data.labels, leading=data.leading)
    ticks = alt.Axis(tickCount=6 if not labels or data.enlarged is None else 4, labelOverlap="greedy")
    x = alt.X("mean:Q", title=title, scale=scale, axis=ticks)
    means = alt.Chart(alt.InlineData(values=_mean_rows(data))).encode(y=y, color=color)
    singles = alt.Chart(alt.InlineData(values=_repeat_rows(data))).encode(y=y, color=color)
    layers = [
        means.mark_rule(strokeWidth=2.2, clip=True).encode(x=alt.X("low:Q", title=title), x2=alt.X2("high:Q"),
                                                           tooltip=_tooltip(data)),
        singles.mark_point(filled=True, size=16, yOffset=6, fillOpacity=0.75, clip=True).encode(
            x=alt.X("value:Q", title=title)
        ),
        means.mark_point(filled=True, size=44, fillOpacity=1, clip=True).encode(x=x, tooltip=_tooltip(data)),
    ]  # fmt: skip
    if data.also:
        hollow = means.mark_point(shape="diamond", size=40, filled=False, strokeWidth=1.2, yOffset=-6, clip=True)
        layers.insert(2, hollow.encode(x=alt.X("also:Q", title=title)))
    if not labels:
        for side, beyond, end in (("left", "<", low), ("right", ">", high)):
            outside = means.transform_filter(f"datum.mean {beyond} {end}")
            mark = outside.mark_point(shape=f"triangle-{side}", size=36, filled=True, color=OTHERS)
            layers.append(mark.encode(x=alt.datum(end), color=alt.ColorValue(OTHERS)))
    return alt.layer(*layers)


def _ends(metric: str, reach: tuple[float, float]) -> tuple[float, float]:
    """Return the ends of an axis in the metric's unit, with room beyond what is drawn but within what can be."""
    unit, (least, most) = quantity(metric), metric_of(metric).bounds
    pad = 0.04 * (reach[1] - reach[0]) or 0.02 * abs(reach[1]) or 0.01
    low, high = max(least, reach[0] - pad), min(most, reach[1] + pad)
    spare = 0.015 * (high - low)  # a point at the very end of a range is drawn whole
    return unit.shown(low - spare if low == least else low), unit.shown(high + spare if high == most else high)


def _mean_rows(data: ForestData) -> list[dict[str, Any]]:
    unit = quantity(data.metric)
    rows = []
    for row in data.rows:
        ends = f" [{unit.plain(row.low)}, {unit.plain(row.high)}]" if row.n > 1 else ""
        values = {name: unit.shown(getattr(row, name)) for name in ("mean", "low", "high")}
        also = None if row.also is None else quantity(data.also).shown(row.also)
        rows.append(
            {"condition": row.condition, **values, "also": also, "n": row.n, "text": f"{unit.plain(row.mean)}{ends}"}
        )
    return rows


def _repeat_rows(data: ForestData) -> list[dict[str, Any]]:
    unit = quantity(data.metric)
    return [
        {"condition": row.condition, "value": unit.shown(value)}
        for row in data.rows
        if row.n > 1
        for value in row.repeats
    ]


def _tooltip(data: ForestData) -> list[alt.Tooltip]:
    titles = {"condition:N": "Condition", "mean:Q": "Mean", "low:Q": "Interval from", "high:Q": "Interval to"}
    if data.also:
        titles["also:Q"] = quantity(data.also).capital
    return tooltips(titles | {"n:Q": "Repeats"})
