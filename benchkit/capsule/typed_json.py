"""JSON of strangers to frozen dataclasses, every type checked; and the JSON that a capsule is written in."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from benchkit.capsule.archive import CapsuleError
from benchkit.codec import encode

T = TypeVar("T")
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


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
    """Return the plain values of a JSON text; raise `CapsuleError` when it is none."""
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CapsuleError(f"the capsule's {where} cannot be read: {type(error).__name__}: {error}") from error


def typed(cls: type[T], value: Any, where: str) -> T:
    """Return a dataclass from plain values; raise `CapsuleError` for the first that has another type than its field.

    Keys that the dataclass lacks are left out, so that a later version may add some; lacking ones take the default.
    """
    if not isinstance(value, Mapping):
        raise _wrong(where, value, "a table")
    hints = _hints(cast(Any, cls))
    given = {}
    for field in dataclasses.fields(cast(Any, cls)):
        if field.name in value:
            given[field.name] = _typed(hints[field.name], value[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise CapsuleError(f"the capsule's {where} has no {field.name!r}")
    return cls(**given)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _typed(hint: Any, value: Any, where: str) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        return _of_type(value in parts, value, where, f"one of {', '.join(map(str, parts))}")
    if origin in (Union, types.UnionType):
        return None if value is None else _typed(next(p for p in parts if p is not type(None)), value, where)
    if origin is tuple:
        return _tuple(parts, value, where)
    if dataclasses.is_dataclass(hint):
        return typed(cast(type, hint), value, where)
    if origin is not None:
        _of_type(isinstance(value, Mapping), value, where, "a table")
        return {key: _typed(parts[1], item, f"{where}.{key[:40]}") for key, item in value.items()}
    return _scalar(hint, value, where)


def _tuple(parts: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _of_type(isinstance(value, list), value, where, "a list")
    if parts[-1:] == (Ellipsis,):
        return tuple(_typed(parts[0], item, where) for item in value)
    _of_type(len(value) == len(parts), value, where, f"{len(parts)} values")
    return tuple(_typed(part, item, where) for part, item in zip(parts, value, strict=True))


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float:
        if isinstance(value, str) and value in _NOT_FINITE:
            return _NOT_FINITE[value]
        return float(_of_type(_is_number(value), value, where, "a number"))
    if hint is int:
        return _of_type(isinstance(value, int) and not isinstance(value, bool), value, where, "a whole number")
    return _of_type(isinstance(value, hint), value, where, hint.__name__)


def _is_number(value: Any) -> bool:
    # A whole number beyond what a float holds would raise where it is used.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _of_type(right: bool, value: Any, where: str, expected: str) -> Any:
    if not right:
        raise _wrong(where, value, expected)
    return value


def _wrong(where: str, value: Any, expected: str) -> CapsuleError:
    return CapsuleError(f"the capsule's {where} is {repr(value)[:60]}, expected {expected}")
