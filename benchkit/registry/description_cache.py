"""The user's cache of plugin descriptions: one JSON file for each Python environment, replaced atomically."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchkit.atomic_write import write_atomically
from benchkit.registry.description import Description, from_json, to_json
from benchkit.registry.entries import Entry

_FORMAT = 1
_MOST = 2000
"""The most descriptions a file keeps; the oldest go first."""


def cache_folder() -> Path:
    """Return where they are kept: `BENCHKIT_CACHE`, else `$XDG_CACHE_HOME/benchkit`, else `~/.cache/benchkit`."""
    chosen = os.environ.get("BENCHKIT_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "benchkit"


def cache_file() -> Path:
    """Return the cache file of this Python environment; environments differ in what their plugins can import."""
    environment = hashlib.sha256(f"{sys.prefix}\n{sys.version}".encode()).hexdigest()[:8]
    return cache_folder() / f"descriptions-{environment}.json"


def read_cache(stamps: Mapping[Entry, str]) -> dict[Entry, Description]:
    """Return the cached descriptions whose stamp is still the given one; an unreadable cache counts as empty."""
    records = _records()
    found: dict[Entry, Description] = {}
    for entry, stamp in stamps.items():
        record = records.get(_key(entry))
        if isinstance(record, dict) and record.get("stamp") == stamp:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a damaged record is made anew
                found[entry] = from_json(entry, record)
    return found


def write_cache(descriptions: Sequence[Description], stamps: Mapping[Entry, str]) -> None:
    """Add descriptions to the cache, replacing older ones of the same plugins.

    A writer that loses a race costs its entries only another import; a cache that cannot be written is done without.
    """
    if not descriptions:
        return
    records = _records()
    for description in descriptions:
        key = _key(description.entry)
        records.pop(key, None)
        records[key] = {"stamp": stamps[description.entry], **to_json(description)}
    kept = dict(list(records.items())[-_MOST:])
    with contextlib.suppress(OSError):
        write_atomically(cache_file(), json.dumps({"format": _FORMAT, "descriptions": kept}).encode())


def _records() -> dict[str, Any]:
    try:
        content = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        return {}
    records = content.get("descriptions")
    return records if isinstance(records, dict) else {}


def _key(entry: Entry) -> str:
    place = str(entry.file) if entry.file else entry.distribution
    return f"{entry.kind}/{place}/{entry.name}/{entry.value}"
