"""How training went and what it cost: time, speed, memory, devices; accuracies reached, overfitting, and gaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean, median_low

from benchkit.analysis.estimates import Estimate, compared, done_repeats, estimate, estimate_metric
from benchkit.analysis.wording import (
    Finding,
    amount,
    bare,
    count,
    difference_unit,
    duration,
    listing,
    measured,
    metric_words,
    names,
    number,
    quoted,
)
from benchkit.plan import Condition
from benchkit.results import DeviceRange, EpochRecord, StudyResults, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedOn:
    """So many trials were trained by these models of devices, one after the other where they are several."""

    devices: tuple[str, ...]
    trials: int


def device_names(trial: Trial) -> tuple[str, ...]:
    """Return the models of the devices that trained a trial, each once, in order; none where they are not known."""
    return tuple(dict.fromkeys(one.device for one in trial.devices))


def trained_on(results: StudyResults) -> tuple[TrainedOn, ...]:
    """Return which devices trained how many of a study's trials, those of unknown devices left out."""
    counts = Counter(device_names(trial) for trial in results.trials)
    return tuple(TrainedOn(devices=devices, trials=trials) for devices, trials in counts.items() if devices)


def several_nodes(trials: Iterable[Trial]) -> bool:
    """Return whether trials were trained on more than one node."""
    return len({one.node for trial in trials for one in trial.devices if one.node}) > 1


def where_trained(trial: Trial, *, nodes: bool) -> str:
    """Return the device of each range of a trial's epochs in words, with its node if `nodes`; empty if not known."""
    ranges = trial.devices
    if len(ranges) < 2:
        return "".join(_place(one, nodes) for one in ranges)
    return "; ".join(f"{_range_of_epochs(one)} {_place(one, nodes)}" for one in ranges)


def _place(one: DeviceRange, nodes: bool) -> str:
    return f"{one.device} on {one.node}" if nodes and one.node else one.device


def _range_of_epochs(one: DeviceRange) -> str:
    return f"epoch {one.first}:" if one.first == one.last else f"epochs {one.first} to {one.last}:"


def device_findings(rows: Sequence[TrainedOn]) -> Iterator[Finding]:
    """Say that a study was trained by several models of devices, whose speeds are not compared."""
    devices = list(dict.fromkeys(device for row in rows for device in row.devices))
    if len(devices) < 2:
        return
    parts = [f"{count(row.trials, 'trial')} on {', then '.join(row.devices)}" for row in rows]
    yield Finding(
        rule="devices",
        sentence=f"Trials were trained on {len(devices)} kinds of device, so no speeds are compared: "
        f"{listing(devices)}.",
        evidence=f"{'; '.join(parts)}.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionCost:
    """The cost of one condition over its done repeats on `devices`; `epochs` is the mean number of epochs trained.

    `best_seconds`, `energy` and `matrix_share` are None where no repeat knows them. `devices` are several where repeats
    began on one and went on on another; `precisions` list every one that occurred.
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
    """Return the cost of every condition that has a done repeat with a recorded cost, in report order.

    A condition has a row for each device that trained repeats of it: times on different devices do not compare.
    """
    rows = []
    for condition in compared(results):
        by_devices: dict[tuple[str, ...], list[Trial]] = {}
        for trial in done_repeats(results, condition).values():
            if trial.outcome is not None and trial.outcome.cost:
                by_devices.setdefault(device_names(trial), []).append(trial)
        rows += [_cost(condition, devices, trials) for devices, trials in by_devices.items()]
    return tuple(rows)


def _cost(condition: Condition, devices: tuple[str, ...], trials: Sequence[Trial]) -> ConditionCost:
    costs = [trial.outcome.cost for trial in trials if trial.outcome and trial.outcome.cost]
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
        devices=devices,
        precisions=tuple(dict.fromkeys(cost.precision for cost in costs)),
    )


def _known(metric: str, values: Sequence[float]) -> Estimate | None:
    """Return the estimate over the values above 0, which stands for not known."""
    known = [value for value in values if value > 0]
    return estimate_metric(metric, known) if known else None


def training_seconds(results: StudyResults) -> float:
    """Return the seconds that all trials of the study trained, whatever became of them, from their histories."""
    return sum(record.seconds for trial in results.trials for record in trial.history)


STEADY = 0.1
"""Up to this standard deviation of a condition's training speed over its repeats, as a share of the mean, times tell of
the condition; beyond it they tell of what else the machine did."""


def comparable_times(costs: Sequence[ConditionCost]) -> bool:
    """Return whether times of conditions can be held against each other.

    They can when all ran on one device and every condition's speed is known to vary by `STEADY` at most.
    """
    devices = {device for row in costs for device in row.devices}
    speeds = [row.images_per_second for row in costs]
    return len(devices) == 1 and all(s.std is not None and s.std <= STEADY * s.mean for s in speeds)


def speed_findings(costs: Sequence[ConditionCost]) -> Iterator[Finding]:
    """Say how far training speed differs between conditions that ran on one device, or that it cannot be told."""
    rows = sorted(costs, key=lambda row: -row.images_per_second.mean)
    devices = {device for row in rows for device in row.devices}
    if len(rows) < 2 or len(devices) != 1 or rows[-1].images_per_second.mean <= 0:
        return
    fast, slow = rows[0].images_per_second, rows[-1].images_per_second
    ratio = fast.mean / slow.mean
    if ratio < 1.2:
        return
    sentence = f"{quoted(rows[0].label)} trains {number(ratio, 2)} times as fast as {quoted(rows[-1].label)}."
    if fast.low is None or slow.high is None:
        sentence = "No condition can be called faster: with one repeat it is not known how far training speed varies."
    elif not comparable_times(costs):
        sentence = (
            f"No condition can be called faster: training speed varies between repeats of one by more than "
            f"{100 * STEADY:g} % of its mean, as on a machine that does other work too."
        )
    elif fast.low <= slow.high:
        sentence = "No condition can be called faster: training speed varies between repeats as between conditions."
    yield Finding(
        rule="speed",
        sentence=sentence,
        evidence=f"{metric_words('cost.images_per_second').capitalize()}, mean over repeats on {devices.pop()}: "
        f"{_speed(rows[0].label, fast)}, {_speed(rows[-1].label, slow)}.",
        about=(rows[0].label, rows[-1].label),
    )


def _speed(label: str, speed: Estimate) -> str:
    words = f"{quoted(label)} {number(speed.mean)}"
    if speed.low is None or speed.high is None:
        return words
    return f"{words} (95 % t interval {number(speed.low)} to {number(speed.high)})"


RISE = 0.05
"""By how much of its minimum the validation loss must have risen for over-fitting to be stated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverfittingOnset:
    """Over-fitting in a condition: the median epoch of least validation loss, and in how many repeats it was seen.

    `rise` is by which share of the least one the validation loss is higher after the last epoch, `gain` by how much the
    validation accuracy is: means over these repeats.
    """

    key: str
    label: str
    epoch: float
    epochs: float
    rise: float
    repeats: int
    of: int
    gain: float = 0.0


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
        gain=fmean(history[-1].val_accuracy - least.val_accuracy for history, least in overfitted),
    )


