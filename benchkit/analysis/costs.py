"""What training cost, and where: time, speed, memory, energy and devices, and whether times can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchkit.analysis.estimates import Estimate, compared, done_repeats, estimate_metric
from benchkit.analysis.wording import Finding, count, listing, metric_words, number, quoted
from benchkit.results import DeviceRange, StudyResults, Trial

if TYPE_CHECKING:
    from benchkit.plan import Condition


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
    return "; ".join(f"{_epochs(one)} {_place(one, nodes)}" for one in ranges)


def _place(one: DeviceRange, nodes: bool) -> str:
    return f"{one.device} on {one.node}" if nodes and one.node else one.device


def _epochs(one: DeviceRange) -> str:
    return f"epoch {one.first}:" if one.first == one.last else f"epochs {one.first} to {one.last}:"


def device_findings(rows: Sequence[TrainedOn]) -> list[Finding]:
    """Say that a study was trained by several models of devices, whose speeds are not compared."""
    devices = list(dict.fromkeys(device for row in rows for device in row.devices))
    if len(devices) < 2:
        return []
    parts = [f"{count(row.trials, 'trial')} on {', then '.join(row.devices)}" for row in rows]
    return [
        Finding(
            rule="devices",
            tone="note",
            sentence=f"Trials were trained on {len(devices)} kinds of device, so no speeds are compared: "
            f"{listing(devices)}.",
            evidence=f"{'; '.join(parts)}.",
        )
    ]


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


def speed_findings(costs: Sequence[ConditionCost]) -> list[Finding]:
    """Say how far training speed differs between conditions that ran on one device, or that it cannot be told."""
    rows = sorted(costs, key=lambda row: -row.images_per_second.mean)
    devices = {device for row in rows for device in row.devices}
    if len(rows) < 2 or len(devices) != 1 or rows[-1].images_per_second.mean <= 0:
        return []
    fast, slow = rows[0].images_per_second, rows[-1].images_per_second
    ratio = fast.mean / slow.mean
    if ratio < 1.2:
        return []
    sentence = f"{quoted(rows[0].label)} trains {number(ratio, 2)} times as fast as {quoted(rows[-1].label)}."
    if fast.low is None or slow.high is None:
        sentence = "No condition can be called faster: with one repeat it is not known how far training speed varies."
    elif fast.low <= slow.high or not comparable_times(costs):
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
