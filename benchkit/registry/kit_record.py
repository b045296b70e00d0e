"""What the kit said of a plugin last, kept in the user's cache until the plugin's source or the kit changes.

Reading it imports neither the plugin nor torch, so that a report can tell which of its plugins passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import msgspec

from benchkit import __version__
from benchkit.registry.description import source_stamps
from benchkit.registry.registry import Entry
from benchkit.storage import CachedRecords

CACHE = CachedRecords("kit", most=500)

KIT_VERSION = 5
"""The version of the conformance kit (`benchkit.testing`); raised when a check is added or made stricter."""

UNCHECKED = "not checked by the kit"
"""What is said of a plugin that the kit has not checked since it changed."""


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


def keep(entry: Entry, result: KitResult) -> None:
    """Keep what the kit said of a plugin; a cache that cannot be written is done without."""
    CACHE.write({entry.key: asdict(result)}, {entry.key: _stamp(entry)})


def recall(entry: Entry) -> KitResult | None:
    """Return what the kit said of a plugin as it is now, None when it has not been checked since it changed."""
    record = CACHE.read({entry.key: _stamp(entry)}).get(entry.key, {})
    try:
        return msgspec.convert(record, KitResult)
    except msgspec.ValidationError:
        return None  # there is none, or a damaged one


def kit_words(entry: Entry) -> str:
    """Return what the kit said of a plugin as it is now, in words."""
    checked = recall(entry)
    return checked.words if checked else UNCHECKED


def _stamp(entry: Entry) -> str:
    return f"{entry.version}, {source_stamps([entry])[entry]}, benchkit {__version__}, kit {KIT_VERSION}"
