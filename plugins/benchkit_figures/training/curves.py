"""Curves by epoch: a quantity averaged over repeats, its axis, and the panels of learning curves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import altair as alt

from benchkit.results import EpochRecord, Trial
from benchkit_figures.encodings import (
    LEADING,
    OTHERS,
    WIDTH,
    Layers,
    colour,
    dash,
    panel_columns,
    rounded,
    t_interval,
)

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


def band_kind(most: int) -> str:
    """Return range or interval, by the greatest number of repeats of any condition."""
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
    return tuple(_point(epoch, at[epoch], band, metric) for epoch in sorted(at))


def _point(epoch: int, values: Sequence[float], band: str, metric: str) -> SeriesPoint:
    interval = t_interval(values, metric)
    ends = (min(values), max(values)) if band == "range" else (interval.low, interval.high)
    return SeriesPoint(epoch=epoch, running=len(values), mean=interval.mean, low=ends[0], high=ends[1])


def thinned(points: Sequence[Point], coarse: int = 1) -> list[Point]:
    """Return about `MOST_EPOCHS / coarse` of the points, the first and the last among them."""
    stride = max(1, coarse * len(points) // MOST_EPOCHS)
    return [point for index, point in enumerate(points) if index % stride == 0 or index == len(points) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """The repeats of a condition at one epoch: how many still ran, and the mean and band of each series."""

    epoch: int
    running: int
    mean: tuple[float, float, float, float]
    low: tuple[float, float, float, float]
    high: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatCurve:
    """One repeat: its epochs, the values of the four series at each, and the epoch whose weights were scored (or 0)."""

    index: int
    epochs: tuple[int, ...]
    values: tuple[tuple[float, float, float, float], ...]
    scored_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionCurves:
    """A condition's curves, how many of its repeats ended otherwise than done, and the onset of over-fitting.

    `onset` is the epoch that `benchkit.analysis.onset` gives, 0 where it sees no over-fitting.
    """

    condition: str
    points: tuple[CurvePoint, ...]
    repeats: tuple[RepeatCurve, ...]
    not_done: int
    onset: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvesData:
    """The curves of all conditions with a done repeat; `band` is range or interval, `labels` are all planned ones.

    `trained_by` are the losses beside plain cross-entropy that the training loss is of.
    """

    labels: tuple[str, ...]
    curves: tuple[ConditionCurves, ...]
    band: str
    without: tuple[str, ...]
    trained_by: tuple[str, ...] = ()

    @property
    def epochs(self) -> set[int]:
        """Return all epochs of all curves."""
        return {point.epoch for curves in self.curves for point in curves.points}


SERIES = (("train", "loss"), ("val", "loss"), ("train", "accuracy"), ("val", "accuracy"))
UNITS = {"loss": (1.0, "loss (nats)"), "accuracy": (100.0, "accuracy (%)")}
WORDS = {"train": "Training", "val": "Validation"}
FEW_REPEATS = 3
FEW_CONDITIONS = 4

Row = dict[str, Any]


def overlaid(data: CurvesData, metrics: Sequence[str]) -> alt.ConcatChart:
    """Return a row of panels for each metric, training beside validation, with all conditions in each."""
    chosen = alt.selection_point(name="conditions", fields=["condition"], bind="legend")
    panels = [
        _panel(data, split, metric, chosen, first=(split, metric) == ("train", metrics[0]))
        for metric in metrics
        for split in ("train", "val")
    ]
    values = alt.InlineData(values=_rows(data, metrics))
    return alt.concat(*panels, columns=2, data=values, spacing={"row": 14, "column": 22})


def side_by_side(data: CurvesData, metric: str) -> alt.ConcatChart:
    """Return a panel for each condition: validation solid, training dashed, the others' validation curves in grey."""
    columns = panel_columns([curves.condition for curves in data.curves], 5, 3)
    scale = _domain(data, metric)
    panels = [_own_panel(data, index, metric, columns, scale) for index in range(len(data.curves))]
    values = [row for row in _rows(data, (metric,), coarse=6) if row["kind"] == "mean"]
    return alt.concat(*panels, columns=columns, data=alt.InlineData(values=values), spacing={"row": 10, "column": 10})


def single_lines(data: CurvesData) -> bool:
    """Return whether each repeat gets a thin line of its own: few repeats of few conditions."""
    most = max(len(curves.repeats) for curves in data.curves)
    return 1 < most <= FEW_REPEATS and len(data.curves) <= FEW_CONDITIONS


