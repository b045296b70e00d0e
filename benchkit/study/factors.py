"""The [factors] of a study file, and `--set`: levels, their labels, and what they fix. Imports no torch."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchkit.errors import StudyError, nearest
from benchkit.study.study import Factor, Level, Tree
from benchkit.study.tree import DEEPEST, SECTIONS, Problems, changed, quoted, resolve


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


SMALL: Mapping[str, Any] = {
    "data.train_size": 80,
    "data.val_size": 40,
    "data.test_size": 40,
    "train.epochs": 1,
    "train.batch_size": 16,
}
"""What replaces a study's own settings, before those of its [smoke] section."""


def smoke_form(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tiny version of a study: digits in place of its data, one epoch, one repeat, two search trials.

    Paths under the table's own [smoke] replace these defaults. Levels and searches of what the tiny version fixes
    (anything under `data` but `normalize`, the number of epochs, the batch size) are left out, and so are the published
    numbers. Raises `StudyError` for a path under [smoke] that leads nowhere.
    """
    result = {key: value for key, value in table.items() if key not in ("smoke", "published")}
    data = table.get("data")
    if not isinstance(data, Mapping) or data.get("name") != "digits":
        kept = {"normalize": data["normalize"]} if isinstance(data, Mapping) and "normalize" in data else {}
        result["data"] = {"name": "digits", "image_size": 16, **kept}
    sections = {key: result[key] for key in SECTIONS if key in result}
    own = table.get("smoke")
    result.update(changed(sections, {**SMALL, **(own if isinstance(own, Mapping) else {})}))
    result["repeats"] = {"n": 1}
    if isinstance(table.get("factors"), Mapping):
        factors = {path: levels for path, levels in table["factors"].items() if not _is_fixed(path, levels)}
        result["factors"] = {path: _loosened(levels) for path, levels in factors.items()}
    if isinstance(table.get("search"), Mapping):
        _shrink_search(result)
    return result


def _is_fixed(path: str, levels: Any) -> bool:
    """Return whether a factor varies only what the tiny version fixes."""
    tables = [table for level in levels for table in _changes(level).values()] if isinstance(levels, list) else []
    paths = [inner for table in tables for inner in table] if tables else [path]
    return all(map(_fixed, paths))


def _fixed(path: str) -> bool:
    return path in SMALL or (path.startswith("data.") and path != "data.normalize")


def _changes(level: Any) -> dict[str, Mapping[str, Any]]:
    """Return a level's tables of paths, by their key."""
    if not isinstance(level, Mapping):
        return {}
    return {key: level[key] for key in ("set", "add") if isinstance(level.get(key), Mapping)}


def _loosened(levels: Any) -> Any:
    """Return a factor's levels without what the tiny version fixes.

    A level of nothing else is left out, and so is one that fixes the same as an earlier one.
    """
    if not isinstance(levels, list):
        return levels
    kept: list[Any] = []
    seen = set()
    for level in levels:
        tables = _changes(level)
        loose = {key: {p: v for p, v in table.items() if not _fixed(p)} for key, table in tables.items()}
        if any(tables[key] and not loose[key] for key in tables):
            continue
        if "set" in loose:
            key = hashable(loose["set"])
            if key in seen:
                continue
            seen.add(key)
        kept.append({**level, **loose} if tables else level)
    return kept


def _shrink_search(result: dict[str, Any]) -> None:
    search = {**result["search"], "trials": 2}
    if isinstance(search.get("space"), Mapping):
        search["space"] = {path: spanned for path, spanned in search["space"].items() if not _is_fixed(path, ())}
        if not search["space"]:
            del result["search"]
            result.pop("confirm", None)
            return
    result["search"] = search
    if result.get("confirm") != {"n": 0}:
        result["confirm"] = {"n": 1}
