"""What accuracy costs: the metric against training time with the Pareto front, and speed and memory beside it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import altair as alt

from benchkit import NothingToDraw, card
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
    done_repeats,
    label_width,
    left_out,
    may_be_best,
    planned_labels,
    quantity,
    repeats_words,
    rounded,
    shape,
    tooltips,
    value_of,
)

WIDEST_NAME, LABELS = 130, 150
"""Names of points, and those beside the bars, are cut off at so many pixels."""

Box = tuple[float, float, float, float]
"""The least and the greatest x and y of a rectangle: left, top, right, bottom, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """A condition's means over `n` repeats; `on_front` when none is both quicker and better (or equal in one).

    `seconds` is the training time of its fastest repeat, which other load on the machine has held up least, and
    `slowest` that of its slowest one.
    """

    condition: str
    n: int
    value: float
    seconds: float
    slowest: float
    images_per_second: float
    peak_memory: float
    on_front: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CostData:
    """The rows, quickest first, with the devices that the trials ran on."""

    metric: str
    labels: tuple[str, ...]
    rows: tuple[CostRow, ...]
    leading: tuple[str, ...]
    devices: tuple[str, ...]
    without: tuple[str, ...]

    @property
    def memory_differs(self) -> bool:
        """Return whether peak memory is known and differs by more than a tenth between conditions."""
        known = [row.peak_memory for row in self.rows]
        return min(known) > 0 and max(known) > 1.1 * min(known)


@card(
    title="Accuracy and cost",
    summary="A metric against training time with the Pareto front, training speed and peak memory.",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedCost:
    """`metric` (empty: the study's main metric) against training seconds, images per second and peak memory."""

    metric: str = ""

    def data(self, results: StudyResults) -> CostData:
        """Return each condition's mean metric and cost over its done repeats, and which are on the Pareto front.

        Nothing is drawn where several models of devices trained them.
        """
        metric = quantity(self.metric or results.study.report.metric).metric
        rows, without = by_condition(results, lambda condition: _row(results, condition, metric))
        shown = [condition for condition in results.conditions if condition.label in {row.condition for row in rows}]
        trials = [trial for condition in shown for trial in done_repeats(results, condition)]
        comparable_metric(results, "cost.seconds")
        devices = {one.device for trial in trials for one in trial.devices}
        if not rows:
            raise NothingToDraw(f"no repeat has finished with both {metric} and its cost")
        return CostData(
            metric=metric,
            labels=planned_labels(results),
            rows=_with_front(rows, metric),
            leading=may_be_best(results, metric),
            devices=tuple(sorted(devices)),
            without=without,
        )

    def draw(self, data: CostData) -> Any:
        """Return the scatter with its front at the left, bars of speed and memory at the right, as its legend."""
        order = [row.condition for row in data.rows]
        bars = [("images_per_second", "Training images/s")]
        if data.memory_differs:
            bars.append(("peak_memory", "Peak memory (MiB)"))
        height = max(200, 17 * len(data.rows))
        bar_width = 110
        width = WIDTH - 118 - min(LABELS, label_width(order)) - len(bars) * (bar_width + 12)
        panels = [scatter(data, width, height)]
        for index, (field, title) in enumerate(bars):
            panels.append(_bars(data, field, title, labels=index == 0).properties(width=bar_width, height=height))
        return alt.hconcat(*panels, data=alt.InlineData(values=_rows(data)), spacing=14)

    def caption(self, data: CostData) -> str:
        """Return what is shown, over how many repeats and on which device."""
        unit = quantity(data.metric)
        parts = [
            f"{unit.capital} (mean over {repeats_words(row.n for row in data.rows)}) against "
            f"the training time of the fastest repeat, on {', '.join(data.devices)}. Whatever else the machine had to "
            "do is in these times, so small differences mean nothing; the slowest repeats are in the data of this "
            "figure."
        ]
        if len(data.rows) > 1:
            parts.append("Dashed: the Pareto front, where no condition is both quicker and better.")
        colours = "Bars share the points' colours." if len(data.labels) <= MOST_COLOURS else "Blue: may be the best."
        parts.append(colours)
        if not data.memory_differs and (most := max(row.peak_memory for row in data.rows)):
            parts.append(f"Peak memory is about the same, {most:,.0f} MiB at most.")
        parts += left_out("Without a finished repeat", data.without)
        return " ".join(parts)

    def alt_text(self, data: CostData) -> str:
        """Return one sentence with the quickest and the best condition."""
        unit, quickest = quantity(data.metric), data.rows[0]
        best = min(data.rows, key=lambda row: unit.rank(row.value))
        first = (
            f"The quickest repeat is of {quickest.condition} ({quickest.seconds:.4g} s, {unit.text(quickest.value)})"
        )
        if best is quickest:
            return f"{first}{' and is also best' if len(data.rows) > 1 else ''}."
        return f"{first}; {best.condition} is best ({unit.text(best.value)} in {best.seconds:.4g} s)."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plane:
    """The pixels of the scatter and the values at its edges, x in seconds and y in the metric's unit."""

    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, seconds: float, value: float) -> tuple[float, float]:
        """Return where values stand, in pixels from the upper left corner."""
        across = (seconds - self.x[0]) / (self.x[1] - self.x[0])
        up = (value - self.y[0]) / (self.y[1] - self.y[0])
        return across * self.width, (1 - up) * self.height


