"""The [factors] section of a study file: levels, their labels, and what they fix. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from benchkit.errors import StudyError
from benchkit.study.study import Factor, Level, Tree
from benchkit.study.tree import Problems, changed, quoted, resolve


def read_factors(table: Any, settings: Tree, seed: int, problems: Problems) -> tuple[Factor, ...]:
    """Return the factors of a study, noting every problem with them in `problems`."""
    if not isinstance(table, Mapping):
        problems.add("factors", f"got {quoted(table)}, expected a table of lists")
        return ()
    factors = []
    for path, values in table.items():
        if not isinstance(values, list) or not values:
            problems.add(f"factors.{path}", f"got {quoted(values)}, expected a list of levels")
            continue
        levels = read_levels(path, values, problems)
        _note_twins(path, levels, problems)
        for level in levels:
            try_changes(settings, level.settings, seed, f"factors.{path}, level {level.label!r}", problems)
        factors.append(Factor(path=path, levels=levels))
    _note_overlaps(factors, problems)
    return tuple(factors)


def read_levels(path: str, values: list[Any], problems: Problems) -> tuple[Level, ...]:
    """Return a factor's levels; a level with `add` fixes all that the one before it fixes, and what it adds."""
    levels: list[Level] = []
    for value in values:
        before = levels[-1].settings if levels else {}
        levels.append(read_level(path, value, before, problems))
    return tuple(levels)


def read_level(path: str, value: Any, before: Mapping[str, Any], problems: Problems) -> Level:
    """Return one level: a value for `path`, or a table with `label` and one of `value`, `set` and `add`.

    `set` holds dotted paths and values, and may be empty; `add` holds those that come to the ones `before`.
    """
    if not isinstance(value, Mapping) or "label" not in value or not set(value) <= {"label", "value", "set", "add"}:
        return Level(label=label_of(value), settings={path: value})
    label = str(value["label"]).strip()
    if not label:
        problems.add(f"factors.{path}", "a label is empty")
    if set(value) == {"label", "value"}:
        return Level(label=label, settings={path: value["value"]})
    for key, start in (("set", {}), ("add", before)):
        if set(value) == {"label", key} and isinstance(value[key], Mapping):
            return Level(label=label, settings={**start, **value[key]})
    problems.add(
        f"factors.{path}", f"level {label!r} needs a value, or a table `set` (or `add`) of dotted paths and values"
    )
    return Level(label=label, settings={})


def label_of(value: Any) -> str:
    """Return the short text by which a setting's value is known in tables, for example `gn(groups=4)`."""
    if isinstance(value, Mapping):
        options = ", ".join(f"{key}={label_of(item)}" for key, item in value.items() if key != "name")
        return f"{value.get('name', '')}({options})" if options else str(value.get("name", ""))
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return " + ".join(label_of(item) for item in value) or "none"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def try_changes(settings: Tree, changes: Mapping[str, Any], seed: int, where: str, problems: Problems) -> None:
    """Note what is wrong with the settings after some changes and was not wrong before."""
    inner = Problems()
    for path, value in changes.items():
        try:
            settings = changed(settings, {path: value})
        except StudyError as error:
            problems.add_error(where, error)
    resolve(settings, seed=seed, problems=inner)
    for line in inner.lines:
        if line not in problems:
            problems.add(where, line)


def _note_twins(path: str, levels: tuple[Level, ...], problems: Problems) -> None:
    for label, times in sorted(Counter(level.label for level in levels).items()):
        if times > 1:
            problems.add(f"factors.{path}", f"level {label!r} stands twice; give each its own label")
    first: dict[Any, Level] = {}
    for level in levels:
        other = first.setdefault(hashable(level.settings), level)
        if other.label != level.label:
            problems.add(f"factors.{path}", f"levels {other.label!r} and {level.label!r} are the same")


def hashable(value: Any) -> Any:
    """Return what equals another's exactly where two values of TOML are equal, and can be looked up at once."""
    if isinstance(value, Mapping):
        return frozenset((key, hashable(item)) for key, item in value.items())
    return tuple(hashable(item) for item in value) if isinstance(value, list | tuple) else value


def _note_overlaps(factors: list[Factor], problems: Problems) -> None:
    """Two factors that fix one path would train the same condition under several names."""
    owners: dict[str, str] = {}
    for factor in factors:
        for path in dict.fromkeys(path for level in factor.levels for path in level.settings):
            if path in owners:
                problems.add(f"factors.{factor.path}", f"fixes {path}, which the factor {owners[path]!r} fixes too")
            owners.setdefault(path, factor.path)
