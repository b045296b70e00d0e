"""The `--set KEY=VALUE` overrides of a study file, and the `--only FACTOR=LEVEL` choice of conditions."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from benchkit.errors import StudyError, nearest
from benchkit.study.limits import DEEPEST
from benchkit.study.tables import Problems, quoted
from benchkit.study.tree import SECTIONS, changed

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""Numbers as people type them; TOML knows no `.001` and no `1.e-3`."""


def parse_value(text: str) -> Any:
    """Return the TOML value that a text spells (`5`, `0.1`, `true`, `["bn", "gn"]`), else a number, else the text.

    Raises `StudyError` for a value that is nested too deeply or has too many digits.
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return float(text) if NUMBER.fullmatch(text.strip()) else text
    except RecursionError as error:
        raise StudyError(f"is nested too deeply, expected at most {DEEPEST} levels") from error
    except ValueError as error:
        raise StudyError("has a whole number of too many digits, expected at most 64 bits") from error


def apply_overrides(table: Mapping[str, Any], overrides: Sequence[str], problems: Problems) -> dict[str, Any]:
    """Return the study's table with every `path=value` applied; what cannot be applied is noted in `problems`.

    `false` takes away a regularizer (`regularizers.ID`), a factor, a searched path, the search or the confirmation.
    """
    result = dict(table)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            problems.add(f"--set {override[:120]}", "expected KEY=VALUE, for example train.epochs=5")
            continue
        try:
            _apply(result, path.strip(), parse_value(text))
        except StudyError as error:
            problems.add_error(f"--set {override[:120]}", error)
    return result


def _apply(table: dict[str, Any], path: str, value: Any) -> None:
    first, _, rest = path.partition(".")
    if first in SECTIONS:
        sections = {key: table[key] for key in SECTIONS if key in table}
        table.update(changed(sections, {path: value}))
    elif first == "factors" and rest:
        name = rest.replace('"', "")
        if value is False or value == []:
            _remove(_table(table, "factors"), name)
        else:
            _table(table, "factors")[name] = value
    elif path.startswith("search.space."):
        space, name = _table(_table(table, "search"), "space"), path.removeprefix("search.space.").replace('"', "")
        if value is False:
            _remove(space, name)
        else:
            space[name] = value
    elif path in ("search", "confirm") and value is False:
        table.pop(path, None)
    elif rest:
        _table(table, first)[rest.replace('"', "")] = value
    else:
        table[path] = value


def _table(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a table within ours, as a copy that may be changed."""
    table = parent.get(key, {})
    if not isinstance(table, dict):
        raise StudyError(f"{key} is {quoted(table)}, not a table")
    parent[key] = dict(table)
    return parent[key]  # type: ignore[no-any-return]


def _remove(table: dict[str, Any], name: str) -> None:
    if name not in table:
        raise StudyError(f"there is no {name!r} to leave out{nearest(name, table)}")
    del table[name]


def parse_only(choices: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the levels asked for by factor, each once; commas inside parentheses belong to a label.

    Raises `StudyError` with every choice that is not FACTOR=LEVEL[,LEVEL].
    """
    wanted: dict[str, tuple[str, ...]] = {}
    problems = []
    for choice in choices:
        path, equals, text = choice.partition("=")
        labels = [label.strip() for label in re.split(r",(?![^()]*\))", text)]
        if not equals or not path.strip() or not all(labels):
            problems.append(f"--only {choice}: expected FACTOR=LEVEL, for example model.norm=gn or model.norm=gn,bn")
            continue
        wanted[path.strip()] = tuple(dict.fromkeys((*wanted.get(path.strip(), ()), *labels)))
    if problems:
        raise StudyError("the choice of conditions cannot be read", problems=problems)
    return wanted
