"""A study's tree of settings: dotted paths into it, and the typed `Settings` that it spells out. Imports no torch.

Trees are never changed in place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from benchkit.errors import StudyError, nearest
from benchkit.study.settings import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    PluginRef,
    RegularizerSettings,
    ScheduleSettings,
    Settings,
    TrainSettings,
)
from benchkit.study.tables import Problems, quoted, typed

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


DATA_KEYS = frozenset(field.name for field in fields(DataSettings)) - {"dataset"}
"""The keys of [data] that are benchkit's; all others are options of the data set."""


def resolve(tree: Mapping[str, Any], *, seed: int, problems: Problems) -> Settings | None:
    """Return the settings that a tree spells out, or None after noting every problem in `problems`."""
    before = len(problems)
    for key in tree:
        if key not in SECTIONS:
            problems.unknown("", key, SECTIONS)
    data = _data(tree.get("data"), problems)
    model = _model(tree.get("model"), problems)
    train = _train(tree.get("train", {}), problems)
    regularizers = _regularizers(tree.get("regularizers", []), problems)
    if len(problems) > before or data is None or model is None or train is None:
        return None
    return Settings(data=data, model=model, train=train, regularizers=regularizers, seed=seed)


def plugin_ref(value: Any, where: str, problems: Problems) -> PluginRef | None:
    """Return the plugin that a name, or a table with `name` and options, refers to."""
    if isinstance(value, str):
        return PluginRef(name=value)
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return PluginRef(name=value["name"], options={k: v for k, v in value.items() if k != "name"})
    problems.add(where, f"got {quoted(value)}, expected a plugin's name or a table with name and options")
    return None


def _section(table: Any, name: str, thing: str, problems: Problems) -> Mapping[str, Any] | None:
    if isinstance(table, Mapping):
        return table
    missing = f'is missing: name a {thing} with [{name}] and name = "..."'
    problems.add(name, missing if table is None else "must be a table")
    return None


def _data(written: Any, problems: Problems) -> DataSettings | None:
    table = _section(written, "data", "data set", problems)
    if table is None:
        return None
    ref = plugin_ref({k: v for k, v in table.items() if k not in DATA_KEYS}, "data", problems)
    return typed(
        DataSettings, {k: v for k, v in table.items() if k in DATA_KEYS}, "data", problems, dataset=ref
    )  # fmt: skip


def _model(written: Any, problems: Problems) -> ModelSettings | None:
    table = _section(written, "model", "model", problems)
    if table is None:
        return None
    model = plugin_ref({k: v for k, v in table.items() if k not in ("norm", "weights")}, "model", problems)
    norm = plugin_ref(table.get("norm", "torch-bn"), "model.norm", problems)
    weights = {key: table[key] for key in ("weights",) if key in table}
    return typed(ModelSettings, weights, "model", problems, model=model, norm=norm)


def _train(table: Any, problems: Problems) -> TrainSettings | None:
    if not isinstance(table, Mapping):
        problems.add("train", f"got {quoted(table)}, expected a table")
        return None
    named: dict[str, Any] = {}
    for key, cls in (("optimizer", OptimizerSettings), ("schedule", ScheduleSettings)):
        value = table.get(key, {})
        value = {"name": value} if isinstance(value, str) else value
        if isinstance(value, Mapping):
            named[key] = typed(cls, value, f"train.{key}", problems)
        else:
            problems.add(f"train.{key}", f"got {quoted(value)}, expected a name or a table")
            named[key] = None
    rest = {k: v for k, v in table.items() if k not in named}
    return typed(TrainSettings, rest, "train", problems, also=tuple(named), **named)


def _regularizers(listed: Any, problems: Problems) -> tuple[RegularizerSettings, ...]:
    try:
        tables = regularizer_tables(listed)
    except StudyError as error:
        for line in (error.what, *error.problems):
            problems.add("", line)
        return ()
    read = []
    for at, table in enumerate(tables):
        ref = plugin_ref(table, f"regularizers[{at}]", problems)
        if ref is not None:
            options = {k: v for k, v in ref.options.items() if k != "id"}
            read.append(RegularizerSettings(id=identity(table), plugin=PluginRef(name=ref.name, options=options)))
    for name, times in sorted(Counter(regularizer.id for regularizer in read).items()):
        if times > 1:
            problems.add(f"regularizers.{name}", "stands twice; give each its own id")
    return tuple(read)