def time_to_accuracy(results: StudyResults) -> TimeToAccuracy | None:
    """Return how fast conditions reach nine tenths of the best mean of their repeats' best validation accuracies.

    The accuracy is in whole percent, rounded down.
    None when no repeat has a history, or when every repeat is there after its first epoch: that tells nothing.
    """
    trained = [(c, [t.history for t in done_repeats(results, c).values() if t.history]) for c in compared(results)]
    trained = [(condition, histories) for condition, histories in trained if histories]
    if not trained:
        return None
    tops = (fmean(max(r.val_accuracy for r in history) for history in histories) for _, histories in trained)
    accuracy = int(round(90 * max(tops), 9)) / 100  # 90 * 0.7 is a little less than 63
    conditions = [_reached(condition, histories, accuracy) for condition, histories in trained]
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


def overfitting_findings(onsets: Sequence[OverfittingOnset]) -> Iterator[Finding]:
    """Say in which conditions validation loss rises while training loss falls, and from which epoch on.

    Those whose validation accuracy rises, too, apart from the others: their probabilities get worse, not their answers,
    as where the loss of training is another one or its targets are smoothed.
    """
    for better in (False, True):
        yield from _overfitting([one for one in onsets if (one.gain > 0) is better], better)


def _overfitting(onsets: Sequence[OverfittingOnset], better: bool) -> Iterator[Finding]:
    ordered = sorted(onsets, key=lambda onset: -onset.rise)
    if not ordered:
        return
    parts = [
        f"{quoted(onset.label)} from epoch {onset.epoch:g} of {onset.epochs:g} (validation loss "
        f"+{100 * onset.rise:.0f} % by the last epoch, {onset.repeats} of {count(onset.of, 'repeat')})"
        for onset in ordered
    ]
    first = min(ordered, key=lambda onset: onset.epoch / onset.epochs)
    earliest = "" if len(ordered) == 1 else f" in {quoted(first.label)}, the earliest"
    labels = names([onset.label for onset in ordered])
    sentence = f"{labels} over-{'fits' if len(ordered) == 1 else 'fit'}: validation loss rises after epoch"
    if better:
        sentence = f"The validation loss of {labels} rises while accuracy still does, so that probabilities get worse "
        sentence += "and answers do not: after epoch"
    yield Finding(
        rule="over-fitting",
        sentence=f"{sentence} {first.epoch:g}{earliest}.",
        evidence=f"Least validation loss: {listing(parts, most=8)}.",
        about=tuple(onset.label for onset in ordered),
    )


