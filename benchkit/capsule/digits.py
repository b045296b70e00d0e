"""The digits of epoch records in a report: six, so that long studies have small capsules.

Seventeen would be most of a long study's HTML, and the last ones say nothing of a loss that was computed in single
precision. Histories are rounded before a report is made of them, so that what it tells follows from what its capsule
holds, to the last digit. The workspace keeps them whole.
"""

from __future__ import annotations

import dataclasses

from benchkit.capsule.contents import SERIES
from benchkit.results import EpochRecord, StudyResults

DIGITS = 6
"""Significant decimal digits of each of a record's `SERIES`."""


def rounded(results: StudyResults) -> StudyResults:
    """Return the results with every epoch record rounded to `DIGITS` significant digits; outcomes stay as they are."""
    trials = tuple(
        dataclasses.replace(trial, history=tuple(_record(record) for record in trial.history))
        for trial in results.trials
    )
    return dataclasses.replace(results, trials=trials)


def _record(record: EpochRecord) -> EpochRecord:
    shorter = {name: float(f"{getattr(record, name):.{DIGITS}g}") for name in SERIES}
    return dataclasses.replace(record, **shorter)  # type: ignore[arg-type]
