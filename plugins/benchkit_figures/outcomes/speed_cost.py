"""What accuracy costs: the metric against training time with the Pareto front, and speed and memory beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import altair as alt

from benchkit import NothingToDraw, card
from benchkit.plan import Condition
from benchkit.results import StudyResults
from benchkit_figures.encodings import (
    WIDTH,
    Layers,
    by_condition,
    colour,
    done_repeats,
    label_width,
    lower_is_better,
    planned_labels,
    quantity,
    repeats_words,
    shape,
    value_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """A condition's means over `n` repeats; `on_front` when none is both quicker and better (or equal in one)."""

    condition: str
    n: int
    value: float
    seconds: float
    images_per_second: float
    peak_memory: float
    on_front: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CostData:
    """The rows, quickest first, with the devices that the trials ran on."""

    metric: str
    labels: tuple[str, ...]
    rows: tuple[CostRow, ...]
    devices: tuple[str, ...]
    without: tuple[str, ...]


@card(
    title="Accuracy and cost",
    summary="A metric against training time with the Pareto front, training speed and peak memory.",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedCost:
    """`metric` (empty: the study's main metric) against training seconds, images per second and peak memory."""

    metric: str = ""

    def data(self, results: StudyResults) -> CostData:
        """Return each condition's mean metric and cost over its done repeats, and which are on the Pareto front."""
        metric = quantity(self.metric or results.study.report.metric).metric
        rows, without = by_condition(results, lambda condition: _row(results, condition, metric))
        shown = [condition for condition in results.conditions if condition.label in {row.condition for row in rows}]
        trials = [trial for condition in shown for trial in done_repeats(results, condition)]
        devices = {trial.outcome.cost.device for trial in trials if trial.outcome and trial.outcome.cost}
        if not rows:
            raise NothingToDraw(f"no repeat has finished with both {metric} and its cost")
        return CostData(
            metric=metric,
            labels=planned_labels(results),
            rows=_with_front(rows, lower_is_better(metric)),
            devices=tuple(sorted(devices)),
            without=without,
        )

    def draw(self, data: CostData) -> Any:
        """Return the scatter with its front at the left, bars of speed and memory at the right, as its legend."""
        order = [row.condition for row in data.rows]
        bars = [("images_per_second", "Training images/s")]
        if any(row.peak_memory for row in data.rows):
            bars.append(("peak_memory", "Peak memory (MiB)"))
        height = _height(data)
        bar_width = 96
        width = WIDTH - 118 - label_width(order) - len(bars) * (bar_width + 12)
        panels = [self._scatter(data, width, height)]
        for index, (field, title) in enumerate(bars):
            panels.append(_bars(data, field, title, labels=index == 0).properties(width=bar_width, height=height))
        return alt.hconcat(*panels, data=alt.InlineData(values=_rows(data)), spacing=14)

    def caption(self, data: CostData) -> str:
        """Return what is shown, over how many repeats and on which device."""
        unit = quantity(data.metric)
        parts = [
            f"{unit.name[0].upper()}{unit.name[1:]} against training time, with training speed"
            f"{' and peak memory' if any(row.peak_memory for row in data.rows) else ''}: means over "
            f"{repeats_words(row.n for row in data.rows)} on {', '.join(data.devices)}."
        ]
        if len(data.rows) > 1:
            parts.append(
                "Named and joined by the line: the Pareto front, where no condition is both quicker and better."
            )
        parts.append(
            "Bars share the points' colours. Times are comparable where trials did not compete for the device."
        )
        if data.without:
            parts.append(f"Without a finished repeat: {', '.join(data.without)}.")
        return " ".join(parts)

    def alt_text(self, data: CostData) -> str:
        """Return one sentence with the quickest and the best condition."""
        unit, quickest = quantity(data.metric), data.rows[0]
        sign = 1 if lower_is_better(data.metric) else -1
        best = min(data.rows, key=lambda row: sign * row.value)
        first = f"{quickest.condition} trains quickest ({quickest.seconds:.4g} s, {unit.text(quickest.value)})"
        if best is quickest:
            return f"{first}{' and is also best' if len(data.rows) > 1 else ''}."
        return f"{first}; {best.condition} is best ({unit.text(best.value)} in {best.seconds:.4g} s)."

    def _scatter(self, data: CostData, width: int, height: int) -> Layers:
        unit = quantity(data.metric)
        x = alt.X("seconds:Q", title="Training time (s)", scale=alt.Scale(zero=False, padding=14))
        y = alt.Y("value:Q", title=unit.title, scale=alt.Scale(zero=False, padding=14))
        base = alt.Chart().encode(x=x, y=y)
        front = base.transform_filter("datum.front")
        layers = [
            front.mark_line(interpolate="step-after", strokeWidth=1, color="#808080", strokeDash=[3, 2]).encode(
                order="seconds:Q"
            ),
            base.mark_point(filled=True, size=75, fillOpacity=1).encode(
                color=colour(data.labels), shape=shape(data.labels), tooltip=_tooltip(unit.title)
            ),
            *(
                front.transform_filter(f"datum.side == '{side}'")
                .mark_text(align=side, dx=8 if side == "left" else -8, dy=-9, fontSize=10.5)
                .encode(text="condition:N")
                for side in ("left", "right")
            ),
        ]
        return alt.layer(*layers).properties(width=width, height=height)


def _height(data: CostData) -> int:
    return max(200, 17 * len(data.rows))


def _bars(data: CostData, field: str, title: str, *, labels: bool) -> Layers:
    order = [row.condition for row in data.rows]
    axis = alt.Axis(domain=False, ticks=False) if labels else None
    y = alt.Y("condition:N", sort=order, title=None, axis=axis, scale=alt.Scale(paddingInner=0.3))
    x = alt.X(f"{field}:Q", title=title, axis=alt.Axis(tickCount=3, format="~s"), scale=alt.Scale(zero=True))
    bars = (
        alt.Chart()
        .mark_bar(size=min(14, int(0.75 * _height(data) / len(order))))
        .encode(x=x, y=y, color=colour(data.labels))
    )
    return alt.layer(bars.encode(tooltip=[alt.Tooltip("condition:N"), alt.Tooltip(f"{field}:Q", title=title)]))


def _row(results: StudyResults, condition: Condition, metric: str) -> CostRow | None:
    rows = []
    for trial in done_repeats(results, condition):
        names = (metric, "cost.seconds", "cost.images_per_second", "cost.peak_memory")
        values = [value for name in names if (value := value_of(trial, name)) is not None]
        if len(values) == len(names):
            rows.append(values)
    if not rows:
        return None
    value, seconds, rate, memory = (fmean(column) for column in zip(*rows, strict=True))
    return CostRow(
        condition=condition.label,
        n=len(rows),
        value=value,
        seconds=seconds,
        images_per_second=rate,
        peak_memory=memory,
        on_front=False,
    )


def _with_front(rows: list[CostRow], lower: bool) -> tuple[CostRow, ...]:
    sign = 1 if lower else -1

    def beaten(row: CostRow) -> bool:
        return any(
            other.seconds <= row.seconds
            and sign * other.value <= sign * row.value
            and (other.seconds, other.value) != (row.seconds, row.value)
            for other in rows
        )

    ordered = sorted(rows, key=lambda row: row.seconds)
    return tuple(replace(row, on_front=not beaten(row)) for row in ordered)


def _rows(data: CostData) -> list[dict[str, Any]]:
    unit, middle = quantity(data.metric), (data.rows[0].seconds + data.rows[-1].seconds) / 2
    return [
        {
            "condition": row.condition,
            "value": unit.shown(row.value),
            "seconds": float(f"{row.seconds:.5g}"),
            "images_per_second": float(f"{row.images_per_second:.5g}"),
            "peak_memory": float(f"{row.peak_memory:.5g}"),
            "front": row.on_front,
            "side": "left" if row.seconds <= middle else "right",
            "n": row.n,
        }
        for row in data.rows
    ]


def _tooltip(title: str) -> list[alt.Tooltip]:
    fields = [("condition:N", "Condition"), ("value:Q", title), ("seconds:Q", "Training time (s)")]
    fields += [("images_per_second:Q", "Training images/s"), ("peak_memory:Q", "Peak memory (MiB)"), ("n:Q", "Repeats")]
    return [alt.Tooltip(field, title=name) for field, name in fields]