def fastest_findings(race: TimeToAccuracy | None, costs: Sequence[ConditionCost]) -> list[Finding]:
    """Say which condition reaches a stated validation accuracy first: in seconds where times compare, else in epochs.

    Nothing is said of fewer than two conditions or of one repeat each, and where none is ahead by one epoch, or by the
    time that it takes.
    """
    if race is None or len(race.arrivals) < 2 or max(row.of for row in race.arrivals) < 2:
        return []
    complete = [row for row in race.arrivals if row.seconds is not None and row.repeats == row.of]
    goal = f"a validation accuracy of {measured('val.accuracy', race.accuracy)}"
    if comparable_times(costs):
        times = [row.seconds or 0.0 for row in complete]
        behind = min(times[1:], default=float("inf")) - times[0] if times else 0.0
        ahead = bool(times) and behind >= times[0] / (complete[0].epochs or 1.0)
        return [_quickest(goal, complete[0], race.arrivals)] if ahead else []
    first = min(complete, key=lambda row: row.epochs or 0.0, default=None)
    others = [row.epochs for row in race.arrivals if row.epochs is not None and row is not first]
    if first is None or min(others, default=float("inf")) - (first.epochs or 0.0) < 1:
        return []
    return [_fewest_epochs(goal, first, race.arrivals)]


def _quickest(goal: str, first: ReachedAccuracy, arrivals: Sequence[ReachedAccuracy]) -> Finding:
    seconds, epochs = duration(first.seconds or 0.0), _epochs(first.epochs)
    parts = [_arrival(row, duration(row.seconds or 0.0)) for row in arrivals if row is not first]
    return Finding(
        rule="fastest",
        sentence=f"{quoted(first.label)} is the fastest to {goal}: {seconds} of training, {epochs}{_average(first)}.",
        evidence=f"Means over repeats that reach it, which are no test; the others: {listing(parts, most=8)}. Times "
        "compare only on one device.",
        about=(first.label,),
    )


def _fewest_epochs(goal: str, first: ReachedAccuracy, arrivals: Sequence[ReachedAccuracy]) -> Finding:
    parts = [_arrival(row, _epochs(row.epochs)) for row in arrivals if row is not first]
    return Finding(
        rule="fastest",
        sentence=f"{quoted(first.label)} needs the fewest epochs to {goal}: {number(first.epochs, 3)}"
        f"{_average(first)}.",
        evidence=f"Means over repeats that reach it, which are no test; the others: {listing(parts, most=8)}. Times "
        "are not compared: it is not known that the device was as fast for one condition as for another.",
        about=(first.label,),
    )


def _average(first: ReachedAccuracy) -> str:
    return f" on average over {count(first.repeats, 'repeat')}"


def _arrival(reached: ReachedAccuracy, words: str) -> str:
    if reached.seconds is None:
        return f"{quoted(reached.label)} never"
    return f"{quoted(reached.label)} {words}{'' if reached.repeats == reached.of else ' (not every repeat)'}"


def _epochs(mean: float | None) -> str:
    """Return a mean number of epochs: 1 epoch, 4.33 epochs."""
    return f"{number(mean, 3)} {'epoch' if mean == 1 else 'epochs'}"


def gap_findings(gaps: Sequence[Gap]) -> Iterator[Finding]:
    """Say which condition loses most between train and validation images, and where the two differ least."""
    rows = sorted(gaps, key=lambda row: -row.difference.mean)
    if not rows or rows[0].difference.mean < WIDE_GAP:
        return
    widest, least = rows[0], min(rows, key=lambda row: abs(row.difference.mean))
    narrowest = f"{bare('val.accuracy', least.difference.mean)} {difference_unit('val.accuracy')}"
    other = f"; the narrowest is {narrowest}, {quoted(least.label)}" if len(rows) > 1 else ""
    yield Finding(
        rule="train-val-gap",
        sentence=f"{quoted(widest.label)} has the widest gap between train and validation accuracy, "
        f"{amount('val.accuracy', widest.difference.mean)}{other}.",
        evidence=f"Train minus validation, scored by the same weights without augmentation, mean over "
        f"{count(widest.difference.n, 'repeat')}.",
        about=tuple(dict.fromkeys((widest.label, least.label))),
    )


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
