"""What learning curves tell: the epoch where over-fitting sets in, and how fast an accuracy is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

from benchkit.analysis.estimates import Estimate, estimate
from benchkit.analysis.findings import Finding
from benchkit.analysis.selectors import compared, done_repeats
from benchkit.analysis.wording import (
    amount,
    count,
    listing,
    measured,
    names,
    number,
    quoted,
)
from benchkit.duration import duration
from benchkit.results import EpochRecord, StudyResults

if TYPE_CHECKING:
    from benchkit.plan import Condition

RISE = 0.05
"""By how much of its minimum the validation loss must have risen for over-fitting to be stated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverfittingOnset:
    """Over-fitting in a condition: the median epoch of least validation loss, and in how many repeats it was seen."""

    key: str
    label: str
    epoch: float
    epochs: float
    rise: float
    repeats: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedAccuracy:
    """When a condition first reached a validation accuracy: means over the `repeats` of `of` that reached it."""

    key: str
    label: str
    epochs: float | None
    seconds: float | None
    repeats: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeToAccuracy:
    """A validation accuracy, and when each condition first reached it, fastest in seconds first."""

    accuracy: float
    arrivals: tuple[ReachedAccuracy, ...]


def overfits(history: Sequence[EpochRecord]) -> EpochRecord | None:
    """Return the record of least validation loss when over-fitting follows it, else None.

    It follows when the last validation loss is more than `RISE` above the least one while the training loss fell.
    """
    if len(history) < 3:
        return None
    least = min(history, key=lambda record: record.val_loss)
    last = history[-1]
    rose = last.val_loss > (1 + RISE) * least.val_loss
    return least if rose and last.train_loss < least.train_loss else None


def overfitting_onset(results: StudyResults, condition: Condition) -> OverfittingOnset | None:
    """Return when over-fitting sets in, if more than half of the condition's done repeats show it."""
    histories = [trial.history for trial in done_repeats(results, condition).values() if trial.history]
    found = [(history, least) for history in histories if (least := overfits(history)) is not None]
    if 2 * len(found) <= len(histories) or not found:
        return None
    return OverfittingOnset(
        key=condition.key,
        label=condition.label,
        epoch=float(median(least.epoch for _, least in found)),
        epochs=float(median(len(history) for history, _ in found)),
        rise=fmean(history[-1].val_loss / least.val_loss - 1 for history, least in found),
        repeats=len(found),
        of=len(histories),
    )


def time_to_accuracy(results: StudyResults) -> TimeToAccuracy | None:
    """Return how fast conditions reach nine tenths of the best mean of final validation accuracies, in whole percent.

    None when no repeat has a history.
    """
    histories = {c.key: [t.history for t in done_repeats(results, c).values() if t.history] for c in compared(results)}
    tops = [fmean(max(r.val_accuracy for r in history) for history in found) for found in histories.values() if found]
    if not tops:
        return None
    accuracy = int(90 * max(tops)) / 100
    conditions = [_reached(c, histories[c.key], accuracy) for c in compared(results) if histories[c.key]]
    conditions.sort(key=lambda condition: (condition.of - condition.repeats, condition.seconds or 0.0))
    return TimeToAccuracy(accuracy=accuracy, arrivals=tuple(conditions))


