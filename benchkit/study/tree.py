"""Dotted paths into a study's tree of settings: read, change, list. Trees are never changed in place. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchkit.errors import StudyError, nearest
from benchkit.study.tables import quoted

SECTIONS = ("data", "model", "train", "regularizers")


def identity(regularizer: Mapping[str, Any]) -> str:
    """Return the id by which paths name a regularizer: its `id`, else its `name`."""
    return str(regularizer.get("id", regularizer.get("name", "")))


def regularizer_tables(listed: Any) -> list[dict[str, Any]]:
    """Return the regularizers of a tree as new tables; raise `StudyError` for what is no list of names and tables."""
    if not isinstance(listed, list | tuple):
        raise StudyError(f"regularizers: got {quoted(listed)}, expected a list of tables ([[regularizers]])")
    what = "expected a plugin's name or a table with name and options"
    problems = [
        f"regularizers[{at}]: got {quoted(item)}, {what}"
        for at, item in enumerate(listed)
        if not isinstance(item, str | Mapping)
    ]
    if problems:
        raise StudyError(problems[0], problems=problems[1:])
    return [{"name": item} if isinstance(item, str) else dict(item) for item in listed]


def changed(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `tree` with the dotted paths in `changes` set; raise `StudyError` for one that leads nowhere.

    What no path goes through is shared with `tree`, so that thousands of conditions cost what they differ in.
    """
    result = dict(tree)
    for path, value in changes.items():
        parts = path.split(".")
        if parts[0] == "regularizers" and len(parts) > 1:
            result["regularizers"] = _changed_regularizers(result.get("regularizers", []), path, parts[1:], value)
        else:
            _set(result, path, parts, value)
    return result


def _set(node: dict[str, Any], path: str, parts: list[str], value: Any) -> None:
    """Set a path in a tree whose outermost table is ours alone."""
    for part in parts[:-1]:
        child = node.get(part, {})
        if isinstance(child, str):
            child = {"name": child}
        if not isinstance(child, Mapping):
            raise StudyError(f"{path}: {part} is {quoted(child)}, not a table")
        node[part] = dict(child)
        node = node[part]
    node[parts[-1]] = value


def _changed_regularizers(listed: Any, path: str, parts: list[str], value: Any) -> list[dict[str, Any]]:
    try:
        tables = regularizer_tables(listed)
    except StudyError as error:
        raise StudyError(f"{path}: {error.what}") from error
    known = [identity(table) for table in tables]
    if parts[0] not in known:
        raise StudyError(
            f"{path}: the study has no regularizer {parts[0]!r}{nearest(parts[0], known)}",
            hint=f"known: {', '.join(known) or 'none'}; add one with [[regularizers]] and name = {parts[0]!r}",
        )
    at = known.index(parts[0])
    if len(parts) == 1:
        if value is not False:
            raise StudyError(
                f"{path}: got {quoted(value)}, expected false (to leave it out) or a path to one of its options"
            )
        del tables[at]
    elif len(parts) == 2:
        tables[at][parts[1]] = value
    else:
        raise StudyError(f"{path}: expected regularizers.ID.OPTION")
    return tables


def value_at(tree: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, or None where the tree says nothing."""
    parts = path.split(".")
    if parts[0] == "regularizers" and len(parts) > 1:
        named = [table for table in regularizer_tables(tree.get("regularizers", [])) if identity(table) == parts[1]]
        return named[0].get(parts[2]) if named and len(parts) == 3 else None
    node: Any = tree
    for part in parts:
        if not isinstance(node, Mapping):
            return None
        node = node.get(part)
    return node
