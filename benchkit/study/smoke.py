"""The tiny version of a study (--smoke): digits in place of its data, one epoch, one repeat, two search trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchkit.errors import StudyError
from benchkit.study.study import section_of
from benchkit.study.tree import SECTIONS, Problems, apply_overrides, changed, hashable


def smoke_table(table: Mapping[str, Any], overrides: Sequence[str], problems: Problems) -> dict[str, Any]:
    """Return the tiny version of a study; `--set` has the last word, but not on its data, which are digits."""
    ours = [override for override in overrides if section_of(override) == "data"]
    with_data = apply_overrides(table, ours, problems)
    try:
        small = smoke_form(with_data)
    except StudyError as error:
        problems.add("smoke", error.what)
        small = {key: value for key, value in with_data.items() if key != "smoke"}
    return apply_overrides(small, [override for override in overrides if override not in ours], problems)


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
        search["space"] = {path: spanned for path, spanned in search["space"].items() if not _fixed(path)}
        if not search["space"]:
            del result["search"]
            result.pop("confirm", None)
            return
    result["search"] = search
    if result.get("confirm") != {"n": 0}:
        result["confirm"] = {"n": 1}
