"""The values that trials leave behind: epoch records, split metrics, trials, and a study's results as a whole."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchkit.metrics import SPLITS, SplitName, metric_names

if TYPE_CHECKING:
    import numpy as np

    from benchkit.plan import Condition
    from benchkit.study import Study

__all__ = [
    "FINISHED",
    "SPLITS",
    "WAS_COMPILED",
    "Cost",
    "Decision",
    "DeviceRange",
    "EpochRecord",
    "Normalization",
    "Outcome",
    "SplitMetrics",
    "SplitName",
    "State",
    "StudyResults",
    "Trial",
    "metric_names",
    "sources_of",
]

State = Literal[
    "done", "pruned", "diverged", "failed", "running", "stale", "waiting",
    "missing files", "changed files", "files elsewhere",
]  # fmt: skip
"""done, pruned, diverged and failed are results; running has a live owner; stale lost its owner; waiting is queued.

A finished trial whose files were lost or changed since has missing files or changed files: it is no result any more;
one whose files are elsewhere, on the machine that trained it, is none here yet.
"""

STOPPED = "its sweep was stopped; the same command goes on with it"
"""The reason of a stale trial that its sweep gave back, as it does when a user or a signal stops it."""

FINISHED: frozenset[str] = frozenset({"done", "pruned", "diverged", "failed"})

WITHOUT_FILES: tuple[State, ...] = ("missing files", "changed files", "files elsewhere")
"""States of trials that have ended and whose numbers cannot be read here."""

RETRIED: Mapping[State, str] = {
    "failed": "failed",
    "diverged": "diverged",
    "pruned": "pruned",
    "missing files": "missing",
    "changed files": "changed",
}
"""The word of `--retry` by which trials of a state are trained again."""

REPEATED: tuple[State, ...] = ("failed", "missing files", "changed files")
"""The states of trials that are worth training again, as the same seeds may end otherwise then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """One epoch of a trial. Losses are mean cross-entropy in nats, accuracies fractions, the rest in the units named.

    `epoch` counts from 1. `train_loss` includes penalties and augmentation, as the optimizer saw it. `learning_rate`
    is that of the epoch's last step, `gradient_norm` the mean over steps of the global L2 norm before clipping,
    `images_per_second` counts training images over training time (evaluation excluded), `peak_memory` is in MiB.
    `observed` holds what figures noted of the model after the epoch, by `figure.quantity`, and the other scores on
    validation images that the study asks for, such as `val.brier`, where they are defined. `energy` is what the whole
    device used during the epoch, in joules; 0 where it does not tell. `device` and `node` name the model of the device
    and the machine that trained it, "" in trials of earlier versions.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    images_per_second: float
    peak_memory: float
    observed: Mapping[str, float] = field(default_factory=dict)
    energy: float = 0.0
    device: str = ""
    node: str = ""

    def score(self, metric: str) -> float:
        """Return `train.loss`, `val.brier` and the like, NaN where it was undefined or not read."""
        found = self.observed.get(metric, getattr(self, metric.replace(".", "_"), math.nan))
        return float(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitMetrics:
    """What the finished model scores on `n` images; `confusion[i][j]` counts images of class i called j.

    `more` has the metrics of `benchkit.metrics` that have no field of their own, by name. Trials of a version that did
    not measure a metric lack it.
    """

    n: int
    loss: float
    accuracy: float
    micro_f1: float
    macro_f1: float
    calibration_error: float
    class_accuracy: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    more: Mapping[str, float] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """Return a metric by its name, such as `accuracy`, or None where it was not measured or is not finite."""
        found = self.more.get(name, getattr(self, name, None))
        return float(found) if isinstance(found, int | float) and math.isfinite(found) else None


FORWARD_PASSES = 3
"""Forward passes that training an image is taken as: the backward pass has two matrix products beside each of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a trial cost: parameters, forward FLOPs per image, training seconds, mean images/s, peak memory in MiB.

    `best_seconds` is the training time up to the end of the selected epoch. `energy` is what the whole device used, in
    joules. `matrix_rate` is what the device reaches in products of large matrices in the trial's precision, in FLOP/s.
    `bookkeeping` is what history, ledger and checkpoints took between epochs, in seconds, since the trial was last gone
    on with. Each of the four is 0 where it is not known, as in trials of earlier versions.
    """

    parameters: int
    flops: int
    seconds: float
    images_per_second: float
    peak_memory: float
    device: str
    precision: str
    best_seconds: float = 0.0
    energy: float = 0.0
    matrix_rate: float = 0.0
    bookkeeping: float = 0.0

    @property
    def matrix_share(self) -> float:
        """Return the share of the device's matrix rate that training used, 0 where the rate is not known."""
        return FORWARD_PASSES * self.flops * self.images_per_second / self.matrix_rate if self.matrix_rate else 0.0


