"""What makes two trainings the same: a short hash over settings. Imports no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from benchkit.study.settings import Settings

SCHEMA = 1
"""Part of every fingerprint: raised when the engine changes what the same settings mean."""


def fingerprint(settings: Settings) -> str:
    """Return 12 hex digits of a sha256 over all settings that differ from their defaults."""
    return digest(_spoken(settings))


def digest(value: Any) -> str:
    """Return 12 hex digits of a sha256 over plain values; the order of keys, and 1 against 1.0, make no difference."""
    text = json.dumps([SCHEMA, _spoken(value)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _spoken(value: Any) -> Any:
    """Return plain values without the fields that hold their default, so that new fields keep old fingerprints."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _spoken(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spoken(item) for item in value]
    if dataclasses.is_dataclass(value):
        given = ((name, getattr(value, name), default) for name, default in _defaults(cast(Any, type(value))))
        return {name: _spoken(item) for name, item, default in given if item != default}
    return value


@cache
def _defaults(cls: Any) -> tuple[tuple[str, Any], ...]:
    """Return the fields of a dataclass with their defaults, of which factories give equal ones each time."""
    return tuple(
        (field.name, field.default if field.default_factory is dataclasses.MISSING else field.default_factory())
        for field in dataclasses.fields(cls)
    )