def _reached(condition: Condition, histories: Sequence[Sequence[EpochRecord]], accuracy: float) -> ReachedAccuracy:
    reached: list[tuple[int, float]] = []
    for history in histories:
        first = next((i for i, record in enumerate(history) if record.val_accuracy >= accuracy), None)
        if first is not None:
            reached.append((history[first].epoch, sum(record.seconds for record in history[: first + 1])))
    return ReachedAccuracy(
        key=condition.key,
        label=condition.label,
        epochs=fmean(epoch for epoch, _ in reached) if reached else None,
        seconds=fmean(seconds for _, seconds in reached) if reached else None,
        repeats=len(reached),
        of=len(histories),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Train and validation accuracy of a condition, paired within its repeats: how much of what it learnt transfers."""

    key: str
    label: str
    difference: Estimate


WIDE_GAP = 0.05
"""From this difference between train and validation accuracy on, the gap is worth a sentence."""


def overfitting_findings(onsets: Sequence[OverfittingOnset]) -> list[Finding]:
    """Say in which conditions validation loss rises while training loss falls, and from which epoch on."""
    found = sorted(onsets, key=lambda onset: -onset.rise)
    if not found:
        return []
    parts = [
        f"{quoted(onset.label)} from epoch {onset.epoch:g} of {onset.epochs:g} (validation loss "
        f"+{100 * onset.rise:.0f} % by the last epoch, {onset.repeats} of {count(onset.of, 'repeat')})"
        for onset in found
    ]
    first = min(found, key=lambda onset: onset.epoch / onset.epochs)
    earliest = "" if len(found) == 1 else f" in {quoted(first.label)}, the earliest"
    return [
        Finding(
            rule="over-fitting",
            tone="note",
            sentence=f"{names([onset.label for onset in found])} over-{'fits' if len(found) == 1 else 'fit'}: "
            f"validation loss rises after epoch {first.epoch:g}{earliest}.",
            evidence=f"Least validation loss: {listing(parts, most=8)}.",
            about=tuple(onset.label for onset in found),
        )
    ]


def fastest_findings(race: TimeToAccuracy | None) -> list[Finding]:
    """Say which condition reaches a stated validation accuracy first, in seconds of training."""
    if race is None:
        return []
    complete = [reached for reached in race.arrivals if reached.seconds is not None and reached.repeats == reached.of]
    if len(race.arrivals) < 2 or not complete:
        return []
    first = complete[0]
    rest = [reached for reached in race.arrivals if reached is not first]
    parts = [
        f"{quoted(reached.label)} {duration(reached.seconds)}"
        + ("" if reached.repeats == reached.of else " (not every repeat)")
        if reached.seconds is not None
        else f"{quoted(reached.label)} never"
        for reached in rest
    ]
    assert first.seconds is not None and first.epochs is not None
    return [
        Finding(
            rule="fastest",
            tone="note",
            sentence=f"{quoted(first.label)} is the fastest to a validation accuracy of "
            f"{measured('val.accuracy', race.accuracy)}: "
            f"{duration(first.seconds)} of training, {_epochs(first.epochs)}.",
            evidence=f"Means over repeats that reach it; the others: {listing(parts, most=8)}. Times compare "
            f"only on one "
            "device.",
            about=(first.label,),
        )
    ]


def _epochs(mean: float) -> str:
    """Return a mean number of epochs: 1 epoch, 4.33 epochs."""
    return f"{number(mean, 3)} {'epoch' if mean == 1 else 'epochs'}"


def gap_findings(gaps: Sequence[Gap]) -> list[Finding]:
    """Say which condition loses most between train and validation images."""
    rows = sorted(gaps, key=lambda row: -row.difference.mean)
    if not rows or rows[0].difference.mean < WIDE_GAP:
        return []
    widest, least = rows[0], rows[-1]
    other = (
        f"; the narrowest gap is {amount('val.accuracy', least.difference.mean)}, {quoted(least.label)}"
        if len(rows) > 1
        else ""
    )
    return [
        Finding(
            rule="train-val-gap",
            tone="note",
            sentence=f"{quoted(widest.label)} has the widest gap between train and validation accuracy, "
            f"{amount('val.accuracy', widest.difference.mean)}{other}.",
            evidence=f"Scored by the same weights without augmentation, mean over "
            f"{count(widest.difference.n, 'repeat')}.",
            about=(widest.label,),
        )
    ]


def train_val_gap(results: StudyResults, condition: Condition) -> Gap | None:
    """Return train minus validation accuracy, paired within repeats, or None where no repeat has both."""
    differences = [
        trial.score("train.accuracy") - trial.score("val.accuracy")
        for trial in done_repeats(results, condition).values()
        if trial.outcome and {"train", "val"} <= trial.outcome.metrics.keys()
    ]
    return Gap(key=condition.key, label=condition.label, difference=estimate(differences)) if differences else None
