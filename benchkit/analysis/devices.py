"""Which devices trained a study: which trial ran where, and what that says of its speeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchkit.analysis.wording import Finding, count, listing
from benchkit.results import DeviceRange, StudyResults, Trial


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
