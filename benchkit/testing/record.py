"""What the kit said of a plugin last, kept in the user's cache until the plugin's source or the kit changes.

Reading it imports neither the plugin nor torch, so that a report can tell which of its plugins passed.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchkit import __version__
from benchkit.atomic_write import write_atomically
from benchkit.registry.description_cache import cache_file
from benchkit.registry.entries import Entry
from benchkit.registry.sources import source_stamps
from benchkit.testing.check import KIT_VERSION
from benchkit.testing.kit import Verdict

_MOST = 500
"""The most results a file keeps; the oldest go first."""


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
        failed=tuple(verdict.check for verdict in verdicts if verdict.state in ("failed", "unexpected")),
        known={verdict.check: verdict.note for verdict in verdicts if verdict.state == "expected"},
        when=time.time(),
    )
    records = _records()
    records.pop(_key(entry), None)
    records[_key(entry)] = {"stamp": _stamp(entry), **asdict(result)}
    with contextlib.suppress(OSError):
        write_atomically(_file(), json.dumps(dict(list(records.items())[-_MOST:])).encode())


def recall(entry: Entry) -> KitResult | None:
    """Return what the kit said of a plugin as it is now, None when it has not been checked since it changed."""
    record = _records().get(_key(entry))
    if not isinstance(record, dict) or record.get("stamp") != _stamp(entry):
        return None
    try:
        return KitResult(
            kit=int(record["kit"]),
            passed=int(record["passed"]),
            skipped=int(record["skipped"]),
            failed=tuple(record["failed"]),
            known=dict(record["known"]),
            when=float(record["when"]),
        )
    except (KeyError, TypeError, ValueError):
        return None  # a damaged record is as good as none


def _file() -> Path:
    descriptions = cache_file()
    return descriptions.with_name(descriptions.name.replace("descriptions", "kit"))


def _records() -> dict[str, Any]:
    try:
        content = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _key(entry: Entry) -> str:
    return f"{entry.kind}/{entry.file or entry.distribution}/{entry.name}/{entry.value}"


def _stamp(entry: Entry) -> str:
    return f"{entry.version}, {source_stamps([entry])[entry]}, benchkit {__version__}, kit {KIT_VERSION}"
