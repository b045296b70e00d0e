"""What the kit said of a plugin last, kept in the user's cache until the plugin's source or the kit changes.

Reading it imports neither the plugin nor torch, so that a report can tell which of its plugins passed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import msgspec

from benchkit import __version__
from benchkit.registry.entries import Entry, source_stamps
from benchkit.storage import CachedRecords
from benchkit.testing.check import KIT_VERSION
from benchkit.testing.kit import BAD, Verdict

CACHE = CachedRecords("kit", most=500)


@dataclass(frozen=True, slots=True, kw_only=True)
class KitResult:
    """The outcome of a plugin's checks: version of the kit, counts, failed checks, and when (seconds since 1970).

    `known` maps checks that failed as stated to the reason; they do not count as failed.
    """

    kit: int
    passed: int
    skipped: int
    failed: tuple[str, ...]
    known: Mapping[str, str]
    when: float

    @property
    def words(self) -> str:
        """Return the outcome in words, such as `passed all 19 checks of kit 1`."""
        ran = self.passed + len(self.failed) + len(self.known)
        if self.failed:
            start = f"failed {len(self.failed)} of {ran} checks of kit {self.kit} ({', '.join(self.failed)})"
        elif self.known:
            start = f"passed {self.passed} of {ran} checks of kit {self.kit}"
        else:
            start = f"passed all {ran} checks of kit {self.kit}"
        known = "; ".join(f"known to fail {check}: {reason}" for check, reason in self.known.items())
        skipped = f"{self.skipped} could not be made" if self.skipped else ""
        return "; ".join(part for part in (start, known, skipped) if part)


def remember(entry: Entry, verdicts: Sequence[Verdict]) -> None:
    """Keep the verdicts of a plugin; a cache that cannot be written is done without."""
    states = [verdict.state for verdict in verdicts]
    result = KitResult(
        kit=KIT_VERSION,
        passed=states.count("passed"),
        skipped=states.count("skipped"),
        failed=tuple(verdict.check for verdict in verdicts if verdict.state in BAD),
        known={verdict.check: verdict.note for verdict in verdicts if verdict.state == "expected"},
        when=time.time(),
    )
    CACHE.write({entry.key: asdict(result)}, {entry.key: _stamp(entry)})


def recall(entry: Entry) -> KitResult | None:
    """Return what the kit said of a plugin as it is now, None when it has not been checked since it changed."""
    record = CACHE.read({entry.key: _stamp(entry)}).get(entry.key, {})
    try:
        return msgspec.convert(record, KitResult)
    except msgspec.ValidationError:
        return None  # there is none, or a damaged one


def _stamp(entry: Entry) -> str:
    return f"{entry.version}, {source_stamps([entry])[entry]}, benchkit {__version__}, kit {KIT_VERSION}"
