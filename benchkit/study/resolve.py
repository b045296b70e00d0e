"""From a tree of settings to typed `Settings`, with every problem noted. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from benchkit.errors import nearest
from benchkit.metrics import epoch_metrics
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
from benchkit.study.tree import SECTIONS, identity
from benchkit.study.typed import Problems, fits, typed

T = TypeVar("T")

ALLOWED = {
    "train.optimizer.name": ("sgd", "adam", "adamw"),
    "train.schedule.name": ("constant", "step", "cosine", "one-cycle"),
    "train.precision": ("auto", "bf16", "fp16", "float32"),
    "train.compile": ("auto", "never", "always"),
    "train.select": ("best", "last"),
    "train.select_by": epoch_metrics(),
}
LIMITS = {
    "data.train_size": (0, math.inf),
    "data.val_size": (0, math.inf),
    "data.test_size": (0, math.inf),
    "data.image_size": (0, math.inf),
    "train.epochs": (1, math.inf),
    "train.batch_size": (1, math.inf),
    "train.threads": (1, math.inf),
    "train.optimizer.lr": (0, math.inf),
    "train.optimizer.momentum": (0, 1),
    "train.schedule.every": (1, math.inf),
    "train.schedule.gamma": (0, math.inf),
    "train.schedule.max_lr": (0, math.inf),
    "train.schedule.warmup": (0, 1),
}
"""The lowest and highest value of numeric settings, inclusive."""


def resolve(tree: Mapping[str, Any], *, seed: int, problems: Problems) -> Settings | None:
    """Return the settings that a tree spells out, or None after noting every problem in `problems`."""
    before = len(problems.lines)
    for key in tree:
        if key not in SECTIONS:
            problems.unknown("", key, SECTIONS)
    data = _data(tree.get("data"), problems)
    model = _model(tree.get("model"), problems)
    train = _train(tree.get("train", {}), problems)
    regularizers = _regularizers(tree.get("regularizers", []), problems)
    if len(problems.lines) > before or data is None or model is None or train is None:
        return None
    return Settings(data=data, model=model, train=train, regularizers=regularizers, seed=seed)


def plugin_ref(value: Any, where: str, problems: Problems) -> PluginRef | None:
    """Return the plugin that a name, or a table with `name` and options, refers to."""
    if isinstance(value, str):
        return PluginRef(name=value)
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return PluginRef(name=value["name"], options={k: v for k, v in value.items() if k != "name"})
    problems.add(where, f"got {value!r}, expected a plugin's name or a table with name and options")
    return None


def _split(table: Mapping[str, Any], own: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a table's own keys and the rest, which are the plugin's options."""
    return {k: v for k, v in table.items() if k in own}, {k: v for k, v in table.items() if k not in own}


def _data(table: Any, problems: Problems) -> DataSettings | None:
    if not isinstance(table, Mapping):
        problems.add(
            "data", 'is missing: name a data set with [data] and name = "..."' if table is None else "must be a table"
        )
        return None
    own = {field.name for field in fields(DataSettings)} - {"dataset"}
    mine, rest = _split(table, own)
    ref = plugin_ref(rest, "data", problems)
    found = typed(DataSettings, mine, "data", problems, dataset=ref)
    return _bounded("data", found, problems)


def _model(table: Any, problems: Problems) -> ModelSettings | None:
    if not isinstance(table, Mapping):
        problems.add(
            "model", 'is missing: name a model with [model] and name = "..."' if table is None else "must be a table"
        )
        return None
    mine, rest = _split(table, {"norm", "weights"})
    model = plugin_ref(rest, "model", problems)
    norm = plugin_ref(mine.get("norm", "torch-bn"), "model.norm", problems)
    weights = mine.get("weights", "")
    if not isinstance(weights, str):
        problems.add("model.weights", f"got {weights!r}, expected the path of a safetensors or pth file")
        return None
    return ModelSettings(model=model, norm=norm, weights=weights) if model and norm else None


def _train(table: Any, problems: Problems) -> TrainSettings | None:
    if not isinstance(table, Mapping):
        problems.add("train", f"got {table!r}, expected a table")
        return None
    named: dict[str, Any] = {}
    for key, cls in (("optimizer", OptimizerSettings), ("schedule", ScheduleSettings)):
        value = table.get(key, {})
        value = {"name": value} if isinstance(value, str) else value
        if not fits(value, Mapping):
            problems.add(f"train.{key}", f"got {value!r}, expected a name or a table")
            value = {}
        named[key] = _bounded(f"train.{key}", typed(cls, value, f"train.{key}", problems), problems)
    rest = {k: v for k, v in table.items() if k not in named}
    return _bounded("train", typed(TrainSettings, rest, "train", problems, also=tuple(named), **named), problems)


def _regularizers(listed: Any, problems: Problems) -> tuple[RegularizerSettings, ...]:
    if not isinstance(listed, list | tuple):
        problems.add("regularizers", f"got {listed!r}, expected a list of tables ([[regularizers]])")
        return ()
    found = []
    for at, item in enumerate(listed):
        item = {"name": item} if isinstance(item, str) else item
        ref = plugin_ref(item, f"regularizers[{at}]", problems)
        if ref is None:
            continue
        options = {k: v for k, v in ref.options.items() if k != "id"}
        found.append(RegularizerSettings(id=identity(item), plugin=PluginRef(name=ref.name, options=options)))
    ids = [regularizer.id for regularizer in found]
    for twice in sorted({name for name in ids if ids.count(name) > 1}):
        problems.add(f"regularizers.{twice}", "stands twice; give each its own id")
    return tuple(found)


def _bounded(where: str, found: T | None, problems: Problems) -> T | None:
    """Return `found` after checking its fields against the allowed names and ranges."""
    if found is None:
        return None
    for field in fields(found):  # type: ignore[arg-type]
        path, value = f"{where}.{field.name}", getattr(found, field.name)
        if path in ALLOWED and value not in ALLOWED[path]:
            expected = f"one of {', '.join(ALLOWED[path])}{nearest(value, ALLOWED[path])}"
            problems.add(path, f"got {value!r}, expected {expected}")
        low, high = LIMITS.get(path, (-math.inf, math.inf))
        if path in LIMITS and not low <= value <= high:
            problems.add(
                path, f"got {value!r}, expected {f'at least {low}' if high == math.inf else f'{low} to {high}'}"
            )
    return found
