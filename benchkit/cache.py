"""The user's cache: its folder, and files of records in it. All of it may be lost, and is then made anew.

Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchkit.atomic_write import write_atomically

_FORMAT = 2


def cache_folder() -> Path:
    """Return where caches are kept: `BENCHKIT_CACHE`, else `$XDG_CACHE_HOME/benchkit`, else `~/.cache/benchkit`."""
    chosen = os.environ.get("BENCHKIT_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "benchkit"


@dataclass(frozen=True, slots=True)
class CachedRecords:
    """One JSON file of records by key, each with a stamp of what it rests on; the oldest of more than `most` go first.

    Environments of Python differ in what they can import, so each has a file of its own. A writer that loses a race
    costs its records only their making; a file that cannot be written is done without.
    """

    name: str
    most: int

    @property
    def path(self) -> Path:
        """Return the file of this Python environment."""
        environment = hashlib.sha256(f"{sys.prefix}\n{sys.version}".encode()).hexdigest()[:8]
        return cache_folder() / f"{self.name}-{environment}.json"

    def read(self, stamps: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Return the records whose stamp is still the given one, by key; an unreadable file counts as empty."""
        records = self._all()
        return {
            key: records[key]
            for key, stamp in stamps.items()
            if isinstance(records.get(key), dict) and records[key].get("stamp") == stamp
        }

    def write(self, new: Mapping[str, Mapping[str, Any]], stamps: Mapping[str, str]) -> None:
        """Add records of JSON values, replacing older ones of the same keys."""
        if not new:
            return
        records = {key: record for key, record in self._all().items() if key not in new}
        records |= {key: {"stamp": stamps[key], **record} for key, record in new.items()}
        kept = dict(list(records.items())[-self.most :])
        with contextlib.suppress(OSError):
            write_atomically(self.path, json.dumps({"format": _FORMAT, "records": kept}).encode())

    def _all(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            return {}
        records = content.get("records")
        return records if isinstance(records, dict) else {}
