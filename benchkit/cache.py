"""The user's cache: its folder, and files of records in it. All of it may be lost, and is then made anew.

Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchkit.atomic_write import write_atomically
from benchkit.errors import BenchkitError

_FORMAT = 2


def home_folder() -> Path:
    """Return the user's home folder; where the system knows none, one of the user's own among temporary files.

    Users of containers often have neither HOME nor an entry in passwd. HOME then names that folder, so that libraries
    and child processes find one, too. Raises `BenchkitError` when no folder can be made that is theirs alone: caches
    hold compiled code, which nobody else may put there.
    """
    try:
        return Path.home()
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / f"benchkit-home-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        private = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o077
        reason = "" if private else "others can write there"
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise BenchkitError(
            f"the user {os.getuid()} has no home folder, and {folder} cannot take its place: {reason}",
            hint="set HOME to a folder of yours",
        )
    os.environ["HOME"] = str(folder)
    return folder


def cache_folder() -> Path:
    """Return where caches are kept: `BENCHKIT_CACHE`, else `$XDG_CACHE_HOME/benchkit`, else `~/.cache/benchkit`."""
    chosen = os.environ.get("BENCHKIT_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else home_folder() / ".cache") / "benchkit"


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
