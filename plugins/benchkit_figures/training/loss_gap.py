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
    WIDTH,
    Layers,
    by_condition,
    colour,
    dash,
    done_repeats,
    label_width,
    left_out,
    listed,
    other_losses,
    panel_columns,
    planned_labels,
    repeats_words,
    rounded,
    t_interval,
)
from benchkit_figures.training.curves import (
    SeriesPoint,
    SmallPanel,
    averaged,
    band_kind,
    band_words,
    epoch_axis,
    grey_lines,
    series_rows,
    small_panels,
    thinned,
)

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
        band = band_kind(results)
        gaps, without = by_condition(results, lambda condition: _gap(results, condition, band))
        if not gaps:
            raise NothingToDraw("no repeat of any condition has finished with a recorded history")
        return GapData(labels=planned_labels(results), band=band, gaps=tuple(gaps), without=without)

    def draw(self, data: GapData) -> Any:
        """Return the curves, and beside or below them the gap at the selected epoch.

        With more than `overlay` conditions, a small panel each stands above it.
        """
        labels = [gap.condition for gap in data.gaps]
        names = label_width(labels)
        # Rows below share the left edge of their plots, so what is above leaves the labels of the points their room.
        room = WIDTH - max(58, names + 16)
        if len(labels) > self.overlay:
            columns = panel_columns(labels, 5, 3)
            many = small_panels(labels, lambda panel: _own(data, panel), _rows(data, 6), columns=columns, room=room)
            return alt.vconcat(many, _ends(data, room), spacing=20)
        if names > LONG:
            return alt.vconcat(_curves(data, room), _ends(data, room), spacing=20)
        return alt.hconcat(_curves(data, WIDTH - 285 - names), _ends(data, 190), spacing=16)

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
        return " ".join([*parts, *left_out("Without a finished repeat", data.without)])

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


def _gap(results: StudyResults, condition: Condition, band: str) -> ConditionGap | None:
    trials = done_repeats(results, condition)
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


def _own(data: GapData, panel: SmallPanel) -> Layers:
    scale = alt.Scale(domain=_domain(data), nice=False, zero=False)
    y = alt.Y("mean:Q", axis=panel.y_axis("Gap (nats)"), scale=scale)
    base = alt.Chart().encode(x=epoch_axis(data.epochs, 4, labelled=panel.bottom), y=y)
    own = panel.own(base).mark_line(clip=True, strokeWidth=2, color=LEADING, point=len(data.epochs) == 1)
    return alt.layer(_zero(data, y), grey_lines(base), own).properties(width=panel.width, height=62)


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
    return [row for gap in data.gaps for row in series_rows(gap.condition, thinned(gap.points, coarse))]