def scatter(data: CostData, width: int, height: int) -> Layers:
    """Return the points with their front and a name beside each that has room for one."""
    unit = quantity(data.metric)
    plane = _Plane(
        width=width,
        height=height,
        x=padded([row.seconds for row in data.rows]),
        y=padded([unit.shown(row.value) for row in data.rows]),
    )
    scales = [alt.Scale(domain=list(ends), nice=False, zero=False) for ends in (plane.x, plane.y)]
    ticks = alt.Axis(tickCount=5, labelOverlap="greedy")
    x = alt.X("seconds:Q", title="Training time of the fastest repeat (s)", scale=scales[0], axis=ticks)
    y = alt.Y("value:Q", title=unit.title, scale=scales[1])
    base, names = alt.Chart().encode(x=x, y=y), alt.Chart(alt.InlineData(values=_names(data, plane)))
    color = colour(data.labels, leading=data.leading)
    front = base.transform_filter("datum.front").mark_line(
        interpolate="step-after", strokeWidth=1, color=OTHERS, strokeDash=[3, 2]
    )
    points = base.mark_point(filled=True, size=75, fillOpacity=1)
    layers = [
        front.encode(order=alt.Order("seconds:Q")),
        points.encode(color=color, shape=shape(data.labels), tooltip=_tooltip(unit.title)),
        *(
            names.transform_filter(f"datum.align == '{align}'")
            .mark_text(
                align=align,
                baseline="middle",
                fontSize=10.5,
                limit=WIDEST_NAME,
                dx=alt.expr("datum.dx"),
                dy=alt.expr("datum.dy"),
            )
            .encode(x=x, y=y, text=alt.Text("condition:N"))
            for align in ("left", "center", "right")
        ),
    ]
    return alt.layer(*layers).properties(width=width, height=height)


