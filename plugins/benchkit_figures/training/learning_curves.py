"""Learning curves: loss and accuracy by epoch on training and validation images, for every condition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchkit import NothingToDraw, PluginError, card
from benchkit.analysis import onset
from benchkit.plan import Condition
from benchkit.results import StudyResults, Trial
from benchkit_figures.encodings import (
    by_condition,
    done_repeats,
    listed,
    other_losses,
    planned_labels,
    repeats_words,
    t_interval,
)
from benchkit_figures.training.curves import (
    ConditionCurves,
    CurvePoint,
    CurvesData,
    RepeatCurve,
    axis_ends,
    band_kind,
    overlaid,
    side_by_side,
    single_lines,
)

SERIES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")


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
        trials = {condition.key: done_repeats(results, condition) for condition in results.conditions}
        most = max((len(repeats) for repeats in trials.values()), default=0)
        band = self.band if self.band != "auto" else band_kind(most)

        def curves_of(condition: Condition) -> ConditionCurves | None:
            repeats = tuple(curve for trial in trials[condition.key] if (curve := _repeat(trial)).epochs)
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
    rows = [(record.epoch, tuple(float(getattr(record, name)) for name in SERIES)) for record in trial.history]
    kept = [(epoch, values) for epoch, values in rows if all(map(math.isfinite, values))]
    scored = trial.outcome.selected_epoch if trial.outcome else 0
    epochs = tuple(epoch for epoch, _ in kept)
    return RepeatCurve(
        index=trial.index,
        epochs=epochs,
        values=tuple((v[0], v[1], v[2], v[3]) for _, v in kept),
        scored_epoch=scored if scored in epochs else 0,
    )


def _points(repeats: Sequence[RepeatCurve], band: str) -> tuple[CurvePoint, ...]:
    at: dict[int, list[tuple[float, float, float, float]]] = {}
    for repeat in repeats:
        for epoch, values in zip(repeat.epochs, repeat.values, strict=True):
            at.setdefault(epoch, []).append(values)
    return tuple(_point(epoch, at[epoch], band) for epoch in sorted(at))


def _point(epoch: int, rows: Sequence[tuple[float, float, float, float]], band: str) -> CurvePoint:
    columns = list(zip(*rows, strict=True))
    intervals = [
        # A loss of other terms than cross-entropy may be below 0.
        t_interval(column, name.replace("_", ".") if min(column) >= 0 else "")
        for column, name in zip(columns, SERIES, strict=True)
    ]
    mean = tuple(interval.mean for interval in intervals)
    if band == "range":
        low, high = tuple(map(min, zip(*rows, strict=True))), tuple(map(max, zip(*rows, strict=True)))
    else:
        low, high = tuple(i.low for i in intervals), tuple(i.high for i in intervals)
    return CurvePoint(epoch=epoch, running=len(rows), mean=_four(mean), low=_four(low), high=_four(high))


def _four(values: tuple[float, ...]) -> tuple[float, float, float, float]:
    first, second, third, fourth = values
    return first, second, third, fourth


def _left_out(data: CurvesData) -> list[str]:
    parts = []
    missing = sum(curves.not_done for curves in data.curves)
    if missing:
        repeats = "1 repeat of these conditions is" if missing == 1 else f"{missing} repeats of these conditions are"
        parts.append(f"{repeats} not done and not shown.")
    if data.without:
        parts.append(f"Without a finished repeat: {', '.join(data.without)}.")
    return parts
