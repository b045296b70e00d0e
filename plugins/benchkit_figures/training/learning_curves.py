"""Learning curves: loss and accuracy by epoch on training and validation images, for every condition."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from benchkit import NothingToDraw, PluginError, card
from benchkit.analysis import onset
from benchkit.plan import Condition
from benchkit.results import StudyResults, Trial
from benchkit_figures.encodings import (
    LEADING,
    SPLIT_WORDS,
    WIDTH,
    Layers,
    by_condition,
    colour,
    dash,
    done_repeats,
    left_out,
    listed,
    other_losses,
    panel_columns,
    planned_labels,
    repeats_words,
    rounded,
)
from benchkit_figures.training.curves import (
    SmallPanel,
    band_kind,
    epoch_axis,
    grey_lines,
    series_point,
    small_panels,
    thinned,
)

SERIES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
UNITS = {"loss": (1.0, "loss (nats)"), "accuracy": (100.0, "accuracy (%)")}

FEW_REPEATS, FEW_CONDITIONS = 3, 4
"""Up to so many repeats of so many conditions have thin lines of their own."""

Four = tuple[float, float, float, float]
"""Values of the four series."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """The repeats of a condition at one epoch: how many still ran, and the mean and band of each series."""

    epoch: int
    running: int
    mean: Four
    low: Four
    high: Four


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatCurve:
    """One repeat: its epochs, the values of the four series at each, and the epoch whose weights were scored (or 0)."""

    index: int
    epochs: tuple[int, ...]
    values: tuple[Four, ...]
    scored_epoch: int

    @property
    def points(self) -> list[tuple[int, Four]]:
        """Return the values of each epoch."""
        return list(zip(self.epochs, self.values, strict=True))


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


@card(
    title="Learning curves",
    summary="Loss and accuracy by epoch, training and validation, mean over repeats with a band.",
    choices={"metric": ("both", "loss", "accuracy"), "band": ("auto", "range", "interval")},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurves:
    """Loss and accuracy by epoch.

    `metric` is both, loss or accuracy. `band` is range (least to greatest repeat), interval (95 % t interval of the
    mean) or auto: range up to three repeats, interval from four on. Up to `overlay` conditions share panels; more of
    them get a panel each, with accuracy alone unless `metric` says loss.
    """

    metric: str = "both"
    band: str = "auto"
    overlay: int = 8

    def __post_init__(self) -> None:
        """Raise `PluginError` for an option outside its choices."""
        problems = []
        if self.metric not in ("both", "loss", "accuracy"):
            problems.append(f"metric = {self.metric!r}: expected both, loss or accuracy")
        if self.band not in ("auto", "range", "interval"):
            problems.append(f"band = {self.band!r}: expected auto, range or interval")
        if problems:
            raise PluginError("the figure learning-curves was given wrong options", problems=problems)

    def data(self, results: StudyResults) -> CurvesData:
        """Return mean, band and repeats per condition and epoch; epochs with a non-finite value are left out."""
        band = self.band if self.band != "auto" else band_kind(results)

        def curves_of(condition: Condition) -> ConditionCurves | None:
            found = map(_repeat, done_repeats(results, condition))
            repeats = tuple(curve for curve in found if curve.epochs)
            if not repeats:
                return None
            over = onset(results, condition)
            return ConditionCurves(
                condition=condition.label,
                points=_points(repeats, band),
                repeats=repeats,
                not_done=len({t.index for t in results.of(condition)}) - len(repeats),
                onset=over.epoch if over else 0.0,
            )

        curves, without = by_condition(results, curves_of)
        if not curves:
            raise NothingToDraw("no repeat of any condition has finished with a recorded history")
        return CurvesData(
            labels=planned_labels(results),
            curves=tuple(curves),
            band=band,
            without=without,
            trained_by=other_losses(results),
        )

    def draw(self, data: CurvesData) -> Any:
        """Return panels by metric and split with all conditions, or a panel for each when there are many."""
        metrics = self._metrics(data)
        return overlaid(data, metrics) if len(data.curves) <= self.overlay else side_by_side(data, metrics[0])

    def caption(self, data: CurvesData) -> str:
        """Return what is shown, over how many repeats, what the band is, and what is left out."""
        n = repeats_words(len(curves.repeats) for curves in data.curves)
        many = len(data.curves) > self.overlay
        parts = [self._subject(data)]
        if n == "1 repeat":
            parts.append("One repeat per condition.")
        elif many:
            parts.append(f"Mean over {n}.")
        else:
            what = "least to greatest repeat" if data.band == "range" else "95 % t interval of the mean"
            thin = "; thin lines: single repeats" if single_lines(data) else ""
            parts.append(f"Lines: mean over {n}; bands: {what}{thin}.")
        if not many and any(repeat.scored_epoch for curves in data.curves for repeat in curves.repeats):
            parts.append("Points mark the epoch whose weights were scored, one for each repeat.")
        if any(point.running < len(curves.repeats) for curves in data.curves for point in curves.points):
            parts.append("Repeats that stopped early leave the mean: it is over those still training at each epoch.")
        if (many or self.metric != "accuracy") and any(curves.onset for curves in data.curves):
            drawn = "loss" in self._metrics(data)
            why = ": least validation loss, before it rises while the training loss falls" if drawn else ""
            parts.append(
                f"{'Dashed rules' if many else 'Triangles'} mark the onset of over-fitting{why} (median over repeats)."
            )
        metrics = self._metrics(data)
        if any(axis_ends(data, metric)[2] for metric in metrics):
            parts.append("The far worse values, mostly of the first epochs, lie beyond the axes.")
        if "loss" in metrics:
            parts.append("Training loss includes penalties and augmentation.")
            if data.trained_by:
                parts.append(
                    f"It is what was trained by ({listed(data.trained_by)}); validation loss is cross-entropy."
                )
        return " ".join([*parts, *_left_out(data)])

    def alt_text(self, data: CurvesData) -> str:
        """Return one sentence: the condition with the best mean validation accuracy and where it was reached."""
        reached = [
            (point.running == len(curves.repeats), point.mean[3], -point.epoch, curves.condition)
            for curves in data.curves
            for point in curves.points
        ]
        _, value, epoch, label = max(reached)
        of = f" of {len(data.curves)} conditions" if len(data.curves) > 1 else ""
        return (
            f"Learning curves: the highest mean validation accuracy{of} is {100 * value:.2f} %, "
            f"reached by {label} in epoch {-epoch}."
        )

    def _metrics(self, data: CurvesData) -> tuple[str, ...]:
        """Return the metrics drawn: both by default, but one alone where each condition has a panel of its own."""
        if self.metric != "both":
            return (self.metric,)
        return ("loss", "accuracy") if len(data.curves) <= self.overlay else ("accuracy",)

    def _subject(self, data: CurvesData) -> str:
        if len(data.curves) > self.overlay:
            (metric,) = self._metrics(data)
            return (
                f"Learning curves, one panel for each condition: validation {metric} (solid) and training {metric} "
                "(dashed) by epoch; grey: the validation curves of the other conditions."
            )
        what = {"both": "Loss and accuracy", "loss": "Loss", "accuracy": "Accuracy"}[self.metric]
        return f"Learning curves. {what} by epoch on training and validation images."


def _repeat(trial: Trial) -> RepeatCurve:
    rows = [(record.epoch, _four(float(getattr(record, name)) for name in SERIES)) for record in trial.history]
    kept = {epoch: values for epoch, values in rows if all(map(math.isfinite, values))}
    scored = trial.outcome.selected_epoch if trial.outcome else 0
    return RepeatCurve(
        index=trial.index,
        epochs=tuple(kept),
        values=tuple(kept.values()),
        scored_epoch=scored if scored in kept else 0,
    )


def _points(repeats: Sequence[RepeatCurve], band: str) -> tuple[CurvePoint, ...]:
    at: dict[int, list[Four]] = {}
    for repeat in repeats:
        for epoch, values in repeat.points:
            at.setdefault(epoch, []).append(values)
    return tuple(_point(epoch, at[epoch], band) for epoch in sorted(at))


def _point(epoch: int, rows: Sequence[Four], band: str) -> CurvePoint:
    series = [
        # A loss of other terms than cross-entropy may be below 0.
        series_point(epoch, column, band, name.replace("_", ".") if min(column) >= 0 else "")
        for name, column in zip(SERIES, zip(*rows, strict=True), strict=True)
    ]
    mean, low, high = (_four(getattr(one, name) for one in series) for name in ("mean", "low", "high"))
    return CurvePoint(epoch=epoch, running=len(rows), mean=mean, low=low, high=high)


def _four(values: Iterable[float]) -> Four:
    first, second, third, fourth = values
    return first, second, third, fourth


def _left_out(data: CurvesData) -> list[str]:
    parts = []
    missing = sum(curves.not_done for curves in data.curves)
    if missing:
        repeats = "1 repeat of these conditions is" if missing == 1 else f"{missing} repeats of these conditions are"
        parts.append(f"{repeats} not done and not shown.")
    parts += left_out("Without a finished repeat", data.without)
    return parts


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
    labels, scale = [curves.condition for curves in data.curves], _domain(data, metric)
    return small_panels(
        labels,
        lambda panel: _own_panel(data, panel, metric, scale),
        [row for row in _rows(data, (metric,), coarse=6) if row["kind"] == "mean"],
        columns=panel_columns(labels, 5, 3),
    )


def single_lines(data: CurvesData) -> bool:
    """Return whether each repeat gets a thin line of its own: few repeats of few conditions."""
    most = max(len(curves.repeats) for curves in data.curves)
    return 1 < most <= FEW_REPEATS and len(data.curves) <= FEW_CONDITIONS


def _panel(data: CurvesData, split: str, metric: str, chosen: Any, *, first: bool) -> Layers:
    field = f"{split}_{metric}"
    drawn = [curves.condition for curves in data.curves]
    color, dashes = colour(data.labels, drawn, "stroke"), dash(data.labels, drawn)
    x = epoch_axis(data.epochs, 8)
    words, scale = f"{SPLIT_WORDS[split].capitalize()} {UNITS[metric][1]}", _domain(data, metric)
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


def _own_panel(data: CurvesData, panel: SmallPanel, metric: str, scale: alt.Scale) -> Layers:
    x = epoch_axis(data.epochs, 4, labelled=panel.bottom)
    base = alt.Chart().encode(x=x)
    own, single = panel.own(base), len(data.epochs) == 1
    train, val = (
        alt.Y(f"{split}_{metric}:Q", axis=panel.y_axis(UNITS[metric][1].capitalize()), scale=scale)
        for split in ("train", "val")
    )
    layers = [
        grey_lines(base, y=val),
        own.mark_line(clip=True, color=LEADING, strokeWidth=1.2, strokeDash=[4, 2], point=single).encode(y=train),
        own.mark_line(clip=True, color=LEADING, strokeWidth=2, point=single).encode(y=val),
        _hover(own.encode(y=val), f"val_{metric}", data.band, str(panel.index)),
    ]
    if onset_epoch := data.curves[panel.index].onset:
        rule = alt.Chart(alt.InlineData(values=[{"epoch": onset_epoch}]))
        layers.insert(1, rule.mark_rule(strokeDash=[2, 2], strokeOpacity=0.7).encode(x=x))
    return alt.layer(*layers).properties(width=panel.width, height=84 if panel.columns > 3 else 70)


def _domain(data: CurvesData, metric: str) -> alt.Scale:
    low, high, _ = axis_ends(data, metric)
    return alt.Scale(domain=[low, high], nice=False, zero=False)


def axis_ends(data: CurvesData, metric: str) -> tuple[float, float, bool]:
    """Return the ends of the axis that both splits share, in its unit, and whether values lie beyond them.

    The worst tenth of the means, as in the first of many epochs, does not squeeze what follows into a part of the axis.
    """
    series = [index for index, name in enumerate(SERIES) if name.endswith(metric)]
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
    last = max(data.epochs)
    rows: list[Row] = []
    for curves in data.curves:
        own = [
            _row("mean", point.epoch, metrics, point.mean, (point.low, point.high)) | {"running": point.running}
            for point in thinned(curves.points, coarse, last)
        ]
        for repeat in curves.repeats if single_lines(data) else ():
            points = thinned(repeat.points, coarse, last)
            own += [_row("repeat", epoch, metrics, values) | {"repeat": str(repeat.index)} for epoch, values in points]
        for repeat in curves.repeats:
            scored = [(epoch, values) for epoch, values in repeat.points if epoch == repeat.scored_epoch]
            own += [_row("scored", epoch, metrics, values) | {"repeat": str(repeat.index)} for epoch, values in scored]
        rows += [{"condition": curves.condition} | row for row in own]
    return rows


def _row(
    kind: str, epoch: int, metrics: Sequence[str], mean: Four, band: tuple[Four | None, Four | None] = (None, None)
) -> Row:
    """Return the values of the series that are drawn, in their units."""
    row: Row = {"kind": kind, "repeat": "", "epoch": epoch, "running": None}
    for end, values in zip(("", "_low", "_high"), (mean, *band), strict=True):
        for index, name in enumerate(SERIES):
            metric = name.partition("_")[2]
            if metric in metrics:
                row[f"{name}{end}"] = None if values is None else rounded(UNITS[metric][0] * values[index])
    return row


def _onset_rows(data: CurvesData) -> list[Row]:
    """Return the mean validation loss of each over-fitting condition at the recorded epoch next to its onset."""
    rows: list[Row] = []
    for curves in data.curves:
        if curves.onset:
            point = min(curves.points, key=lambda one: abs(one.epoch - curves.onset))
            loss = rounded(point.mean[1])
            rows.append({"condition": curves.condition, "epoch": curves.onset, "val_loss": loss})
    return rows
