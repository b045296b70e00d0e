"""What a capsule holds, as frozen values: studies, their trials, and digests of what the report shows and attaches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchkit.plan import Condition
from benchkit.results import Cost, EpochRecord, SplitMetrics, State, StudyResults

CAPSULE = "capsule.zip"
"""The capsule's file name, in HTML, among the PDF's attachments, and beside the report."""

FORMAT = "benchkit-capsule"
SCHEMA = 1
"""The version of the capsule's layout; it grows when a key changes its meaning or goes."""

SERIES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "gradient_norm", "seconds")
"""What a capsule keeps of each epoch; every summary needs no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapsuleTrial:
    """One trial: what it was, with which seeds, where it ran (`environment`, a place in its study's list), what came.

    `history` has one list for each of `SERIES`. `right` is which test images the model got right, as bits (base64,
    first image highest), of `images` images whose labels have the sha256 `labels`; empty without stored predictions.
    `predictions` is the sha256 of the file with all logits. `earlier` is an attempt in whose place a later one stands.
    """

    condition: str
    phase: Literal["grid", "search", "confirm"]
    index: int
    attempt: int
    number: int
    state: State
    reason: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    environment: int | None = None
    scored: bool = False
    selected_epoch: int = 0
    metrics: Mapping[str, SplitMetrics] = field(default_factory=dict)
    cost: Cost | None = None
    epochs: int = 0
    seconds: float = 0.0
    history: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    data_fingerprint: str = ""
    test_reads: int = 0
    notes: tuple[str, ...] = ()
    started: float = 0.0
    finished: float = 0.0
    right: str = ""
    images: int = 0
    labels: str = ""
    predictions: str = ""
    earlier: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CapsuleStudy:
    """One study: where its members are in the archive (`folder`), how it was and is trained, on what, and where.

    `given` is the command as the user gave it, without folders; `commands` are those that train and report the same
    from the study file of the capsule. `environments` are the distinct ones of its trials.
    """

    name: str
    title: str
    folder: str
    smoke: bool
    seed: int
    overrides: tuple[str, ...]
    given: str
    commands: tuple[str, ...]
    metric: str
    data: Mapping[str, Any]
    class_names: tuple[str, ...]
    left_out: tuple[str, ...]
    environments: tuple[Mapping[str, Any], ...]
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTable:
    """A table as the report shows it: its anchor on the page, whose it is, and sha256 of its cells and of its CSV.

    `study` is the place of its study in the capsule, `name` its name in a report of that study alone.
    """

    anchor: str
    study: int
    name: str
    number: int
    cells: str
    csv: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the report shows: its tables, and the sha256 of every file that it attaches, by the file's path."""

    tables: tuple[ShownTable, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The capsule's own page, `capsule.json`; `members` has the sha256 of every other member of the archive."""

    format: str
    schema: int
    generator: str
    studies: tuple[CapsuleStudy, ...]
    shown: Shown
    members: Mapping[str, str]


DIGITS = 6
"""Significant decimal digits of each of a record's `SERIES`."""


def rounded(results: StudyResults) -> StudyResults:
    """Return the results with every epoch record rounded to `DIGITS` significant digits; outcomes stay as they are."""
    trials, earlier = (
        tuple(dataclasses.replace(trial, history=tuple(_record(record) for record in trial.history)) for trial in group)
        for group in (results.trials, results.earlier)
    )
    return dataclasses.replace(results, trials=trials, earlier=earlier)


def _record(record: EpochRecord) -> EpochRecord:
    shorter = {name: float(f"{getattr(record, name):.{DIGITS}g}") for name in SERIES}
    return dataclasses.replace(record, **shorter)  # type: ignore[arg-type]
