"""What a sweep hands to its workers, and the plan that both read from it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchkit.plan import Condition, Plan
from benchkit.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Train what is queued of these conditions (`train`), or time one short run of each (`probe`).

    `concurrency` makes a run of the first condition ready and, with `seconds`, trains it that long.

    `storage` is the ledger's URL ("" for the workspace's own), `device` is auto, cpu, cuda or cuda:N, `plugins` are
    local plugin files, which `allow_shadow` lets take the place of installed plugins. `profile` takes trials' time.
    `device_memory` is the most bytes that a trial's images take on the device, None what `train.placement` says;
    `at_once` is the most trials that train at a time.
    """

    task: Literal["train", "probe", "concurrency"]
    study: Study
    conditions: tuple[Condition, ...]
    workspace: Path
    data_root: Path
    storage: str = ""
    device: str = "auto"
    plugins: tuple[Path, ...] = ()
    allow_shadow: bool = False
    profile: bool = False
    device_memory: int | None = None
    seconds: float = 0.0
    at_once: int = 1

    def plan(self) -> Plan:
        """Return the plan of the job's conditions."""
        return Plan(study=self.study, conditions=self.conditions)
