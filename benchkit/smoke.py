"""The tiny version of any study: what `--smoke` trains. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchkit.tree import SECTIONS, changed

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
    (anything under `data`, the number of epochs, the batch size) are left out. Raises `StudyError` for a path under
    [smoke] that leads nowhere.
    """
    result = {key: value for key, value in table.items() if key != "smoke"}
    data = table.get("data")
    if not isinstance(data, Mapping) or data.get("name") != "digits":
        result["data"] = {"name": "digits", "image_size": 16}
    sections = {key: result[key] for key in SECTIONS if key in result}
    own = table.get("smoke")
    result.update(changed(sections, {**SMALL, **(own if isinstance(own, Mapping) else {})}))
    result["repeats"] = {"n": 1}
    if isinstance(table.get("factors"), Mapping):
        result["factors"] = {path: levels for path, levels in table["factors"].items() if not _is_fixed(path, levels)}
    if isinstance(table.get("search"), Mapping):
        _shrink_search(result)
    return result


def _is_fixed(path: str, levels: Any) -> bool:
    """Return whether a factor varies only what the tiny version fixes."""
    paths = {path}
    for level in levels if isinstance(levels, list) else ():
        if isinstance(level, Mapping) and isinstance(level.get("set"), Mapping):
            paths = {*(paths - {path}), *level["set"]}
    return all(one in SMALL or one.startswith("data.") for one in paths)


def _shrink_search(result: dict[str, Any]) -> None:
    search = {**result["search"], "trials": 2}
    if isinstance(search.get("space"), Mapping):
        search["space"] = {path: one for path, one in search["space"].items() if not _is_fixed(path, ())}
        if not search["space"]:
            del result["search"]
            result.pop("confirm", None)
            return
    result["search"] = search
    if result.get("confirm") != {"n": 0}:
        result["confirm"] = {"n": 1}
