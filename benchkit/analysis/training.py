"""What training was like: costs, speed, over-fitting, the gap to validation, time to an accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

from benchkit.analysis.estimates import Estimate, compared, done_repeats, estimate, estimate_metric
from benchkit.analysis.wording import Finding, amount, count, listing, measured, metric_words, names, number, quoted
from benchkit.duration import duration
from benchkit.results import EpochRecord, StudyResults

if TYPE_CHECKING:
    from benchkit.plan import Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionCost:
    """The cost of one condition over its done repeats; `epochs` is the mean number of epochs trained.

    `best_seconds`, `energy` and `matrix_share` are None where no repeat knows them.
    `devices` and `precisions` list every one that occurred: times on different devices do not compare.
    """

    key: str
    label: str
    parameters: int
    flops: int
    epochs: float
    seconds: Estimate
    images_per_second: Estimate
    peak_memory: Estimate
    best_seconds: Estimate | None
    energy: Estimate | None
    matrix_share: Estimate | None
    devices: tuple[str, ...]
    precisions: tuple[str, ...]


def condition_costs(results: StudyResults) -> tuple[ConditionCost, ...]:
    """Return the cost of every condition that has a done repeat with a recorded cost, in report order."""
    rows = [_cost(results, condition) for condition in compared(results)]
    return tuple(row for row in rows if row is not None)


def _cost(results: StudyResults, condition: Condition) -> ConditionCost | None:
    trials = [t for t in done_repeats(results, condition).values() if t.outcome is not None and t.outcome.cost]
    costs = [trial.outcome.cost for trial in trials if trial.outcome and trial.outcome.cost]
    if not costs:
        return None
    return ConditionCost(
        key=condition.key,
        label=condition.label,
        parameters=costs[0].parameters,
        flops=costs[0].flops,
        epochs=sum(len(trial.history) for trial in trials) / len(trials),
        seconds=estimate_metric("cost.seconds", [cost.seconds for cost in costs]),
        images_per_second=estimate_metric("cost.images_per_second", [cost.images_per_second for cost in costs]),
        peak_memory=estimate_metric("cost.peak_memory", [cost.peak_memory for cost in costs]),
        best_seconds=_known("cost.best_seconds", [cost.best_seconds for cost in costs]),
        energy=_known("cost.energy", [cost.energy for cost in costs]),
        matrix_share=_known("cost.matrix_share", [cost.matrix_share for cost in costs]),
        devices=_distinct([cost.device for cost in costs]),
        precisions=_distinct([cost.precision for cost in costs]),
    )


def _known(metric: str, values: Sequence[float]) -> Estimate | None:
    """Return the estimate over the values above 0, which stands for not known."""
    known = [value for value in values if value > 0]
    return estimate_metric(metric, known) if known else None


def training_seconds(results: StudyResults) -> float:
    """Return the seconds that all trials of the study trained, whatever became of them, from their histories."""
    return sum(record.seconds for trial in results.trials for record in trial.history)


def _distinct(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def speed_findings(costs: Sequence[ConditionCost]) -> list[Finding]:
    """Say how far training speed differs between conditions that ran on one device."""
    rows = sorted(costs, key=lambda row: -row.images_per_second.mean)
    devices = {device for row in rows for device in row.devices}
    if len(rows) < 2 or len(devices) != 1 or rows[-1].images_per_second.mean <= 0:
        return []
    fast, slow = rows[0].images_per_second, rows[-1].images_per_second
    ratio = fast.mean / slow.mean
    if ratio < 1.2:
        return []
    sentence = f"{quoted(rows[0].label)} trains {number(ratio, 2)} times as fast as {quoted(rows[-1].label)}."
    if fast.low is not None and slow.high is not None and fast.low <= slow.high:
        sentence = (
            "No condition can be called faster: training speed varies between repeats as much as between conditions, "
            "as on a machine that does other work too."
        )
    return [
        Finding(
            rule="speed",
            tone="note",
            sentence=sentence,
            evidence=f"{metric_words('cost.images_per_second').capitalize()}, mean over repeats on {devices.pop()}: "
            f"{_speed(rows[0].label, fast)}, {_speed(rows[-1].label, slow)}.",
            about=(rows[0].label, rows[-1].label),
        )
    ]


def _speed(label: str, speed: Estimate) -> str:
    words = f"{quoted(label)} {number(speed.mean)}"
    if speed.low is None or speed.high is None:
        return words
    return f"{words} (95 % t interval {number(speed.low)} to {number(speed.high)})"


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
    overfitted = [(history, least) for history in histories if (least := overfits(history)) is not None]
    if 2 * len(overfitted) <= len(histories) or not overfitted:
        return None
    return OverfittingOnset(
        key=condition.key,
        label=condition.label,
        epoch=float(median(least.epoch for _, least in overfitted)),
        epochs=float(median(len(history) for history, _ in overfitted)),
        rise=fmean(history[-1].val_loss / least.val_loss - 1 for history, least in overfitted),
        repeats=len(overfitted),
        of=len(histories),
    )


def time_to_accuracy(results: StudyResults) -> TimeToAccuracy | None:
    """Return how fast conditions reach nine tenths of the best mean of final validation accuracies, in whole percent.

    None when no repeat has a history.
    """
    histories = {c.key: [t.history for t in done_repeats(results, c).values() if t.history] for c in compared(results)}
    tops = [
        fmean(max(r.val_accuracy for r in history) for history in repeats) for repeats in histories.values() if repeats
    ]
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
