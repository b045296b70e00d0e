"""The words of a study file that has been edited since its sweep, in the place of those that the ledger holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import benchkit
from benchkit.results import StudyResults
from benchkit.storage import encode
from benchkit.study.studyfile import read_study

TRAINED = ("settings", "factors", "search", "seed")
"""What of a study says which trials it has."""

QUOTED = ("origin", "published")
"""What a study quotes of others: it is held against the trained settings, whatever the file's own are."""

PRESENTED = ("title", "question", "description", *QUOTED, "report", "source", "path")
"""What of a study says only how its results are shown."""


def presented(results: StudyResults, file: Path) -> tuple[StudyResults, str]:
    """Return the results as the study file shows them now, and a note where it describes other trials.

    Of a file that describes other trials only what it quotes of its source is taken: an older network then shows as a
    departure. Overrides that the sweep was given hold for the file too. Raises `StudyError` for a file that cannot be
    read.
    """
    study = results.study
    now = read_study(file, overrides=study.overrides, smoke=study.smoke)
    differing = [part for part in TRAINED if encode(getattr(now, part)) != encode(getattr(study, part))]
    if differing:
        note = (
            f"{file}: its {', '.join(differing)} differ from those that were trained; the report shows the study as "
            "the ledger holds it (benchkit sweep trains the file as it is now)"
        )
        return replace(results, study=replace(study, **{part: getattr(now, part) for part in QUOTED})), note
    return replace(results, study=replace(study, **{part: getattr(now, part) for part in PRESENTED})), ""


def file_now(results: StudyResults, given: Path) -> Path | None:
    """Return the file that presents a study: the one that was given, or the built-in one that it was trained from."""
    if given.suffix == ".toml":
        return given if given.is_file() else None
    recorded = results.study.path
    built_in = Path(benchkit.__file__).parent / "studies" / f"{results.study.name}.toml"
    same = recorded is not None and recorded.parts[-3:] == built_in.parts[-3:]
    return built_in if same and built_in.is_file() else None
