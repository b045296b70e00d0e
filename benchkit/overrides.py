"""The `--set KEY=VALUE` overrides of a study file, and the `--only FACTOR=LEVEL` choice of conditions."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from benchkit.errors import StudyError
from benchkit.tree import SECTIONS, changed
from benchkit.typed import Problems


def parse_value(text: str) -> Any:
    """Return the TOML value that a text spells (`5`, `0.1`, `true`, `["bn", "gn"]`), else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def apply_overrides(table: Mapping[str, Any], overrides: Sequence[str], problems: Problems) -> dict[str, Any]:
    """Return the study's table with every `path=value` applied; what cannot be applied is noted in `problems`."""
    result = copy.deepcopy(dict(table))
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            problems.add(f"--set {override}", "expected KEY=VALUE, for example train.epochs=5")
            continue
        try:
            _apply(result, path.strip(), parse_value(text))
        except StudyError as error:
            problems.add(f"--set {override}", error.what)
    return result


def _apply(table: dict[str, Any], path: str, value: Any) -> None:
    first, _, rest = path.partition(".")
    if first in SECTIONS:
        sections = {key: table[key] for key in SECTIONS if key in table}
        table.update(changed(sections, {path: value}))
    elif first == "factors" and rest:
        factors = table.setdefault("factors", {})
        name = rest.replace('"', "")
        if value in ([], False):
            factors.pop(name, None)
        else:
            factors[name] = value
    elif path.startswith("search.space."):
        search = table.setdefault("search", {})
        search.setdefault("space", {})[path.removeprefix("search.space.").replace('"', "")] = value
    elif first == "search" and value is False and not rest:
        table.pop("search", None)
    elif rest:
        section = table.setdefault(first, {})
        if not isinstance(section, dict):
            raise StudyError(f"{first} is {section!r}, not a table")
        section[rest] = value
    else:
        table[path] = value


def parse_only(choices: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the levels asked for by factor; raise `StudyError` for a choice that is not FACTOR=LEVEL[,LEVEL]."""
    wanted: dict[str, tuple[str, ...]] = {}
    for choice in choices:
        path, equals, labels = choice.partition("=")
        if not equals or not labels:
            raise StudyError(f"--only {choice}: expected FACTOR=LEVEL, for example model.norm=gn or model.norm=gn,bn")
        wanted[path.strip()] = (*wanted.get(path.strip(), ()), *(label.strip() for label in labels.split(",")))
    return wanted
