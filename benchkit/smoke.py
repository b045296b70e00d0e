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

    Paths under the table's own [smoke] replace these defaults. What levels and searches fix of it themselves (anything
    under `data`, the number of epochs, the batch size) is left out, and so are the published numbers. Raises
    `StudyError` for a path under [smoke] that leads nowhere.
    """
    result = {key: value for key, value in table.items() if key not in ("smoke", "published")}
    data = table.get("data")
    if not isinstance(data, Mapping) or data.get("name") != "digits":
        result["data"] = {"name": "digits", "image_size": 16}
    sections = {key: result[key] for key in SECTIONS if key in result}
    own = table.get("smoke")
    result.update(changed(sections, {**SMALL, **(own if isinstance(own, Mapping) else {})}))
    result["repeats"] = {"n": 1}
    if isinstance(table.get("factors"), Mapping):
        smaller = {path: _levels(path, levels) for path, levels in table["factors"].items()}
        result["factors"] = {path: levels for path, levels in smaller.items() if levels != []}
    if isinstance(table.get("search"), Mapping):
        _shrink_search(result)
    return result


def _is_fixed(path: str) -> bool:
    """Return whether the tiny version says itself what a setting is."""
    return path in SMALL or path.startswith("data.")


def _levels(path: str, levels: Any) -> Any:
    """Return a factor's levels without what is fixed, each that is then left once; anything but a list as it is."""
    if not isinstance(levels, list):
        return levels
    smaller: list[Any] = []
    for level in levels:
        if isinstance(level, Mapping) and isinstance(level.get("set"), Mapping):
            free = {one: value for one, value in level["set"].items() if not _is_fixed(one)}
            known = [other["set"] for other in smaller if isinstance(other, Mapping) and "set" in other]
            smaller += [{**level, "set": free}] if free and free not in known else []
        elif not _is_fixed(path):
            smaller.append(level)
    return smaller


def _shrink_search(result: dict[str, Any]) -> None:
    search = {**result["search"], "trials": 2}
    if isinstance(search.get("space"), Mapping):
        search["space"] = {path: one for path, one in search["space"].items() if not _is_fixed(path)}
        if not search["space"]:
            del result["search"]
            result.pop("confirm", None)
            return
    result["search"] = search
    if result.get("confirm") != {"n": 0}:
        result["confirm"] = {"n": 1}
