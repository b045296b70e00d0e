"""Frozen dataclasses to plain JSON values and back, every type checked. Imports no torch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from benchkit.errors import BenchkitError

T = TypeVar("T")

WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
"""What people call the types that messages name."""


def encode(value: Any) -> Any:
    """Return JSON values for a dataclass, recursively: tuples become lists, paths text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def decode(cls: type[T], value: Any, where: str = "", *, error: type[BenchkitError] = BenchkitError) -> T:
    """Return `cls` from what `encode` gave; unknown keys are left out, so that newer files stay readable.

    A number may be spelled nan, inf or -inf, which JSON lacks. Raises `error` for the first value of another type than
    its field, and for a field without a default that is missing; its message is one line that starts with `where` and
    the path below it.
    """
    try:
        return _converted(cls, value)
    except msgspec.ValidationError as problem:
        raise error(f"{where or cls.__name__}{_in_words(problem)}") from problem
    except UnicodeEncodeError as problem:
        raise error(f"{where or cls.__name__} has a text that is no Unicode (a lone surrogate)") from problem


def _converted(cls: type[T], value: Any) -> T:
    try:
        return msgspec.convert(value, cls, dec_hook=_from_text)
    except msgspec.ValidationError as problem:
        if not str(problem).startswith("Expected `float`, got `str`"):
            raise
    return msgspec.convert(value, cls, strict=False, dec_hook=_from_text)


def _from_text(hint: Any, value: Any) -> Any:
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is object:
        return value
    raise NotImplementedError(f"no field has the type {hint}")


def _in_words(problem: msgspec.ValidationError) -> str:
    """Return the place and what is wrong with it: `.cost.seconds: expected a number, got text`."""
    what, _, path = str(problem).partition(" - at ")
    where = path.replace("`", "").replace("$", "")
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"{where} has no {missing[1]!r}"
    if invalid := re.fullmatch(r"Invalid enum value (.*)", what, re.DOTALL):
        return f"{where} is {invalid[1][:60]}, which is none of its values"
    what = what.replace("Number out of range", "Expected a number that 64 bits can hold")
    what = re.sub(r"`([a-z |]+)`", lambda named: " or ".join(WORDS.get(t, t) for t in named[1].split(" | ")), what)
    return f"{where}: {what[0].lower()}{what[1:]}"
