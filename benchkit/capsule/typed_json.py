"""JSON of strangers to frozen dataclasses, every type checked; and the JSON that a capsule is written in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from benchkit.capsule.archive import CapsuleError
from benchkit.codec import decode, encode

T = TypeVar("T")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

MOST_LETTERS = 100_000
MOST_INTEGER = 2**63 - 1
MOST_LEVELS = 60
"""What a capsule's JSON may hold: letters of a text, the largest whole number, tables and lists within each other."""


def to_text(value: Any, *, indent: int | None = None) -> str:
    """Return a dataclass or plain values as strict ASCII JSON; numbers that JSON lacks become nan, inf and -inf."""
    separators = None if indent else (",", ":")
    return json.dumps(_spelled(encode(value)), indent=indent, separators=separators, allow_nan=False, default=str)


def _spelled(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _spelled(item) for key, item in value.items()}
    return [_spelled(item) for item in value] if isinstance(value, list) else value


def from_text(content: bytes, where: str) -> Any:
    """Return the plain values of a JSON text; raise `CapsuleError` when it is none, or goes over the limits."""
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CapsuleError(f"the capsule's {where} cannot be read: {type(error).__name__}: {error}") from error
    level, depth = [value], 0
    while level:
        if depth > MOST_LEVELS:
            raise CapsuleError(f"the capsule's {where} is nested more than {MOST_LEVELS} deep")
        level = [inner for item in level for inner in _inner(item, where)]
        depth += 1
    return value


def _inner(value: Any, where: str) -> Iterable[Any]:
    """Return what a list or a table holds; raise `CapsuleError` for a text or a number over the limits."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, str) and len(value) > MOST_LETTERS:
        raise CapsuleError(f"the capsule's {where} has a text of {len(value):,} letters, at most {MOST_LETTERS:,} fit")
    if isinstance(value, str) and _LONE_SURROGATE.search(value):
        raise CapsuleError(f"the capsule's {where} has a text that is no Unicode (a lone surrogate)")
    if isinstance(value, int) and abs(value) > MOST_INTEGER:
        digits = len(str(abs(value)))
        raise CapsuleError(f"the capsule's {where} has a whole number of {digits} digits, at most 18 fit")
    return value if isinstance(value, list) else ()


def typed(cls: type[T], value: Any, where: str) -> T:
    """Return a dataclass from plain values; raise `CapsuleError` for the first that has another type than its field.

    Keys that the dataclass lacks are left out, so that a later version may add some; lacking ones take the default.
    """
    return decode(cls, value, f"the capsule's {where}", error=CapsuleError)