PREDICTIONS, WEIGHTS = "predictions.safetensors", "weights.safetensors"
"""The files in a trial's folder with the logits on val and test, and with the selected weights."""


def inspected_name(figure: str) -> str:
    """Return the name of the file with the arrays that a figure took from the finished model."""
    return f"inspected-{figure}.safetensors"


WAS_COMPILED = "the model was compiled"
"""The note of a trial most of whose training steps a compiled model took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalization:
    """What images in [0, 1] were normalised by, minus `mean` and divided by `std`: one number for each channel.

    `source` says whose statistics they are: those of the training images, or the model's own.
    """

    source: Literal["data", "model"]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a finished trial is recorded with.

    `selected_epoch` is the epoch whose weights were scored, `start_weights` the sha256 of the file that the model
    started from ("" without one), `notes` are fallbacks and oddities worth a line in the report, `environment` names
    versions, device and plugins. `normalization` is None where images were not normalised, and in trials of earlier
    versions.
    """

    state: State
    reason: str = ""
    selected_epoch: int = 0
    metrics: Mapping[SplitName, SplitMetrics] = field(default_factory=dict)
    cost: Cost | None = None
    data_fingerprint: str = ""
    start_weights: str = ""
    test_reads: int = 0
    notes: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    normalization: Normalization | None = None

    @property
    def started_from(self) -> str:
        """Return 12 digits of the sha256 of what it started from, which earlier versions told in a note, or ""."""
        noted = (re.search(r"^started from the weights .*\(sha256 ([0-9a-f]{12})\)$", note) for note in self.notes)
        return self.start_weights[:12] or next((match[1] for match in noted if match), "")

    def value(self, metric: str) -> float | None:
        """Return what it scored or cost, `test.accuracy` or `cost.seconds`, or None where it has no such number."""
        scope, _, name = metric.partition(".")
        if scope == "cost":
            return float(getattr(self.cost, name)) if self.cost else None
        scored = self.metrics.get(scope)  # type: ignore[call-overload]
        return scored.value(name) if scored else None


