"""Nested tables as TOML text, for the resolved study that a report shows and attaches."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(table: Mapping[str, Any], ordered: Collection[str] = ()) -> str:
    """Return a nested table as TOML: plain values first, then `[table]` and `[[table]]` blocks; None is left out.

    The tables whose dotted paths are in `ordered` keep the order of their keys: each is a line of its own.
    """
    return "\n".join(_lines(table, (), ordered)).strip() + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...], ordered: Collection[str]) -> list[str]:
    inline = ".".join(path) in ordered
    plain = {key: value for key, value in table.items() if (inline or not _is_block(value)) and value is not None}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in table.items() if not inline else ():
        name = ".".join(_key(part) for part in (*path, key))
        if isinstance(value, Mapping):
            lines += [f"\n[{name}]", *_lines(value, (*path, key), ordered)]
        elif _is_block(value):
            for item in value:
                lines += [f"\n[[{name}]]", *_lines(item, (*path, key), ordered)]
    return lines


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
