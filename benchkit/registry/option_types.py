"""Option types as text: written from annotations, and checked against values without the annotations at hand.

Text is what the description cache, `--json` and error lines hold. Its grammar: `int`, `float`, `bool`, `str`, `path`,
`None`, `any`, `tuple[T, ...]`, `tuple[T, U]`, `list[T]`, and unions `T | U`. An annotation outside it becomes `any`,
which accepts everything.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SCALARS: dict[Any, str] = {
    int: "int",
    float: "float",
    bool: "bool",
    str: "str",
    Path: "path",
    type(None): "None",
    None: "None",
}


class MismatchError(Exception):
    """A value does not have the type that an option's text asks for."""


def type_text(annotation: object) -> str:
    """Return the text of an evaluated annotation; a `Literal` gives the types of its values."""
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(parts[0])
    if origin is typing.Literal:
        return _union(_SCALARS.get(type(part), "any") for part in parts)
    if origin in (typing.Union, types.UnionType):
        return _union(type_text(part) for part in parts)
    if origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        return f"tuple[{type_text(parts[0])}, ...]"
    if origin is tuple and parts:
        return f"tuple[{', '.join(type_text(part) for part in parts)}]"
    if annotation is tuple:
        return "tuple[any, ...]"
    if isinstance(origin, type) and issubclass(origin, Sequence) and len(parts) == 1:
        return f"list[{type_text(parts[0])}]"
    return "list[any]" if annotation is list else "any"


def literal_values(annotation: object) -> tuple[Any, ...]:
    """Return the values of a `Literal`, also inside a union or tuple, or an empty tuple when there is none."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return parts
    return tuple(value for part in parts for value in literal_values(part))


def convert(text: str, value: Any) -> Any:
    """Return `value` as the type that `text` names: lists become tuples, whole numbers floats, strings paths.

    Raises `MismatchError` when it does not fit. A bool is no number, and nan fits nothing.
    """
    members = _split(text, " | ")
    exact = [member for member in members if _exactly(member, value)]
    for member in exact or members:
        try:
            return _convert(member, value)
        except MismatchError:
            continue
    raise MismatchError(f"expected {text}, got {value!r}")


def _exactly(member: str, value: Any) -> bool:
    """Return whether a scalar already has a member's type, so that `1` stays int in `float | int`."""
    return _SCALARS.get(type(value)) == member


def _convert(member: str, value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, float) and math.isnan(value):
        raise MismatchError("nan")
    if member == "any" or _exactly(member, value):
        return value
    if member == "float" and number:
        return float(value)
    if member == "path" and isinstance(value, str | Path):
        return Path(value)
    if member.startswith(("tuple[", "list[")) and isinstance(value, list | tuple):
        return _convert_sequence(member, value)
    raise MismatchError(member)


def _convert_sequence(member: str, value: Sequence[Any]) -> Any:
    name, _, inner = member[:-1].partition("[")
    parts = _split(inner, ", ")
    if name == "list":
        return [convert(inner, item) for item in value]
    if parts[-1] == "...":
        return tuple(convert(parts[0], item) for item in value)
    if len(parts) != len(value):
        raise MismatchError(member)
    return tuple(convert(part, item) for part, item in zip(parts, value, strict=True))


def _union(texts: typing.Iterable[str]) -> str:
    unique = list(dict.fromkeys(texts))
    return "any" if "any" in unique else " | ".join(unique)


def _split(text: str, separator: str) -> list[str]:
    """Return the parts of `text` between separators that stand outside all brackets."""
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if depth == 0 and text.startswith(separator, position):
            parts.append(text[start:position])
            start = position + len(separator)
    return [*parts, text[start:]]
