"""What a tracker is given, and what it is: a place where people keep the runs of many projects, such as MLflow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRow:
    """What was measured of a run at a step: `time` is in seconds since 1970, values may be NaN or infinite."""

    step: int
    time: float
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """A trial as a tracker keeps it, or what a condition's trials come to; all of it is from the record.

    `id` is 24 hex digits, the same for one training however often and from where it is exported. `kind` is trial or
    condition, `state` done, pruned, diverged, failed or running, `started` and `finished` are in seconds since 1970, 0
    for what is not there. `rows` are a trial's epochs, and one row of a condition: its n, mean and interval at step n.
    `scores` are of the finished model.
    """

    id: str
    kind: str
    study: str
    name: str
    state: str
    started: float
    finished: float = 0.0
    parameters: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[TrackedRow, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Return whether nothing will come any more."""
        return self.state != "running"

    @property
    def mark(self) -> str:
        """Return a text that differs where the run holds anything else: who has written it is done with the run."""
        told = [
            self.state,
            self.finished,
            sorted(self.scores.items()),
            [(r.step, sorted(r.values.items())) for r in self.rows],
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


class Tracker(Protocol):
    """A class that is made of a folder of the workspace for what it keeps there, and an address or "".

    Further parameters are its options. It raises `benchkit.BenchkitError` for an address that it cannot use. With a
    class attribute `live = False` it takes runs that have ended, after a sweep alone. With an attribute `viewed_by` it
    says by which command to look at the runs; it holds no secret.
    """

    def write(self, run: TrackedRun) -> Any:
        """Write what is not there yet of a run, which it may have been given before, in part or by another process.

        What is there stays as it is: nothing is written twice, after a process that was killed half-way neither. Times
        are those of the run, never the clock's. A run that goes on comes again with more rows.
        """
        ...

    def close(self) -> Any:
        """Let go of everything; what was written is where it belongs."""
        ...
