"""The gap between validation and training loss: how it grows over training, and where it stood in the end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import altair as alt

from benchkit import NothingToDraw, card
from benchkit.plan import Condition
from benchkit.results import EpochRecord, StudyResults, Trial
from benchkit_figures.encodings import (
    LEADING,
    OTHERS,
    WIDTH,
    Layers,
    by_condition,
    colour,
    dash,
    done_repeats,
    label_width,
    listed,
    other_losses,
    panel_columns,
    planned_labels,
    repeats_words,
    rounded,
    t_interval,
)
from benchkit_figures.training.curves import SeriesPoint, averaged, band_kind, band_words, epoch_axis, thinned

LONG = 110
"""Labels wider than this in pixels leave the curves too little room beside the points."""

TITLE = "Validation minus training loss (nats)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionGap:
    """A condition's gap (validation minus training loss, nats) by epoch and at the epoch whose weights were scored.

    `selected` is the mean over `n` repeats with its 95 % t interval `low` to `high` (all equal when n = 1).
    `evaluated` is the mean gap of the scored weights with both losses measured alike, without augmentation, dropout
    and penalties; None where the training split was not scored.
    """

    condition: str
    n: int
    points: tuple[SeriesPoint, ...]
    selected: float
    low: float
    high: float
    evaluated: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GapData:
    """The gaps of all conditions with a done repeat; `labels` are all planned ones, `band` is range or interval."""

    labels: tuple[str, ...]
    band: str
    gaps: tuple[ConditionGap, ...]
    without: tuple[str, ...]

    @property
    def epochs(self) -> set[int]:
        """Return all epochs of all curves."""
        return {point.epoch for gap in self.gaps for point in gap.points}


@card(
    title="Loss gap",
    summary="Validation loss minus training loss by epoch and at the selected epoch.",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class LossGap:
    """The gap by epoch, all conditions together up to `overlay` of them, else a panel each; and at the scored epoch."""

    overlay: int = 8

    def data(self, results: StudyResults) -> GapData:
        """Return the gap by epoch and at the selected epoch; epochs with a non-finite loss are left out."""
        if losses := other_losses(results):
            raise NothingToDraw(f"models were trained by {listed(losses)}: only the validation loss is cross-entropy")
        trials = {condition.key: done_repeats(results, condition) for condition in results.conditions}
        band = band_kind(max((len(repeats) for repeats in trials.values()), default=0))
        gaps, without = by_condition(results, lambda condition: _gap(condition, trials[condition.key], band))
        if not gaps:
            raise NothingToDraw("no repeat of any condition has finished with a recorded history")
        return GapData(labels=planned_labels(results), band=band, gaps=tuple(gaps), without=without)

    def draw(self, data: GapData) -> Any:
        """Return the curves, and beside or below them the gap at the selected epoch."""
        return gap_panels(data, self.overlay)

    def caption(self, data: GapData) -> str:
        """Return what the gap is, over how many repeats, what bands and bars are, and what the training loss holds."""
        n, several = repeats_words(gap.n for gap in data.gaps), any(gap.n > 1 for gap in data.gaps)
        band = "" if len(data.gaps) > self.overlay else f"; bands: {band_words(data.band)}"
        parts = ["Validation minus training loss (nats), by epoch and at the epoch whose weights were scored."]
        parts.append(
            f"Lines: mean over {n}{band}. Points: mean; bars: 95 % t interval over repeats."
            if several
            else "One repeat per condition, so there is no interval."
        )
        parts.append("Training loss is as the optimizer saw it, with augmentation, dropout and penalties.")
        if any(gap.evaluated is not None for gap in data.gaps):
            parts.append("Open diamonds: the gap of the scored weights without these, both losses measured alike.")
        if data.without:
            parts.append(f"Without a finished repeat: {listed(data.without)}.")
        return " ".join(parts)

    def alt_text(self, data: GapData) -> str:
        """Return one sentence with the smallest and the greatest gap at the selected epoch."""
        gaps = sorted(data.gaps, key=lambda gap: abs(gap.selected))
        first = f"At the scored epoch {gaps[0].condition} has "
        if len(gaps) == 1:
            return f"{first}a gap between validation and training loss of {gaps[0].selected:.4f} nats."
        return (
            f"{first}the smallest gap between validation and training loss, {gaps[0].selected:.4f} nats; "
            f"{gaps[-1].condition} has the greatest, {gaps[-1].selected:.4f} nats."
        )


def _gap(condition: Condition, trials: tuple[Trial, ...], band: str) -> ConditionGap | None:
    points = averaged(trials, _of_epoch, band)
    selected = [value for trial in trials if (value := _selected(trial)) is not None]
    if not points or not selected:
        return None
    evaluated = [value for trial in trials if (value := _evaluated(trial)) is not None]
    interval = t_interval(selected)
    return ConditionGap(
        condition=condition.label,
        n=interval.n,
        points=points,
        selected=interval.mean,
        low=interval.low,
        high=interval.high,
        evaluated=fmean(evaluated) if evaluated else None,
    )


def _of_epoch(record: EpochRecord) -> float:
    return record.val_loss - record.train_loss


def _selected(trial: Trial) -> float | None:
    """Return the gap at the epoch whose weights were scored; at the last epoch when that is not known."""
    if not trial.history:
        return None
    epoch = trial.outcome.selected_epoch if trial.outcome else 0
    record = next((record for record in trial.history if record.epoch == epoch), trial.history[-1])
    value = _of_epoch(record)
    return value if math.isfinite(value) else None


def _evaluated(trial: Trial) -> float | None:
    metrics = trial.outcome.metrics if trial.outcome else {}
    if "train" not in metrics or "val" not in metrics:
        return None
    value = metrics["val"].loss - metrics["train"].loss
    return value if math.isfinite(value) else None


def gap_panels(data: GapData, overlay: int) -> Any:
    """Return the curves beside the points; with more than `overlay` conditions, a small panel each above the points."""
    names = label_width([gap.condition for gap in data.gaps])
    if len(data.gaps) <= overlay and names > LONG:
        room = WIDTH - max(58, names + 16)
        return alt.vconcat(_curves(data, room), _ends(data, room), spacing=20)
    if len(data.gaps) <= overlay:
        return alt.hconcat(_curves(data, WIDTH - 285 - names), _ends(data, 190), spacing=16)
    # The rows below share the left edge of their plots, so the panels leave the labels of the points their room.
    room = WIDTH - max(58, names + 16)
    columns = panel_columns([gap.condition for gap in data.gaps], 5, 3)
    panels = [_own(data, index, columns, (room - 10 * (columns - 1)) // columns) for index in range(len(data.gaps))]
    many = alt.concat(*panels, columns=columns, data=alt.InlineData(values=_rows(data, 6)), spacing=10)
    return alt.vconcat(many, _ends(data, room), spacing=20)


def _curves(data: GapData, width: int) -> Layers:
    drawn = [gap.condition for gap in data.gaps]
    scale = alt.Scale(domain=_domain(data), nice=False, zero=False)
    base = alt.Chart(alt.InlineData(values=_rows(data, 1))).encode(
        x=epoch_axis(data.epochs, 6),
        color=colour(data.labels, drawn, "stroke"),
    )
    tooltip = [alt.Tooltip("condition:N"), alt.Tooltip("epoch:Q"), alt.Tooltip("mean:Q", format=".4f")]
    y = alt.Y("mean:Q", title=TITLE, scale=scale)
    line = base.mark_line(clip=True, point=len(data.epochs) == 1).encode(
        y=y, strokeDash=dash(data.labels, drawn), tooltip=tooltip
    )
    layers = [_zero(data, y), line]
    if any(gap.n > 1 for gap in data.gaps):
        band = base.mark_area(clip=True).encode(
            y=alt.Y("low:Q", title=TITLE, scale=scale), y2=alt.Y2("high:Q"), fillOpacity=alt.FillOpacityValue(0.15)
        )
        layers.insert(0, band)
    return alt.layer(*layers).properties(width=width, height=max(200, 24 * len(drawn)))


def _own(data: GapData, index: int, columns: int, width: int) -> Layers:
    label = data.gaps[index].condition
    left, bottom = index % columns == 0, index + columns >= len(data.gaps)
    y_axis = alt.Axis(labels=left, title="Gap (nats)" if left else None, tickCount=4)
    y = alt.Y("mean:Q", axis=y_axis, scale=alt.Scale(domain=_domain(data), nice=False, zero=False))
    base = alt.Chart().encode(x=epoch_axis(data.epochs, 4, labelled=bottom), y=y)
    own = base.transform_filter(alt.FieldEqualPredicate(field="condition", equal=label))
    layers = [
        _zero(data, y),
        base.mark_line(clip=True, strokeWidth=0.5, color=OTHERS, strokeOpacity=0.3).encode(
            detail=alt.Detail("condition:N")
        ),
        own.mark_line(clip=True, strokeWidth=2, color=LEADING, point=len(data.epochs) == 1),
    ]
    title = alt.TitleParams(label, limit=width, anchor="start", frame="group")
    return alt.layer(*layers).properties(width=width, height=62, title=title)


def _ends(data: GapData, width: int) -> Layers:
    """Return a row for each condition, smallest gap first: mean, interval, and the gap without augmentation."""
    order = [gap.condition for gap in sorted(data.gaps, key=lambda gap: abs(gap.selected))]
    rows = [
        {
            "condition": gap.condition,
            "selected": rounded(gap.selected),
            "low": rounded(gap.low),
            "high": rounded(gap.high),
            "evaluated": None if gap.evaluated is None else rounded(gap.evaluated),
            "n": gap.n,
        }
        for gap in data.gaps
    ]
    title = "Gap at the scored epoch (nats)"
    y = alt.Y("condition:N", sort=order, title=None, axis=alt.Axis(domain=False, ticks=False, grid=True))
    base = alt.Chart(alt.InlineData(values=rows)).encode(y=y, color=colour(data.labels, leading=order))
    x = alt.X("selected:Q", title=title, axis=alt.Axis(tickCount=4), scale=alt.Scale(zero=True, padding=6))
    tooltip = [alt.Tooltip(f"{name}:{kind}") for name, kind in (("condition", "N"), ("selected", "Q"), ("n", "Q"))]
    layers = [
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2=alt.X2("high:Q")),
        base.mark_point(shape="diamond", size=46, filled=False, strokeWidth=1.4).encode(
            x=alt.X("evaluated:Q", title=title)
        ),
        base.mark_point(filled=True, size=60, fillOpacity=1).encode(x=x, tooltip=tooltip),
    ]
    return alt.layer(*layers).properties(width=width, height=alt.Step(24 if len(order) <= 8 else 15))


def _zero(data: GapData, y: alt.Y) -> alt.Chart:
    """Return the line of no gap, if it is within the axis."""
    low, high = _domain(data)
    rows = [{"mean": 0}] if low <= 0 <= high else []
    rule: alt.Chart = alt.Chart(alt.InlineData(values=rows)).mark_rule(strokeOpacity=0.5, strokeDash=[2, 2])
    return rule.encode(y=y)


def _domain(data: GapData) -> list[float]:
    """Return the axis ends; gaps far outside nearly all others, as in the first epochs, do not flatten the rest."""
    values = sorted(point.mean for gap in data.gaps for point in gap.points)
    low, high = values[0], values[-1]
    few, most = values[int(0.03 * (len(values) - 1))], values[int(0.97 * (len(values) - 1))]
    reach = most - few
    if reach > 0:
        low, high = max(low, few - reach), min(high, most + reach)
    low, high = min(low, 0.0), max(high, 0.0)
    pad = 0.05 * (high - low) or 1.0
    return [rounded(low - pad), rounded(high + pad)]


def _rows(data: GapData, coarse: int) -> list[dict[str, Any]]:
    return [
        {
            "condition": gap.condition,
            "epoch": point.epoch,
            "mean": rounded(point.mean),
            "low": rounded(point.low),
            "high": rounded(point.high),
        }
        for gap in data.gaps
        for point in thinned(gap.points, coarse)
    ]
