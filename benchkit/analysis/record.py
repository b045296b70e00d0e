"""The record of a study, with which a later report compares itself: what it was made with, its scores and costs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchkit.analysis.costs import device_names
from benchkit.analysis.estimates import compared, values_by_repeat
from benchkit.errors import BenchkitError
from benchkit.metrics import score_metrics
from benchkit.results import StudyResults
from benchkit.storage import decode, encode

COSTS = ("cost.seconds", "cost.images_per_second", "cost.peak_memory")
"""The costs that a record holds beside the scores."""

TIMES = COSTS[:2]
"""Those that compare on one device alone."""

RECORD_VERSION = 1
"""The version of the record's layout; a report with another one is not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One metric of one condition: the repeats that have it, and its value in each."""

    metric: str
    repeats: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCondition:
    """A condition with its readings; equal `key`s mean that every setting was the same."""

    key: str
    label: str
    readings: tuple[Reading, ...]

    def reading(self, metric: str) -> dict[int, float]:
        """Return the values of a metric by repeat, empty when there are none."""
        recorded = next((reading for reading in self.readings if reading.metric == metric), None)
        return dict(zip(recorded.repeats, recorded.values, strict=True)) if recorded else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """Something that a study was made with: its `kind` (study, setting, version, plugin, data), name and value."""

    kind: str
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A study as a later report compares itself with it: seed, main metric, file, properties and readings."""

    version: int = RECORD_VERSION
    study: str
    metric: str
    seed: int
    smoke: bool
    dated: str
    source: str
    properties: tuple[Property, ...]
    conditions: tuple[RecordedCondition, ...]

    @property
    def folds(self) -> int:
        """Return how many folds the repeats test on, one each; 0 where all of them test on the same images."""
        known = (item.value for item in self.properties if (item.kind, item.name) == ("setting", "data.folds"))
        return next((int(folds) for folds in known if folds.isdecimal()), 0)

    @property
    def resampled(self) -> float:
        """Return the test images of a repeat over its other ones, as `StudyResults.resampled`."""
        return 1 / (self.folds - 1) if self.folds > 1 else 0.0


def recorded_metrics() -> tuple[str, ...]:
    """Return the metrics that a record holds: every score of every split, and the costs."""
    return (*score_metrics(), *COSTS)


def recorded_conditions(results: StudyResults) -> tuple[RecordedCondition, ...]:
    """Return every compared condition with all that its done repeats scored and cost.

    Times on several models of devices do not compare and are left out.
    """
    devices = {device for trial in results.trials for device in device_names(trial)}
    kept = [metric for metric in recorded_metrics() if len(devices) < 2 or metric not in TIMES]
    return tuple(
        RecordedCondition(
            key=condition.key,
            label=condition.label,
            readings=tuple(
                Reading(metric=metric, repeats=tuple(values), values=tuple(values.values()))
                for metric in kept
                if (values := _finite(values_by_repeat(results, condition, metric)))
            ),
        )
        for condition in compared(results)
    )


def _finite(values: Mapping[int, float]) -> dict[int, float]:
    return {index: values[index] for index in sorted(values) if math.isfinite(values[index])}


def record_text(record: Record) -> str:
    """Return the record as JSON text."""
    return json.dumps(encode(record), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def record_from(content: Any) -> Record:
    """Return the record in parsed JSON; raise `ValueError` in words when it is none, or of another version."""
    if not isinstance(content, Mapping) or "conditions" not in content:
        raise ValueError("it holds no record of a study")
    if content.get("version") != RECORD_VERSION:
        raise ValueError(f"its record has version {content.get('version')!r}, and this benchkit reads {RECORD_VERSION}")
    try:
        record = decode(Record, content, "record")
    except BenchkitError as error:
        raise ValueError(f"its record is damaged ({error.what})") from error
    if not all(_is_sound(reading) for condition in record.conditions for reading in condition.readings):
        raise ValueError("its record is damaged: a repeat stands twice, or numbers are missing or not finite")
    return record


def _is_sound(reading: Reading) -> bool:
    return len(reading.values) == len(set(reading.repeats)) > 0 and all(map(math.isfinite, reading.values))
