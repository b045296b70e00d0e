"""Tables of TOML into typed dataclasses, every problem collected. Imports no torch."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from benchkit.errors import nearest

T = TypeVar("T")

WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", tuple: "a list", dict: "a table"}


class Problems:
    """The problems found so far, each a line `where: what is wrong`."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, where: str, what: str) -> None:
        """Note one problem at a key path."""
        line = f"{where}: {what}" if where else what
        if line not in self.lines:
            self.lines.append(line)

    def unknown(self, where: str, key: str, known: Sequence[str]) -> None:
        """Note a key that does not exist, with what does."""
        self.add(f"{where}.{key}" if where else key, f"unknown key{nearest(key, known)}; known: {', '.join(known)}")


def fits(value: Any, hint: Any) -> bool:
    """Return whether a TOML value fits a type hint: whole numbers are floats too, lists tuples, nan nothing."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in get_args(hint))
    if hint is Any:
        return True
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        number = isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
        return number and math.isfinite(value)
    if origin is tuple:
        parts = get_args(hint)
        if not isinstance(value, (list, tuple)):
            return False
        inner = [parts[0]] * len(value) if parts[-1:] == (Ellipsis,) else list(parts)
        return len(inner) == len(value) and all(fits(v, p) for v, p in zip(value, inner, strict=True))
    if hint is type(None):
        return value is None
    kind = origin or hint
    return isinstance(value, Mapping if kind in (Mapping, dict) else kind)


def word(hint: Any) -> str:
    """Return what a type hint asks for, in words."""
    return WORDS.get(get_origin(hint) or hint, str(hint))


def typed(
    cls: type[T], table: Mapping[str, Any], where: str, problems: Problems, *, also: Sequence[str] = (), **given: Any
) -> T | None:
    """Return `cls` made from a table (and `given` fields), or None after noting what is wrong with it.

    `also` names keys that the table may have beside the fields; they were read before.
    """
    hints = get_type_hints(cls)
    known = {field.name: field for field in fields(cls) if field.name not in given}  # type: ignore[arg-type]
    values: dict[str, Any] = dict(given)
    before = len(problems.lines)
    for key, value in table.items():
        if key not in known:
            problems.unknown(where, key, [*known, *also])
        elif not fits(value, hints[key]):
            problems.add(f"{where}.{key}", f"got {value!r}, expected {word(hints[key])}")
        else:
            values[key] = _as(hints[key], value)
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            problems.add(f"{where}.{name}", "is missing")
    return cls(**values) if len(problems.lines) == before else None


def _as(hint: Any, value: Any) -> Any:
    """Return a fitting value as its hint has it: lists as tuples, whole numbers as floats where a float is meant."""
    if isinstance(value, list):
        parts = get_args(hint) if get_origin(hint) is tuple else ()
        inner = parts[0] if parts else Any
        return tuple(_as(inner, item) for item in value)
    floats = hint is float or (get_origin(hint) in (Union, types.UnionType) and float in get_args(hint))
    return float(value) if floats and fits(value, int) else value