def padded(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis: so far beyond the values that these are apart after rounding, too."""
    low, high = min(values), max(values)
    pad = max(0.08 * (high - low), 0.002 * max(abs(low), abs(high))) or 1.0
    return rounded(low - pad), rounded(high + pad)


def _names(data: CostData, plane: _Plane) -> list[dict[str, Any]]:
    """Return the names with their places; those on the front choose first, then those that may be best."""
    unit = quantity(data.metric)
    order = sorted(data.rows, key=lambda row: (not row.on_front, row.condition not in data.leading))
    points = [plane.place(row.seconds, unit.shown(row.value)) for row in order]
    front = [plane.place(row.seconds, unit.shown(row.value)) for row in data.rows if row.on_front]
    lines = [_box((x, y), (right, y)) for (x, y), (right, _) in itertools.pairwise(front)]
    lines += [_box((right, y), (right, top)) for (_, y), (right, top) in itertools.pairwise(front)]
    places = placed_labels(points, [row.condition for row in order], (plane.width, plane.height), lines)
    return [
        {"condition": row.condition, "seconds": row.seconds, "value": unit.shown(row.value), "align": place.align}
        | {"dx": rounded(place.x - x), "dy": rounded(place.y - y)}
        for row, place, (x, y) in zip(order, places, points, strict=True)
        if place is not None
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedLabel:
    """Where a point's label starts, in pixels from the upper left corner: at its `left`, `right` or `center`."""

    x: float
    y: float
    align: str


def placed_labels(
    points: Sequence[tuple[float, float]], texts: Sequence[str], size: tuple[float, float], lines: Sequence[Box] = ()
) -> tuple[PlacedLabel | None, ...]:
    """Return a place beside each point where its text covers no point, line, other text or edge, or None without one.

    `points` and `size` are in pixels, y downwards; earlier texts choose first. For text of 10.5 pixels.
    """
    taken = [*((x - 6, y - 6, x + 6, y + 6) for x, y in points), *lines]
    places: list[PlacedLabel | None] = []
    for own, ((x, y), text) in enumerate(zip(points, texts, strict=True)):
        found = None
        for align, dx, dy in (
            ("left", 9, 0), ("right", -9, 0), ("center", 0, -13), ("center", 0, 13), ("left", 7, -10),
            ("right", -7, -10), ("left", 7, 10), ("right", -7, 10), ("center", 0, -24), ("center", 0, 24),
        ):  # fmt: skip
            wide = min(6.1 * len(text), WIDEST_NAME)
            start = x + dx - {"left": 0.0, "center": wide / 2, "right": wide}[align]
            box = (start, y + dy - 6, start + wide, y + dy + 6)
            others = [other for index, other in enumerate(taken) if index != own]
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]
            if inside and not any(_meet(box, other) for other in others):
                found = PlacedLabel(x=x + dx, y=y + dy, align=align)
                taken.append(box)
                break
        places.append(found)
    return tuple(places)


def _box(start: tuple[float, float], end: tuple[float, float]) -> Box:
    return min(start[0], end[0]) - 1, min(start[1], end[1]) - 1, max(start[0], end[0]) + 1, max(start[1], end[1]) + 1


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _bars(data: CostData, field: str, title: str, *, labels: bool) -> Layers:
    order = [row.condition for row in data.rows]
    axis = alt.Axis(domain=False, ticks=False, labelLimit=LABELS) if labels else None
    y = alt.Y("condition:N", sort=order, title=None, axis=axis, scale=alt.Scale(paddingInner=0.3))
    style = "~s" if max(getattr(row, field) for row in data.rows) >= 10_000 else ",.3~r"
    words = f"datum.value ? format(datum.value, '{style}') : '0'"
    ticks = alt.Axis(tickCount=3, labelExpr=words, labelOverlap="greedy", labelSeparation=4)
    x = alt.X(f"{field}:Q", title=title, axis=ticks, scale=alt.Scale(zero=True))
    thick = min(14, int(0.75 * max(200, 17 * len(order)) / len(order)))
    bars = alt.Chart().mark_bar(size=thick).encode(x=x, y=y, color=colour(data.labels, leading=data.leading))
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
    scores, times, rates, memory = zip(*rows, strict=True)
    return CostRow(
        condition=condition.label,
        n=len(rows),
        value=fmean(scores),
        seconds=min(times),
        slowest=max(times),
        images_per_second=fmean(rates),
        peak_memory=fmean(memory),
        on_front=False,
    )


def _with_front(rows: list[CostRow], metric: str) -> tuple[CostRow, ...]:
    rank = quantity(metric).rank

    def beaten(row: CostRow) -> bool:
        return any(
            other.seconds <= row.seconds
            and rank(other.value) <= rank(row.value)
            and (other.seconds, other.value) != (row.seconds, row.value)
            for other in rows
        )

    ordered = sorted(rows, key=lambda row: row.seconds)
    return tuple(replace(row, on_front=not beaten(row)) for row in ordered)


def _rows(data: CostData) -> list[dict[str, Any]]:
    unit = quantity(data.metric)
    fields = ("seconds", "slowest", "images_per_second", "peak_memory")
    return [
        {"condition": row.condition, "value": unit.shown(row.value), "front": row.on_front, "n": row.n}
        | {field: float(f"{getattr(row, field):.5g}") for field in fields}
        for row in data.rows
    ]


def _tooltip(title: str) -> list[alt.Tooltip]:
    titles = {"condition:N": "Condition", "value:Q": title, "seconds:Q": "Training time (s)"}
    titles |= {"images_per_second:Q": "Training images/s", "peak_memory:Q": "Peak memory (MiB)", "n:Q": "Repeats"}
    return tooltips(titles)
