"""The whole verification of a report: digests, numbers summarised anew, and this machine beside the report's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchkit import __version__
from benchkit.capsule.reading import Capsule, results_of
from benchkit.registry import Registry
from benchkit.results import StudyResults
from benchkit.verify.check import ReportCheck, Verification
from benchkit.verify.consistency import consistency_checks, digest_checks
from benchkit.verify.machine import machine_checks
from benchkit.verify.opening import ReportFile
from benchkit.verify.recomputed import recomputed_checks


def verify(report: ReportFile, capsule: Capsule, registry: Registry, data_root: Path) -> Verification:
    """Return what holds of a report, what does not, and what could not be checked; nothing is trained or downloaded.

    Raises `ReportError` for a capsule whose values cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="benchkit-") as name:
        folder = Path(name)
        studies = [results_of(capsule, index, folder / str(index)) for index in range(len(capsule.studies))]
        return Verification(checks=tuple(_checks(report, capsule, studies, registry, data_root)))


def _checks(
    report: ReportFile, capsule: Capsule, studies: list[StudyResults], registry: Registry, data_root: Path
) -> Iterator[ReportCheck]:
    yield from digest_checks(report, capsule)
    yield from recomputed_checks(report, capsule, studies)
    yield from consistency_checks(capsule)
    yield from machine_checks(capsule, registry, data_root)
    made = capsule.head.generator
    same = made == f"benchkit {__version__}"
    yield ReportCheck(
        name="benchkit",
        state="holds" if same else "differs",
        told=f"the report was made by {made}" + ("" if same else f", this is benchkit {__version__}"),
    )