def _panel(data: CurvesData, split: str, metric: str, chosen: Any, *, first: bool) -> Layers:
    field = f"{split}_{metric}"
    drawn = [curves.condition for curves in data.curves]
    color, dashes = colour(data.labels, drawn, "stroke"), dash(data.labels, drawn)
    x = epoch_axis(data.epochs, 8)
    words, scale = f"{WORDS[split]} {UNITS[metric][1]}", _domain(data, metric)
    y = alt.Y(f"{field}:Q", title=words, scale=scale)
    means = alt.Chart().transform_filter("datum.kind == 'mean'").encode(x=x, y=y, color=color)
    singles = alt.Chart().transform_filter("datum.kind == 'repeat'").encode(x=x, y=y, color=color)
    strength = alt.condition(chosen, alt.value(1), alt.value(0.1))
    line = means.mark_line(clip=True, point=len(data.epochs) == 1).encode(strokeDash=dashes, strokeOpacity=strength)
    layers = [line.add_params(chosen)] if first else [line]
    if any(len(curves.repeats) > 1 for curves in data.curves):
        faint = alt.condition(chosen, alt.value(0.4), alt.value(0.05))
        band = means.mark_area(clip=True).encode(
            y=alt.Y(f"{field}_low:Q", title=words, scale=scale),
            y2=alt.Y2(f"{field}_high:Q"),
            fillOpacity=alt.condition(chosen, alt.value(0.15), alt.value(0.02)),
        )
        layers = [band, *layers]
        if single_lines(data):
            thin = singles.mark_line(clip=True, strokeWidth=0.6)
            layers.insert(1, thin.encode(detail=alt.Detail("repeat:N"), strokeOpacity=faint))
    if split == "val":
        scored = alt.Chart().transform_filter("datum.kind == 'scored'").mark_point(clip=True, filled=True, size=26)
        layers.append(scored.encode(x=x, y=y, color=color, fillOpacity=strength))
    if field == "val_loss" and (onsets := _onset_rows(data)):
        over = alt.Chart(alt.InlineData(values=onsets)).mark_point(
            shape="triangle-down", size=55, strokeWidth=1.5, yOffset=-9
        )
        layers.append(over.encode(x=x, y=y, color=color))
    layers.append(_hover(means, field, data.band, field))
    return alt.layer(*layers).properties(width=(WIDTH - 142) // 2, height=150)


def _hover(means: alt.Chart, field: str, band: str, name: str) -> alt.Chart:
    """Return the points under the pointer, with the numbers; the name keeps them out of print."""
    near = alt.selection_point(name=f"near_{name}", on="pointerover", nearest=True, clear="pointerout", empty=False)
    point, digits = "(datum.datum || datum)", 4 if field.endswith("loss") else 2
    mean, low, high = (f"format({point}.{field}{end}, '.{digits}f')" for end in ("", "_low", "_high"))
    words = "Least to greatest" if band == "range" else "95 % interval"
    # An expression and not a list of fields: with `nearest`, Vega-Lite 6.4 looks for text fields one level too high.
    tooltip = alt.ExprRef(
        f"{{'Condition': {point}.condition, 'Epoch': {point}.epoch, 'Mean': {mean}, "
        f"'{words}': {low} + ' to ' + {high}, 'Repeats': {point}.running}}"
    )
    points: alt.Chart = means.mark_point(filled=True, size=50, clip=True, tooltip=tooltip)
    points = points.encode(fillOpacity=alt.condition(near, alt.value(1), alt.value(0)))
    points = points.properties(name=f"hover_{name}").add_params(near)
    return points


def _own_panel(data: CurvesData, index: int, metric: str, columns: int, scale: alt.Scale) -> Layers:
    label = data.curves[index].condition
    left, bottom = index % columns == 0, index + columns >= len(data.curves)
    y_axis = alt.Axis(labels=left, title=UNITS[metric][1].capitalize() if left else None, tickCount=4)
    x = epoch_axis(data.epochs, 4, labelled=bottom)
    base = alt.Chart().encode(x=x)
    own = base.transform_filter(alt.FieldEqualPredicate(field="condition", equal=label))
    single = len(data.epochs) == 1

    def y(split: str) -> alt.Y:
        return alt.Y(f"{split}_{metric}:Q", axis=y_axis, scale=scale)

    layers = [
        base.mark_line(clip=True, strokeWidth=0.5, color=OTHERS, strokeOpacity=0.3).encode(
            y=y("val"), detail=alt.Detail("condition:N")
        ),
        own.mark_line(clip=True, color=LEADING, strokeWidth=1.2, strokeDash=[4, 2], point=single).encode(y=y("train")),
        own.mark_line(clip=True, color=LEADING, strokeWidth=2, point=single).encode(y=y("val")),
        _hover(own.encode(y=y("val")), f"val_{metric}", data.band, str(index)),
    ]
    if data.curves[index].onset:
        rule = alt.Chart(alt.InlineData(values=[{"epoch": data.curves[index].onset}]))
        layers.insert(1, rule.mark_rule(strokeDash=[2, 2], strokeOpacity=0.7).encode(x=x))
    width = (WIDTH - 72 - 10 * (columns - 1)) // columns
    return alt.layer(*layers).properties(
        width=width,
        height=84 if columns > 3 else 70,
        title=alt.TitleParams(label, limit=width, anchor="start", frame="group"),
    )


def _domain(data: CurvesData, metric: str) -> alt.Scale:
    low, high, _ = axis_ends(data, metric)
    return alt.Scale(domain=[low, high], nice=False, zero=False)


def axis_ends(data: CurvesData, metric: str) -> tuple[float, float, bool]:
    """Return the ends of the axis that both splits share, in its unit, and whether values lie beyond them.

    The worst tenth of the means, as in the first of many epochs, does not squeeze what follows into a part of the axis.
    """
    series = [index for index, (_, name) in enumerate(SERIES) if name == metric]
    points = [point for curves in data.curves for point in curves.points]
    values = sorted(point.mean[index] for point in points for index in series)
    least = min(min(point.low[index], point.mean[index]) for point in points for index in series)
    most = max(point.high[index] for point in points for index in series)
    low, high, last = least, most, len(values) - 1
    if metric == "loss" and most - least > 2 * (usual := values[int(0.9 * last)] - least) > 0:
        high = least + 1.5 * usual
    elif metric == "accuracy" and most - least > 2 * (usual := most - values[last - int(0.9 * last)]) > 0:
        low = most - 1.5 * usual
    pad = 0.04 * (high - low) or 0.02 * abs(high) or 1.0
    factor = UNITS[metric][0]
    return rounded(factor * (low - pad)), rounded(factor * (high + pad)), (low, high) != (least, most)


def _rows(data: CurvesData, metrics: Sequence[str], coarse: int = 1) -> list[Row]:
    """Return long rows of kind mean, repeat and scored with the same columns, so that they pack well."""
    last = max(point.epoch for curves in data.curves for point in curves.points)
    stride = max(1, coarse * last // MOST_EPOCHS)
    rows: list[Row] = []
    for curves in data.curves:
        rows += [_mean_row(curves.condition, point, metrics) for point in _thinned(curves.points, stride)]
        if single_lines(data):
            rows += _repeat_rows(curves, metrics, stride)
        rows += _scored_rows(curves, metrics)
    return rows


def _mean_row(condition: str, point: CurvePoint, metrics: Sequence[str]) -> Row:
    row = _row("mean", condition, "", point.epoch, metrics, point.mean) | {"running": point.running}
    for index, (split, metric) in enumerate(SERIES):
        if metric in metrics:
            factor = UNITS[metric][0]
            row[f"{split}_{metric}_low"] = rounded(factor * point.low[index])
            row[f"{split}_{metric}_high"] = rounded(factor * point.high[index])
    return row


def _repeat_rows(curves: ConditionCurves, metrics: Sequence[str], stride: int) -> list[Row]:
    return [
        _row("repeat", curves.condition, str(repeat.index), epoch, metrics, values)
        for repeat in curves.repeats
        for epoch, values in list(zip(repeat.epochs, repeat.values, strict=True))[::stride]
    ]


def _scored_rows(curves: ConditionCurves, metrics: Sequence[str]) -> list[Row]:
    return [
        _row("scored", curves.condition, str(repeat.index), epoch, metrics, values)
        for repeat in curves.repeats
        for epoch, values in zip(repeat.epochs, repeat.values, strict=True)
        if epoch == repeat.scored_epoch
    ]


def _onset_rows(data: CurvesData) -> list[Row]:
    """Return the mean validation loss of each over-fitting condition at the recorded epoch next to its onset."""
    rows: list[Row] = []
    for curves in data.curves:
        if curves.onset:
            point = min(curves.points, key=lambda one: abs(one.epoch - curves.onset))
            loss = rounded(point.mean[1])
            rows.append({"condition": curves.condition, "epoch": curves.onset, "val_loss": loss})
    return rows


def _row(kind: str, condition: str, repeat: str, epoch: int, metrics: Sequence[str], values: Sequence[float]) -> Row:
    row: Row = {"kind": kind, "condition": condition, "repeat": repeat, "epoch": epoch, "running": None}
    for index, (split, metric) in enumerate(SERIES):
        if metric in metrics:
            row[f"{split}_{metric}"] = rounded(UNITS[metric][0] * values[index])
    for split, metric in SERIES:
        if metric in metrics:
            row |= {f"{split}_{metric}_low": None, f"{split}_{metric}_high": None}
    return row


def _thinned(points: Sequence[CurvePoint], stride: int) -> Iterable[CurvePoint]:
    last = len(points) - 1
    return [point for index, point in enumerate(points) if index % stride == 0 or index == last]
