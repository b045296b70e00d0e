"""The results as a forest plot: mean and interval of every condition, best first, with its single repeats."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import altair as alt

from benchkit import NothingToDraw, card
from benchkit.plan import Condition
from benchkit.results import StudyResults
from benchkit_figures.encodings import (
    WIDTH,
    by_condition,
    colour,
    done_repeats,
    label_width,
    lower_is_better,
    planned_labels,
    quantity,
    repeats_words,
    t_interval,
    value_of,
)


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
    """The rows, best mean first, of `metric`; `also` is the second metric or empty; `labels` are all planned ones."""

    metric: str
    also: str
    labels: tuple[str, ...]
    rows: tuple[ForestRow, ...]
    without: tuple[str, ...]


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
        also = self._second(metric)
        rows, without = by_condition(results, lambda condition: _row(results, condition, metric, also))
        if not rows:
            raise NothingToDraw(f"no repeat has finished with a value of {metric}")
        rows.sort(key=lambda row: row.mean if lower_is_better(metric) else -row.mean)
        return ForestData(metric=metric, also=also, labels=planned_labels(results), rows=tuple(rows), without=without)

    def draw(self, data: ForestData) -> Any:
        """Return one line per condition: interval, mean, repeats, and the numbers beside it."""
        unit, order = quantity(data.metric), [row.condition for row in data.rows]
        width = WIDTH - label_width(order) - 150
        y = alt.Y("condition:N", sort=order, title=None, axis=alt.Axis(domain=False, ticks=False, grid=True))
        title = unit.title if not data.also else f"{quantity(data.also).common(unit)} ({unit.unit})"
        x = alt.X("mean:Q", title=title, scale=alt.Scale(zero=False, padding=8))
        means = alt.Chart(alt.InlineData(values=_mean_rows(data))).encode(y=y, color=colour(data.labels))
        singles = alt.Chart(alt.InlineData(values=_repeat_rows(data))).encode(y=y, color=colour(data.labels))
        layers = [
            means.mark_rule(strokeWidth=2.2).encode(x=alt.X("low:Q", title=title), x2="high:Q", tooltip=_tooltip(data)),
            singles.mark_point(filled=True, size=16, yOffset=5, fillOpacity=0.75).encode(
                x=alt.X("value:Q", title=title)
            ),
            means.mark_point(filled=True, size=70, fillOpacity=1).encode(x=x, tooltip=_tooltip(data)),
        ]
        if data.also:
            hollow = means.mark_point(shape="diamond", size=46, filled=False, strokeWidth=1.4, yOffset=0)
            layers.insert(2, hollow.encode(x=alt.X("also:Q", title=title)))
        step = 26 if len(order) <= 10 else 20
        plot = alt.layer(*layers).properties(width=width, height=alt.Step(step))
        hidden = alt.Y("condition:N", sort=order, axis=None)
        numbers = alt.Chart(alt.InlineData(values=_mean_rows(data))).mark_text(align="left", fontSize=10.5)
        numbers = numbers.encode(y=hidden, x=alt.value(0), text="text:N").properties(width=120, height=alt.Step(step))
        return alt.hconcat(plot, numbers, spacing=6)

    def caption(self, data: ForestData) -> str:
        """Return what point, bar, small points and diamond are, and over how many repeats."""
        name = quantity(data.metric).name
        parts = [f"{name[0].upper()}{name[1:]} by condition, best first."]
        if all(row.n == 1 for row in data.rows):
            parts.append("One repeat per condition, so there is no interval.")
        else:
            n = repeats_words(row.n for row in data.rows)
            parts.append(f"Large points: mean of {n}; bars: 95 % t interval; small points: single repeats.")
        if data.also:
            parts.append(f"Open diamonds: mean {quantity(data.also).name} of the same weights.")
        if data.without:
            parts.append(f"Without a finished repeat: {', '.join(data.without)}.")
        return " ".join(parts)

    def alt_text(self, data: ForestData) -> str:
        """Return one sentence with the best condition, its mean and interval, and the worst one."""
        unit, best, worst = quantity(data.metric), data.rows[0], data.rows[-1]
        spread = f" (95 % interval {unit.text(best.low)} to {unit.text(best.high)})" if best.n > 1 else ""
        if best is worst:
            return f"{best.condition} has a {unit.name} of {unit.text(best.mean)}{spread}."
        return (
            f"{best.condition} has the best mean {unit.name}, {unit.text(best.mean)}{spread}; "
            f"{worst.condition} has the worst, {unit.text(worst.mean)}."
        )

    def _second(self, metric: str) -> str:
        quantity(metric)
        if self.also == "none":
            return ""
        if self.also == "auto":
            return metric.replace("test.", "val.") if metric.startswith("test.") else ""
        return quantity(self.also).metric


def _row(results: StudyResults, condition: Condition, metric: str, also: str) -> ForestRow | None:
    trials = done_repeats(results, condition)
    values = [value for trial in trials if (value := value_of(trial, metric)) is not None]
    seconds = [value for trial in trials if also and (value := value_of(trial, also)) is not None]
    if not values:
        return None
    interval = t_interval(values, metric)
    return ForestRow(
        condition=condition.label,
        n=interval.n,
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        repeats=tuple(values),
        also=fmean(seconds) if seconds else None,
    )


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
    fields = [("condition:N", "Condition"), ("mean:Q", "Mean"), ("low:Q", "Interval from"), ("high:Q", "Interval to")]
    if data.also:
        name = quantity(data.also).name
        fields.append(("also:Q", f"{name[0].upper()}{name[1:]}"))
    return [alt.Tooltip(field, title=title) for field, title in [*fields, ("n:Q", "Repeats")]]
