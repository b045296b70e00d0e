"""The words of a study file that has been edited since its sweep, in the place of those that the ledger holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchkit.codec import encode
from benchkit.results import StudyResults
from benchkit.study.studyfile import read_study

TRAINED = ("settings", "factors", "search", "seed")
"""What of a study says which trials it has."""

PRESENTED = ("title", "question", "description", "published", "report", "source", "path")
"""What of a study says only how its results are shown."""


def presented(results: StudyResults, file: Path) -> tuple[StudyResults, str]:
    """Return the results as the study file shows them now, and why it is not asked where it describes other trials.

    Overrides that the sweep was given hold for the file too. Raises `StudyError` for a file that cannot be read.
    """
    study = results.study
    now = read_study(file, overrides=study.overrides, smoke=study.smoke)
    differing = [part for part in TRAINED if encode(getattr(now, part)) != encode(getattr(study, part))]
    if differing:
        return results, (
            f"{file}: its {', '.join(differing)} differ from those that were trained; the report shows the study as "
            "the ledger holds it (benchkit sweep trains the file as it is now)"
        )
    return replace(results, study=replace(study, **{part: getattr(now, part) for part in PRESENTED})), ""
