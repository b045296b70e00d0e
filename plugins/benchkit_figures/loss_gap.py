"""The gap between validation and training loss: how it grows over training, and where it stood in the end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchkit import NothingToDraw, card
from benchkit.plan import Condition
from benchkit.results import EpochRecord, StudyResults, Trial
from benchkit_figures.conditions import planned_labels
from benchkit_figures.epoch_series import SeriesPoint, averaged, band_kind, band_words, listed, repeats_words
from benchkit_figures.gap_panels import gap_panels
from benchkit_figures.metrics import done_repeats, t_interval


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
        trials = {condition.key: done_repeats(results, condition) for condition in results.conditions}
        band = band_kind(max((len(repeats) for repeats in trials.values()), default=0))
        gaps, without = [], []
        for condition in results.conditions:
            gap = _gap(condition, trials[condition.key], band)
            if gap is not None:
                gaps.append(gap)
            elif condition.kind != "search":
                without.append(condition.label)
        if not gaps:
            raise NothingToDraw("no repeat of any condition has finished with a recorded history")
        return GapData(labels=planned_labels(results), band=band, gaps=tuple(gaps), without=tuple(without))

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
