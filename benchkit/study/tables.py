"""Tables of TOML: how large they may be, and into typed dataclasses, every problem collected. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from benchkit.errors import BenchkitError, nearest
from benchkit.storage import WORDS

T = TypeVar("T")

MOST_LINES = 50
"""The most problems that one error tells; a factor of thousands of wrong levels has as many."""
MOST_LETTERS = 120
"""The most letters of a wrong value that a problem quotes."""


MOST = 1.7976931348623157e308
Finite = Annotated[float, msgspec.Meta(ge=-MOST, le=MOST)]
"""A number that is neither infinite nor nan."""


class Problems:
    """The problems noted so far, each a line `where: what is wrong`, each once."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, line: str) -> bool:
        return line in self._lines

    @property
    def lines(self) -> list[str]:
        """Return the lines in the order in which they were noted."""
        return list(self._lines)

    @property
    def first_lines(self) -> list[str]:
        """Return the lines that an error tells: at most `MOST_LINES`, and how many more there are."""
        lines = self.lines
        more = len(lines) - MOST_LINES
        return [*lines[:MOST_LINES], f"and {more:,} more"] if more > 0 else lines

    def add(self, where: str, what: str) -> None:
        """Note one problem at a key path."""
        self._lines[f"{where}: {what}" if where else what] = None

    def add_error(self, where: str, error: BenchkitError) -> None:
        """Note an error as one problem at a key path, with its hint."""
        self.add(where, f"{error.what}; {error.hint}" if error.hint else error.what)

    def unknown(self, where: str, key: str, known: Sequence[str]) -> None:
        """Note a key that does not exist, with what does."""
        self.add(f"{where}.{key}" if where else key, f"unknown key{nearest(key, known)}; known: {', '.join(known)}")


def quoted(value: Any) -> str:
    """Return a value as a message shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}... ({len(text):,} letters)"


def fits(value: Any, hint: Any) -> bool:
    """Return whether a TOML value fits a type hint: whole numbers are floats too, lists tuples; nan and inf nothing."""
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    return not isinstance(value, float) or math.isfinite(value)


def expected(hint: Any, value: Any = None) -> str:
    """Return what a type hint asks for, in words, given a value that does not fit it."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(parts)}{nearest(value, parts) if isinstance(value, str) else ''}"
    if origin is Annotated and fits(value, parts[0]):
        low, high = parts[1].ge, parts[1].le
        return f"at least {low:,}" if high in (None, MOST) else f"{low:,} to {high:,}"
    if origin is Annotated or type(None) in parts:
        return expected(parts[0], value)
    if origin is Mapping and parts[1] is str:
        return "a table of text"
    kind = {tuple: "array", Mapping: "object", dict: "object"}.get(origin or hint, getattr(hint, "__name__", str(hint)))
    return WORDS.get(kind, kind)


def each_table(listed: Any, where: str, problems: Problems) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the tables of a list, each with its place, noting what is no list and no table."""
    if not isinstance(listed, list):
        problems.add(where, f"got {quoted(listed)}, expected a list of tables")
        return
    for at, table in enumerate(listed):
        if isinstance(table, Mapping):
            yield f"{where}[{at}]", table
        else:
            problems.add(f"{where}[{at}]", f"got {quoted(table)}, expected a table")


def typed(
    cls: type[T], table: Mapping[str, Any], where: str, problems: Problems, *, also: Sequence[str] = (), **given: Any
) -> T | None:
    """Return `cls` made from a table (and `given` fields), or None after noting what is wrong with it.

    `also` names keys that the table may have beside the fields; they were read before.
    """
    hints, required = _fields(cast(Any, cls))
    values: dict[str, Any] = dict(given)
    before = len(problems)
    for key, value in table.items():
        if key not in hints or key in given:
            problems.unknown(where, key, [*(name for name in hints if name not in given), *also])
            continue
        try:
            values[key] = msgspec.convert(value, hints[key])
        except msgspec.ValidationError:
            problems.add(f"{where}.{key}", f"got {quoted(value)}, expected {expected(hints[key], value)}")
    for name in required:
        if name not in values and name not in table:
            problems.add(f"{where}.{name}", "is missing")
    return cls(**values) if len(problems) == before else None


@cache
def _fields(cls: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the types of a dataclass's fields by name, and the names of those without a default."""
    hints = get_type_hints(cls, include_extras=True)
    needed = (f for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING)
    return {field.name: hints[field.name] for field in fields(cls)}, tuple(field.name for field in needed)


MOST_BYTES = 2**20
"""The largest study file."""
DEEPEST = 32
"""The most levels of tables and lists inside each other, and the most parts of a dotted path."""
MOST_VALUES = 200_000
LARGEST = 2**63 - 1
"""The largest whole number that TOML knows, and that a ledger can hold."""


def note_extremes(table: Mapping[str, Any], problems: Problems) -> None:
    """Note every value of a table that no setting can have, by its path.

    That is: whole numbers beyond 64 bits, text with a NUL character or half a surrogate pair, and more levels or values
    than a study may have.
    """
    pending: list[tuple[str, Any, int]] = [("", table, 0)]
    for path, value, depth in pending:  # which grows meanwhile
        if len(pending) > MOST_VALUES:
            problems.add("", f"has more than {MOST_VALUES:,} values")
            return
        if isinstance(value, Mapping | list) and depth > DEEPEST:
            problems.add(f"{path[:60]}...", f"is nested too deeply, expected at most {DEEPEST} levels")
        elif isinstance(value, Mapping):
            for key, item in value.items():
                inner = f"{path}.{key}" if path else key
                if key.count(".") >= DEEPEST or not _is_fit(key):
                    problems.add(path, f"got the key {quoted(key)}, expected at most {DEEPEST} parts of Unicode text")
                pending.append((inner, item, depth + 1))
        elif isinstance(value, list):
            pending += [(f"{path}[{at}]", item, depth + 1) for at, item in enumerate(value)]
        elif isinstance(value, str) and not _is_fit(value):
            problems.add(path, f"got {quoted(value)}, expected Unicode text without NUL characters")
        elif isinstance(value, int) and not -LARGEST - 1 <= value <= LARGEST:
            problems.add(path, f"is a whole number of {value.bit_length():,} bits, expected at most 64")


def _is_fit(text: str) -> bool:
    """Return whether a text can be written to files, databases and commands."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
