"""A metric that a study asks for, by epoch on the validation images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt

from benchkit import NothingToDraw, card
from benchkit.metrics import epoch_readings
from benchkit.plan import Condition
from benchkit.results import StudyResults
from benchkit_figures.encodings import (
    WIDTH,
    by_condition,
    colour,
    dash,
    done_repeats,
    left_out,
    planned_labels,
    quantity,
    repeats_words,
)
from benchkit_figures.training.curves import (
    SeriesPoint,
    averaged,
    band_kind,
    band_words,
    epoch_axis,
    most_running,
    series_rows,
    thinned,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionCurve:
    """A condition's metric by epoch, over up to `n` repeats."""

    condition: str
    n: int
    points: tuple[SeriesPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricData:
    """The curves of `metric`, of which less is better where `lower`; `labels` are all planned conditions."""

    metric: str
    lower: bool
    labels: tuple[str, ...]
    band: str
    curves: tuple[ConditionCurve, ...]
    without: tuple[str, ...]


@card(
    title="Metric by epoch",
    summary="A metric that the study asks for, on the validation images after every epoch, mean over repeats.",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class MetricCurves:
    """A line for each condition: `metric`, such as `brier`, or the first asked for that epochs are read by.

    Epochs in which it is undefined are left out.
    """

    metric: str = ""

    def data(self, results: StudyResults) -> MetricData:
        """Return mean and band by epoch; raise `NothingToDraw` where no epoch was read by such a metric."""
        named = [self.metric] if self.metric else [*results.study.named_metrics]
        asked = epoch_readings(named)
        if not asked:
            raise NothingToDraw("the study asks for no metric that epochs are read by, beside loss and accuracy")
        metric = f"val.{asked[0].name}"
        band = band_kind(results)

        def curve_of(condition: Condition) -> ConditionCurve | None:
            points = averaged(done_repeats(results, condition), lambda record: record.score(metric), band, metric)
            curve = ConditionCurve(condition=condition.label, n=most_running(points), points=points)
            return curve if points else None

        curves, without = by_condition(results, curve_of)
        if not curves:
            raise NothingToDraw(f"no epoch of a finished repeat was read by {metric}: it is read while trials train")
        return MetricData(
            metric=metric,
            lower=asked[0].lower_is_better,
            labels=planned_labels(results),
            band=band,
            curves=tuple(curves),
            without=without,
        )

    def draw(self, data: MetricData) -> Any:
        """Return one panel with a line and a band for each condition."""
        unit = quantity(data.metric)
        rows = [row for curve in data.curves for row in series_rows(curve.condition, thinned(curve.points), unit.shown)]
        drawn = [curve.condition for curve in data.curves]
        epochs = {point.epoch for curve in data.curves for point in curve.points}
        y = alt.Y("mean:Q", title=unit.title, scale=alt.Scale(zero=False))
        base = alt.Chart(alt.InlineData(values=rows)).encode(
            x=epoch_axis(epochs, 8), color=colour(data.labels, drawn, "stroke")
        )
        tooltip = [alt.Tooltip("condition:N"), alt.Tooltip("epoch:Q"), alt.Tooltip("mean:Q", format=".4g")]
        layers = [
            base.mark_line(point=len(epochs) == 1).encode(y=y, strokeDash=dash(data.labels, drawn), tooltip=tooltip)
        ]
        if len(drawn) <= MOST_BANDS and any(curve.n > 1 for curve in data.curves):
            layers.insert(
                0,
                base.mark_area().encode(y=alt.Y("low:Q"), y2=alt.Y2("high:Q"), fillOpacity=alt.FillOpacityValue(0.15)),
            )
        return alt.layer(*layers).properties(width=WIDTH - 230, height=260)

    def caption(self, data: MetricData) -> str:
        """Return what is shown, over how many repeats, what the bands are, and which way is better."""
        n, several = repeats_words(curve.n for curve in data.curves), any(curve.n > 1 for curve in data.curves)
        parts = [f"{quantity(data.metric).capital} by epoch; {'less' if data.lower else 'more'} is better."]
        bands = f"; bands: {band_words(data.band)}" if len(data.curves) <= MOST_BANDS else ""
        parts.append(f"Lines: mean over {n}{bands}." if several else "One repeat per condition.")
        parts += left_out("Without a finished repeat", data.without)
        return " ".join(parts)

    def alt_text(self, data: MetricData) -> str:
        """Return one sentence with the best condition in its last epoch."""
        unit = quantity(data.metric)
        best = (min if data.lower else max)(data.curves, key=lambda curve: curve.points[-1].mean)
        last = best.points[-1]
        return (
            f"In its last epoch, {last.epoch}, {best.condition} has the best {unit.name}, {unit.shown(last.mean):.4g}."
        )


MOST_BANDS = 8
"""Of more conditions bands would hide one another."""
