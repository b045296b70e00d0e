"""What a sweep and its workers tell each other, a JSON line each: jobs one way, events the other. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from benchkit.plan import Condition, Plan
from benchkit.results import EpochRecord
from benchkit.storage import decode, encode
from benchkit.study import Study
from benchkit.sweep.concurrency import Concurrency
from benchkit.sweep.devices import Devices
from benchkit.sweep.frames import frame


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady:
    """A worker has imported everything and names the device it trains on."""

    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialTaken:
    """A worker took a trial and prepares it: from here on, what ends the worker is the trial's doing."""

    condition: str
    phase: str
    index: int
    key: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStarted:
    """The worker's trial begins to train; `epoch` is the last one done already, above 0 when it was interrupted."""

    condition: str
    phase: str
    index: int
    key: str
    number: int
    epochs: int
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnded:
    """An epoch of the worker's trial ended."""

    record: EpochRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded:
    """The worker's trial ended in a state, for a reason; scores by `split.metric` when it is done."""

    condition: str
    phase: str
    index: int
    state: str
    reason: str
    seconds: float
    scores: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialProfiled:
    """Where the time of the worker's trial went: `seconds` by phase, and its `trace` file ("" without one)."""

    seconds: dict[str, float]
    trace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerIdle:
    """The worker found nothing left to train."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFailed:
    """The worker itself, not a trial, cannot go on."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """The worker's process ended without saying so; `code` is its exit status, negative for a signal.

    `machine` says that its node ended, or the way to it; `words` end a sentence that begins with what ended.
    """

    code: int
    machine: bool = False
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A condition's epoch takes `seconds`; a trial of it leaves `kept_bytes`, and its checkpoint while it trains."""

    key: str
    seconds: float
    checkpoint_bytes: int
    kept_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworksChecked:
    """Of the conditions' different `networks` so many were built and run; `problems` has a line for each that fails."""

    problems: tuple[str, ...]
    checked: int
    networks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReady:
    """A worker's probe is ready to be timed; of a trial: images in an epoch, device memory, what was free before it."""

    images: int
    peak_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTimed:
    """A worker's probe trained so many images per second, while others did the same."""

    images_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyTried:
    """The sweep tries how fast so many trials at once are on the device."""

    at_once: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesChosen:
    """The GPUs that a sweep trains on, and those that it leaves to others."""

    devices: Devices


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyChosen:
    """The sweep trains so many trials at once, because of what it measured, now or `before`."""

    at_once: int
    concurrency: Concurrency
    before: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisEnded:
    """What the interim analyses of a sweep that adds repeats until decided have found so far, in words."""

    words: str


Event = (
    Probed
    | NetworksChecked
    | RunReady
    | RunTimed
    | DevicesChosen
    | ConcurrencyTried
    | ConcurrencyChosen
    | AnalysisEnded
    | WorkerReady
    | TrialTaken
    | TrialStarted
    | EpochEnded
    | TrialEnded
    | TrialProfiled
    | WorkerIdle
    | WorkerFailed
    | WorkerLost
)
KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}


def dump(event: Event) -> bytes:
    """Return the frame of an event."""
    return frame({"event": type(event).__name__, **encode(event)})


def load(table: Mapping[str, Any]) -> Event:
    """Return the event that a frame's JSON object tells; raise `KeyError` or `BenchkitError` where it tells none."""
    return decode(KINDS[table["event"]], table)


DEVICE_KIND = "device kind"
"""What the ledger calls the kind of device that all trials of a study train on: cpu, cuda or mps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Train what is queued of these conditions (`train`), or time one short run of each (`probe`).

    `check` builds each different network of them and runs it on two images.

    `concurrency` makes a run of the first condition ready and, with `seconds`, trains it that long.

    `storage` is the ledger's URL ("" for the workspace's own), `device` is auto, cpu, cuda or cuda:N, called
    `device_label` ("": as the worker finds it), `plugins` are
    local plugin files, which `allow_shadow` lets take the place of installed plugins. `profile` takes trials' time.
    `device_memory` is the most bytes that a trial's images take on the device, None what `train.placement` says;
    `at_once` is the most trials that train at a time. `more` is that of the plan.
    """

    task: Literal["train", "check", "probe", "concurrency"]
    study: Study
    conditions: tuple[Condition, ...]
    workspace: Path
    data_root: Path
    storage: str = ""
    device: str = "auto"
    device_label: str = ""
    plugins: tuple[Path, ...] = ()
    allow_shadow: bool = False
    profile: bool = False
    device_memory: int | None = None
    seconds: float = 0.0
    at_once: int = 1
    more: dict[str, int] = field(default_factory=dict)

    def plan(self) -> Plan:
        """Return the plan of the job's conditions."""
        return Plan(study=self.study, conditions=self.conditions, more=self.more)