def sources_of(environment: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return what an environment names of its plugins' sources, by where they are used; other things are left out."""
    named = environment.get("sources")
    return {
        str(where): {str(key): str(value) for key, value in source.items()}
        for where, source in (named.items() if isinstance(named, Mapping) else ())
        if isinstance(source, Mapping)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRange:
    """A trial's epochs from `first` to `last`, which a `device`, told by its model's name, trained on one `node`."""

    first: int
    last: int
    device: str
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training run as the ledger tells it.

    `phase` is grid (a condition's repeat), search (Optuna chose `params`) or confirm (a repeat after a search).
    `index` is the repeat within its condition, or the slot within its search. `params` maps dotted setting paths to
    what was chosen. `predictions` reads logits float32 (n, K) of a split from disk.
    """

    condition: Condition
    phase: Literal["grid", "search", "confirm"]
    index: int
    attempt: int
    number: int
    state: State
    params: Mapping[str, Any]
    history: tuple[EpochRecord, ...]
    outcome: Outcome | None
    folder: Path
    started: float = 0.0
    finished: float = 0.0

    @property
    def reason(self) -> str:
        """Return why the trial did not end as done, or an empty string."""
        return self.outcome.reason if self.outcome else ""

    @property
    def devices(self) -> tuple[DeviceRange, ...]:
        """Return which device trained which of its epochs, in order; one alone where an earlier version trained it.

        Of a history that is lost it is a range from 0 to 0; none where no device is known.
        """
        told = self._told_device
        ranges = [] if self.history or not told else [DeviceRange(first=0, last=0, device=told)]
        for (device, node), run in groupby(self.history, lambda record: (record.device or told, record.node)):
            records = tuple(run)
            if ranges and (ranges[-1].device, ranges[-1].node) == (device, node):
                ranges[-1] = replace(ranges[-1], last=records[-1].epoch)
            elif device:
                ranges.append(DeviceRange(first=records[0].epoch, last=records[-1].epoch, device=device, node=node))
        return tuple(ranges)

    @property
    def _told_device(self) -> str:
        """Return the device as the cost names it, which calls a processor `cpu`."""
        if self.outcome is None or self.outcome.cost is None:
            return ""
        processor = self.outcome.environment.get("processor")
        return self.outcome.cost.device.replace("cpu", str(processor or "cpu"), 1)

    def value(self, metric: str) -> float | None:
        """Return what it scored or cost, `test.accuracy` or `cost.seconds`, or None where it has no such number."""
        return self.outcome.value(metric) if self.outcome else None

    def score(self, metric: str) -> float:
        """Return `split.metric`, for example `test.accuracy`, of a done trial; raise `KeyError` when it has none."""
        value = self.value(metric)
        if value is None:
            raise KeyError(metric)
        return value

    def predictions(self, split: SplitName) -> np.ndarray:
        """Return the stored logits, float32 (n, K), in the split's order; raise `FileNotFoundError` when absent."""
        from safetensors.numpy import load_file

        return load_file(self.folder / PREDICTIONS)[split]

    def labels(self, split: SplitName) -> np.ndarray:
        """Return the true labels int64 (n,) beside `predictions`, in their order; raise `FileNotFoundError` like it."""
        from safetensors.numpy import load_file

        return load_file(self.folder / PREDICTIONS)[f"{split}_labels"]

    def inspected(self, figure: str) -> dict[str, np.ndarray]:
        """Return the arrays that a figure took from the finished model; raise `FileNotFoundError` when it took none."""
        from safetensors.numpy import load_file

        return load_file(self.folder / inspected_name(figure))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided once for all trials of a study, such as the device kind: by which version, and why."""

    name: str
    value: str
    why: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResults:
    """A study with everything the ledger holds of it: planned conditions, all trials, and what was left out and why.

    `conditions` are those planned (confirm conditions included, in report order); `left_out` says in words which
    trials in the ledger belong to another version of the study file. `labels` holds the true labels int64 (n,) of
    val and test of the first finished trial, which all trials on the same data share; read `Trial.labels` where
    conditions differ in their data. It is empty without stored predictions.
    """

    study: Study
    conditions: tuple[Condition, ...]
    trials: tuple[Trial, ...]
    class_names: tuple[str, ...] = ()
    labels: Mapping[SplitName, np.ndarray] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    workspace: str = ""
    command: str = ""
    earlier: tuple[Trial, ...] = ()
    decisions: tuple[Decision, ...] = ()
    _by_condition: dict[str, list[Trial]] = field(default_factory=dict, init=False, repr=False, compare=False)
    derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What the analysis derived from these results, so that each number is estimated once."""

    def __post_init__(self) -> None:
        """Sort the trials by condition once: every number of a report asks for those of one."""
        for trial in sorted(self.trials, key=lambda t: (t.index, t.attempt)):
            self._by_condition.setdefault(trial.condition.key, []).append(trial)

    @property
    def resampled(self) -> float:
        """Return the test images of a repeat over its other ones where repeats are folds, else 0: they share no image.

        Nadeau and Bengio's correction for repeats that train on each other's images (2003).
        """
        return 1 / (self.study.repeats - 1) if self.study.splits == "folds" else 0.0

    def of(self, condition: Condition, *states: State) -> tuple[Trial, ...]:
        """Return the repeats (grid and confirm) of a condition in index order, in the given states (default: all)."""
        return tuple(
            trial
            for trial in self._by_condition.get(condition.key, ())
            if trial.phase != "search" and (not states or trial.state in states)
        )

    def repeats(self, condition: Condition) -> dict[int, Trial]:
        """Return the attempt that counts for each repeat index: the last done one, else the last of all."""
        counting: dict[int, Trial] = {}
        for trial in self.of(condition):
            current = counting.get(trial.index)
            if current is None or trial.state == "done" or current.state != "done":
                counting[trial.index] = trial
        return counting

    def searched(self, condition: Condition | None = None) -> tuple[Trial, ...]:
        """Return the search trials, of one searched condition or of all, in the order they were started."""
        return tuple(
            trial
            for trial in sorted(self.trials, key=lambda t: t.number)
            if trial.phase == "search" and (condition is None or trial.condition.key == condition.key)
        )


SERIES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "gradient_norm", "seconds")
"""What a capsule keeps of each epoch to `DIGITS` digits, beside the metrics that were read on the validation images."""

READ_ON_VAL = "val."
"""How the names of these metrics start, among all that is noted of an epoch."""

DIGITS = 6
"""Significant decimal digits of what reports show and capsules keep of an epoch."""


def rounded(results: StudyResults) -> StudyResults:
    """Return the results with every epoch record rounded to `DIGITS` significant digits; outcomes stay as they are."""
    trials, earlier = (
        tuple(replace(trial, history=tuple(_record(record) for record in trial.history)) for trial in group)
        for group in (results.trials, results.earlier)
    )
    return replace(results, trials=trials, earlier=earlier)


def _record(record: EpochRecord) -> EpochRecord:
    shorter = {name: _shorter(getattr(record, name)) for name in SERIES}
    read = {name: _shorter(value) for name, value in record.observed.items() if name.startswith(READ_ON_VAL)}
    return replace(record, **shorter, observed={**record.observed, **read})  # type: ignore[arg-type]


def _shorter(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
