"""What training was like: over-fitting, the gap to validation, the time to an accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean, median_low
from typing import TYPE_CHECKING

from benchkit.analysis.costs import ConditionCost, comparable_times
from benchkit.analysis.estimates import Estimate, compared, done_repeats, estimate
from benchkit.analysis.wording import (
    Finding,
    amount,
    bare,
    count,
    difference_unit,
    listing,
    measured,
    names,
    number,
    quoted,
)
from benchkit.duration import duration
from benchkit.results import EpochRecord, StudyResults, Trial

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


LEARNT = 0.9
"""Below this share of the loss of guessing among all classes a network has learnt something."""


def overfits_in(trial: Trial) -> EpochRecord | None:
    """Return the record of a trial's least validation loss when the network over-fits after it, else None.

    The training loss of an epoch is that of training mode, with dropout, penalties and augmentation, so a network that
    fails in evaluation mode can look as if it over-fitted. So its scored weights must name training images in
    evaluation mode with less loss than validation images, and with less than `LEARNT` times that of guessing, log(K) of
    K classes. A trial that was not scored on train is held to the latter by its validation loss, and to a training loss
    below it.
    """
    least = overfits(trial.history)
    if least is None:
        return None
    scored = trial.outcome.metrics if trial.outcome else {}
    train, val = scored.get("train"), scored.get("val")
    fitted, unseen = (train.loss, val.loss) if train and val else (trial.history[-1].train_loss, least.val_loss)
    classes = max((len(metrics.class_accuracy) for metrics in scored.values()), default=0)
    learns = classes < 2 or min(fitted, unseen) < LEARNT * log(classes)
    return least if learns and fitted < unseen else None


def overfitting_onset(results: StudyResults, condition: Condition) -> OverfittingOnset | None:
    """Return when over-fitting sets in, if more than half of the condition's done repeats show it.

    Epochs are the lower medians over those repeats, so that they are epochs.
    """
    trials = [trial for trial in done_repeats(results, condition).values() if trial.history]
    overfitted = [(trial.history, least) for trial in trials if (least := overfits_in(trial)) is not None]
    if 2 * len(overfitted) <= len(trials) or not overfitted:
        return None
    return OverfittingOnset(
        key=condition.key,
        label=condition.label,
        epoch=float(median_low(least.epoch for _, least in overfitted)),
        epochs=float(median_low(len(history) for history, _ in overfitted)),
        rise=fmean(history[-1].val_loss / least.val_loss - 1 for history, least in overfitted),
        repeats=len(overfitted),
        of=len(trials),
    )


def time_to_accuracy(results: StudyResults) -> TimeToAccuracy | None:
    """Return how fast conditions reach nine tenths of the best mean of final validation accuracies, in whole percent.

    None when no repeat has a history, or when every repeat is there after its first epoch: that tells nothing.
    """
    histories = {c.key: [t.history for t in done_repeats(results, c).values() if t.history] for c in compared(results)}
    tops = [
        fmean(max(r.val_accuracy for r in history) for history in repeats) for repeats in histories.values() if repeats
    ]
    if not tops:
        return None
    accuracy = int(90 * max(tops)) / 100
    conditions = [_reached(c, histories[c.key], accuracy) for c in compared(results) if histories[c.key]]
    if all(reached.epochs == 1 and reached.repeats == reached.of for reached in conditions):
        return None
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
    ordered = sorted(onsets, key=lambda onset: -onset.rise)
    if not ordered:
        return []
    parts = [
        f"{quoted(onset.label)} from epoch {onset.epoch:g} of {onset.epochs:g} (validation loss "
        f"+{100 * onset.rise:.0f} % by the last epoch, {onset.repeats} of {count(onset.of, 'repeat')})"
        for onset in ordered
    ]
    first = min(ordered, key=lambda onset: onset.epoch / onset.epochs)
    earliest = "" if len(ordered) == 1 else f" in {quoted(first.label)}, the earliest"
    return [
        Finding(
            rule="over-fitting",
            tone="note",
            sentence=f"{names([onset.label for onset in ordered])} over-{'fits' if len(ordered) == 1 else 'fit'}: "
            f"validation loss rises after epoch {first.epoch:g}{earliest}.",
            evidence=f"Least validation loss: {listing(parts, most=8)}.",
            about=tuple(onset.label for onset in ordered),
        )
    ]


def fastest_findings(race: TimeToAccuracy | None, costs: Sequence[ConditionCost]) -> list[Finding]:
    """Say which condition reaches a stated validation accuracy first: in seconds where times compare, else in epochs.

    Nothing is said of fewer than two conditions, and of epochs where no condition is one epoch ahead.
    """
    if race is None or len(race.arrivals) < 2:
        return []
    complete = [row for row in race.arrivals if row.seconds is not None and row.repeats == row.of]
    goal = f"a validation accuracy of {measured('val.accuracy', race.accuracy)}"
    if comparable_times(costs):
        return [_quickest(goal, complete[0], race.arrivals)] if complete else []
    ahead = sorted(complete, key=lambda row: row.epochs or 0.0)
    others = [row.epochs for row in race.arrivals if row.epochs is not None and row is not ahead[0]] if ahead else []
    if not ahead or min(others, default=float("inf")) - (ahead[0].epochs or 0.0) < 1:
        return []
    return [_fewest_epochs(goal, ahead[0], race.arrivals)]


def _quickest(goal: str, first: ReachedAccuracy, arrivals: Sequence[ReachedAccuracy]) -> Finding:
    assert first.seconds is not None and first.epochs is not None
    parts = [_arrival(row, duration(row.seconds or 0.0)) for row in arrivals if row is not first]
    return Finding(
        rule="fastest",
        tone="note",
        sentence=f"{quoted(first.label)} is the fastest to {goal}: {duration(first.seconds)} of training, "
        f"{_epochs(first.epochs)}.",
        evidence=f"Means over repeats that reach it; the others: {listing(parts, most=8)}. Times compare only on one "
        "device.",
        about=(first.label,),
    )


def _fewest_epochs(goal: str, first: ReachedAccuracy, arrivals: Sequence[ReachedAccuracy]) -> Finding:
    assert first.epochs is not None
    parts = [_arrival(row, _epochs(row.epochs or 0.0)) for row in arrivals if row is not first]
    return Finding(
        rule="fastest",
        tone="note",
        sentence=f"{quoted(first.label)} needs the fewest epochs to {goal}: {number(first.epochs, 3)}.",
        evidence=f"Means over repeats that reach it; the others: {listing(parts, most=8)}. Times are not compared: it "
        "is not known that the device was as fast for one condition as for another.",
        about=(first.label,),
    )


def _arrival(reached: ReachedAccuracy, words: str) -> str:
    if reached.seconds is None:
        return f"{quoted(reached.label)} never"
    return f"{quoted(reached.label)} {words}{'' if reached.repeats == reached.of else ' (not every repeat)'}"


def _epochs(mean: float) -> str:
    """Return a mean number of epochs: 1 epoch, 4.33 epochs."""
    return f"{number(mean, 3)} {'epoch' if mean == 1 else 'epochs'}"


def gap_findings(gaps: Sequence[Gap]) -> list[Finding]:
    """Say which condition loses most between train and validation images, and where the two differ least."""
    rows = sorted(gaps, key=lambda row: -row.difference.mean)
    if not rows or rows[0].difference.mean < WIDE_GAP:
        return []
    widest, least = rows[0], min(rows, key=lambda row: abs(row.difference.mean))
    other = f"; the narrowest is {_signed_gap(least)}, {quoted(least.label)}" if len(rows) > 1 else ""
    return [
        Finding(
            rule="train-val-gap",
            tone="note",
            sentence=f"{quoted(widest.label)} has the widest gap between train and validation accuracy, "
            f"{amount('val.accuracy', widest.difference.mean)}{other}.",
            evidence=f"Train minus validation, scored by the same weights without augmentation, mean over "
            f"{count(widest.difference.n, 'repeat')}.",
            about=tuple(dict.fromkeys((widest.label, least.label))),
        )
    ]


def _signed_gap(gap: Gap) -> str:
    return f"{bare('val.accuracy', gap.difference.mean)} {difference_unit('val.accuracy')}"


def train_val_gap(results: StudyResults, condition: Condition) -> Gap | None:
    """Return train minus validation accuracy, paired within repeats, or None where no repeat has both."""
    differences = [
        trial.score("train.accuracy") - trial.score("val.accuracy")
        for trial in done_repeats(results, condition).values()
        if trial.outcome and {"train", "val"} <= trial.outcome.metrics.keys()
    ]
    if not differences:
        return None
    return Gap(key=condition.key, label=condition.label, difference=estimate(differences, resampled=results.resampled))
