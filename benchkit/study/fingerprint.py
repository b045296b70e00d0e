"""What makes two trainings the same: a short hash over settings. Imports no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

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
    if dataclasses.is_dataclass(value):
        spoken = {}
        for one in dataclasses.fields(value):
            item = getattr(value, one.name)
            factory = one.default_factory
            default = factory() if factory is not dataclasses.MISSING else one.default
            if item != default:
                spoken[one.name] = _spoken(item)
        return spoken
    if isinstance(value, Mapping):
        return {str(key): _spoken(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spoken(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
