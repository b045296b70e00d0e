"""The whole verification of a report: digests, numbers summarised anew, and this machine beside the report's."""

from __future__ import annotations

from pathlib import Path

from benchkit import __version__
from benchkit.capsule.reading import Capsule, restored
from benchkit.registry import Registry
from benchkit.verify.check import ReportCheck, Verification
from benchkit.verify.consistency import consistency_checks, digest_checks
from benchkit.verify.machine import machine_checks
from benchkit.verify.opening import ReportFile
from benchkit.verify.recomputed import recomputed_checks


def verify(report: ReportFile, capsule: Capsule, registry: Registry, data_root: Path) -> Verification:
    """Return what holds of a report, what does not, and what could not be checked; nothing is trained or downloaded.

    Raises `ReportError` for a capsule whose values cannot be used.
    """
    made, here = capsule.head.generator, f"benchkit {__version__}"
    with restored(capsule) as studies:
        checks = (
            *digest_checks(report, capsule),
            *recomputed_checks(report, capsule, studies),
            *consistency_checks(capsule),
            *machine_checks(capsule, registry, data_root),
            ReportCheck(
                name="benchkit",
                state="holds" if made == here else "differs",
                told=f"the report was made by {made}" + ("" if made == here else f", this is {here}"),
            ),
        )
    return Verification(checks=checks)
