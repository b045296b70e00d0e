"""Nested tables as TOML text, for the resolved study that a report shows and attaches."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(table: Mapping[str, Any]) -> str:
    """Return a nested table as TOML: plain values first, then `[table]` and `[[table]]` blocks; None is left out.

    A table within a table keeps its order: where plain values follow tables in it, these are written inline.
    """
    return "\n".join(_lines(table, ())).strip() + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    if len(path) > 1 and _plain_follows_block(table):
        return [f"{_key(key)} = {_value(value)}" for key, value in table.items() if value is not None]
    plain = {key: value for key, value in table.items() if not _is_block(value) and value is not None}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        name = ".".join(_key(part) for part in (*path, key))
        if isinstance(value, Mapping):
            lines += [f"\n[{name}]", *_lines(value, (*path, key))]
        elif _is_block(value):
            for item in value:
                lines += [f"\n[[{name}]]", *_lines(item, (*path, key))]
    return lines


def _plain_follows_block(table: Mapping[str, Any]) -> bool:
    blocks = [_is_block(value) for value in table.values() if value is not None]
    return any(first and not second for first, second in pairwise(blocks))


def _is_block(value: Any) -> bool:
    """Return whether a value is a table, or a list of tables and nothing else."""
    listed = isinstance(value, list | tuple) and bool(value)
    return isinstance(value, Mapping) or (listed and all(isinstance(item, Mapping) for item in value))


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items() if item is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value if item is not None)}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
