"""How large a study file's values may be: what is beyond is refused before anything is made of it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchkit.study.tables import Problems, quoted

MOST_BYTES = 2**20
"""The largest study file."""
DEEPEST = 32
"""The most levels of tables and lists inside each other, and the most parts of a dotted path."""
MOST_VALUES = 200_000
LARGEST = 2**63 - 1
"""The largest whole number that TOML knows, and that a ledger can hold."""


def note_extremes(table: Mapping[str, Any], problems: Problems) -> None:
    """Note every value of a table that no setting can have, by its path.

    That is: whole numbers beyond 64 bits, text with a NUL character or half a surrogate pair, and more levels or values
    than a study may have.
    """
    pending: list[tuple[str, Any, int]] = [("", table, 0)]
    for path, value, depth in pending:  # which grows meanwhile
        if len(pending) > MOST_VALUES:
            problems.add("", f"has more than {MOST_VALUES:,} values")
            return
        if isinstance(value, Mapping | list) and depth > DEEPEST:
            problems.add(f"{path[:60]}...", f"is nested too deeply, expected at most {DEEPEST} levels")
        elif isinstance(value, Mapping):
            for key, item in value.items():
                place = f"{path}.{key}" if path else key
                if key.count(".") >= DEEPEST or not _is_fit(key):
                    problems.add(path, f"got the key {quoted(key)}, expected at most {DEEPEST} parts of Unicode text")
                pending.append((place, item, depth + 1))
        elif isinstance(value, list):
            pending += [(f"{path}[{at}]", item, depth + 1) for at, item in enumerate(value)]
        elif isinstance(value, str) and not _is_fit(value):
            problems.add(path, f"got {quoted(value)}, expected Unicode text without NUL characters")
        elif isinstance(value, int) and not -LARGEST - 1 <= value <= LARGEST:
            problems.add(path, f"is a whole number of {value.bit_length():,} bits, expected at most 64")


def _is_fit(text: str) -> bool:
    """Return whether a text can be written to files, databases and commands."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
