"""Frozen dataclasses to plain JSON values and back, by their type hints. Imports no torch."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
PLAIN = (bool, int, float, str)


def encode(value: Any) -> Any:
    """Return JSON values for a dataclass, recursively: tuples become lists, paths text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def decode(cls: type[T], value: Mapping[str, Any]) -> T:
    """Return `cls` from what `encode` gave; unknown keys are left out, so that newer files stay readable."""
    hints = _hints(cls)  # type: ignore[arg-type]
    return cls(**{key: _decode(hints[key], item) for key, item in value.items() if key in hints})


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields; reading a large ledger asks for the same few thousands of times."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _decode(hint: Any, value: Any) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if value is None or hint is Any or origin is Literal:
        return value
    if origin in (Union, types.UnionType):
        return _decode(next(part for part in parts if part is not type(None)), value)
    if origin is tuple:
        inner = parts[0] if parts[-1:] == (Ellipsis,) else None
        if inner in PLAIN:
            return tuple(value)
        return tuple(_decode(inner or parts[at], item) for at, item in enumerate(value))
    if origin is not None and isinstance(value, Mapping):
        return {key: _decode(parts[1], item) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return decode(cast(type, hint), value)
    return Path(value) if hint is Path else value
