"""Dotted paths into a study's tree of settings: read, change, list. Imports no torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from typing import Any

from benchkit.errors import StudyError, nearest

SECTIONS = ("data", "model", "train", "regularizers")


def identity(regularizer: Mapping[str, Any]) -> str:
    """Return the id by which paths name a regularizer: its `id`, else its `name`."""
    return str(regularizer.get("id", regularizer.get("name", "")))


def changed(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `tree` with the dotted paths in `changes` set; raise `StudyError` for one that leads nowhere."""
    result = copy.deepcopy(dict(tree))
    for path, value in changes.items():
        _set(result, path, copy.deepcopy(value))
    return result


def _set(tree: MutableMapping[str, Any], path: str, value: Any) -> None:
    parts = path.split(".")
    if parts[0] == "regularizers" and len(parts) > 1:
        _set_regularizer(tree, path, parts[1:], value)
        return
    node: MutableMapping[str, Any] = tree
    for part in parts[:-1]:
        child = node.setdefault(part, {})
        if isinstance(child, str):
            child = node[part] = {"name": child}
        if not isinstance(child, MutableMapping):
            raise StudyError(f"{path}: {part} is {child!r}, not a table")
        node = child
    node[parts[-1]] = value


def _set_regularizer(tree: MutableMapping[str, Any], path: str, parts: list[str], value: Any) -> None:
    listed = tree.setdefault("regularizers", [])
    known = [identity(item) for item in listed]
    if parts[0] not in known:
        raise StudyError(
            f"{path}: the study has no regularizer {parts[0]!r}{nearest(parts[0], known)}",
            hint=f"known: {', '.join(known) or 'none'}; add one with [[regularizers]] and name = {parts[0]!r}",
        )
    at = known.index(parts[0])
    if len(parts) == 1:
        if value is not False:
            raise StudyError(f"{path}: got {value!r}, expected false (to leave it out) or a path to one of its options")
        del listed[at]
    elif len(parts) == 2:
        listed[at][parts[1]] = value
    else:
        raise StudyError(f"{path}: expected regularizers.ID.OPTION")


def value_at(tree: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, or None where the tree says nothing."""
    parts = path.split(".")
    if parts[0] == "regularizers" and len(parts) > 1:
        found = [item for item in tree.get("regularizers", []) if identity(item) == parts[1]]
        return found[0].get(parts[2]) if found and len(parts) == 3 else None
    node: Any = tree
    for part in parts:
        if not isinstance(node, Mapping):
            return None
        node = node.get(part)
    return node
