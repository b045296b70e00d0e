"""The JSON schema of a study file (draft-07), by which editors complete and check one. Imports no torch.

It is made from the classes that a study is read into and says less than `studies check`: of a plugin's options nothing,
since plugins of others have options that nobody here knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from benchkit import __version__
from benchkit.metrics import goal_metrics, score_metrics
from benchkit.registry import Registry
from benchkit.registry.kinds import KIND_TABLE
from benchkit.registry.options import sentence_about
from benchkit.storage import cache_folder, write_atomically
from benchkit.study.origin import PLACES, Origin, SourceClaim, StatedSetting
from benchkit.study.settings import (
    OWN_NAMES,
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    ScheduleSettings,
    TrainSettings,
)
from benchkit.study.study import Published, PublishedRow, ReportSettings, Search, SearchRange
from benchkit.study.studyfile import MOST_REPEATS, SAMPLERS, SPLITS

Schema = dict[str, Any]
DRAFT = "http://json-schema.org/draft-07/schema#"
TEXT: Schema = {"type": "string"}
NAMES: Schema = {"type": "array", "items": TEXT}
ANY_TABLE: Schema = {"type": "object", "additionalProperties": True}
SOURCE = """
`title` names the study in one line. `question` is what it asks. `description` says more, in paragraphs.
`seed` is what the draw of images and all trials' seeds are made from.
`data` is the data set and how much of it. `model` is the network and the norm inside it. `train` is how it is trained.
`regularizers` are plugins in the order in which they act. `factors` are the settings that are compared: a list of
values for each dotted path, every combination is a condition. `search` lets Optuna choose settings within every
condition. `repeats` is how many trials a condition has. `confirm` is how many fresh repeats the best of a search has.
`source` is the work that the study repeats. `published` are tables of numbers to stand beside ours. `report` is what
the report shows and says. `smoke` holds the settings of the tiny version that `--smoke` trains. `n` is how many. `most`
is up to how many repeats are added to conditions that may still be the best. `until` adds repeats until it is decided
which condition is the best. `splits` is fixed, or folds: repeat r tests on fold r of n. `goal` is what the search
optimises, read on val. `space` is a range, or a list of choices, for each dotted path. `sampler` is what proposes
settings, or several to compare.
"""


def study_schema(registry: Registry) -> Schema:
    """Return the schema of a study file; names of the plugins in `registry` are proposed, others allowed."""
    repeats = {"n": _count(1), "most": _count(1), "until": {"enum": ["decided"]}, "splits": {"enum": list(SPLITS)}}
    tables = {
        "data": _table(DataSettings, {"name": _names(registry, "datasets")}, leave=("dataset",), options=True),
        "model": _table(
            ModelSettings,
            {"name": _names(registry, "models"), "norm": _plugin(registry, "norms")},
            leave=("model",),
            options=True,
        ),
        "train": _train(registry),
        "regularizers": {"type": "array", "items": _plugin(registry, "regularizers")},
        "factors": {"type": "object", "additionalProperties": {"type": "array", "minItems": 1}},
        "search": _search(),
        "repeats": _object(_described(SOURCE, repeats)),
        "confirm": _object(_described(SOURCE, {"n": _count(0)}), required=("n",)),
        "source": _source(),
        "published": {"type": "array", "items": _table(Published, {"rows": _list(_table(PublishedRow))})},
        "report": _report(registry),
        "smoke": ANY_TABLE,
    }
    first = {"title": TEXT, "question": TEXT, "description": TEXT, "seed": {"type": "integer", "default": 0}}
    return {
        "$schema": DRAFT,
        "title": f"A study of benchkit {__version__}",
        **_object(_described(SOURCE, {**first, **tables}), required=("title", "data", "model")),
    }


def write_schema(registry: Registry) -> Path:
    """Write the schema of this version into the user's cache, where study files can name it; return its path."""
    path = cache_folder() / "schemas" / f"study-{__version__}.schema.json"
    write_atomically(path, msgspec.json.format(msgspec.json.encode(study_schema(registry)), indent=2) + b"\n")
    return path


def _object(properties: Mapping[str, Schema], *, required: Sequence[str] = (), options: bool = False) -> Schema:
    needed = {"required": list(required)} if required else {}
    return {"type": "object", "properties": dict(properties), **needed, "additionalProperties": options}


def _described(documentation: str, properties: Mapping[str, Schema]) -> dict[str, Schema]:
    """Return properties with the sentence that a docstring has about each."""
    found = {}
    for name, schema in properties.items():
        words = sentence_about(name, documentation)
        found[name] = {"description": words, **schema} if words and "description" not in schema else schema
    return found


def _table(
    cls: type, given: Mapping[str, Schema] | None = None, *, leave: Sequence[str] = (), options: bool = False
) -> Schema:
    """Return the schema of a table that is read into a dataclass, but for the fields to `leave`; `given` replace some.

    A field without a default is required. `options`: the table may have other keys, a plugin's options.
    """
    hints = get_type_hints(cls, include_extras=True)
    properties, required = dict(given or {}), []
    for field in fields(cls):
        if field.name in leave:
            continue
        if field.name not in properties:
            plain = isinstance(field.default, bool | int | float | str)
            properties[field.name] = {**_hint(hints[field.name]), **({"default": field.default} if plain else {})}
        if field.default is MISSING and field.default_factory is MISSING:
            required.append(field.name)
    return _object(_described(cls.__doc__ or "", properties), required=required, options=options)


def _hint(hint: Any) -> Schema:
    """Return the schema of a type hint of settings."""
    parts = get_args(hint)
    if type(None) in parts:
        return _hint(parts[0])
    if get_origin(hint) is tuple:
        several = parts[-1] is Ellipsis
        count = {} if several else {"minItems": len(parts), "maxItems": len(parts)}
        return {"type": "array", "items": _hint(parts[0]), **count}
    if hint is Any:
        return {}
    if get_origin(hint) is Mapping or hint is Mapping:
        return ANY_TABLE
    return dict(msgspec.json.schema(hint))


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _names(registry: Registry, kind: str, own: Sequence[str] = ()) -> Schema:
    """Return the schema of a plugin's name: those that are installed are proposed, any other is allowed."""
    words = {"description": f"The name of a {KIND_TABLE[kind].word}."}
    return {**words, **_either({"enum": list(dict.fromkeys((*own, *registry.names(kind))))}, TEXT)}


def _plugin(registry: Registry, kind: str) -> Schema:
    """Return the schema of a plugin by its name, or by a table with name and options."""
    name = _names(registry, kind)
    return _either(*name["anyOf"], _object({"name": name}, required=("name",), options=True))


def _count(least: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": MOST_REPEATS}


def _train(registry: Registry) -> Schema:
    named = {"loss": _plugin(registry, "losses")}
    for key, cls in (("optimizer", OptimizerSettings), ("schedule", ScheduleSettings)):
        name = _names(registry, f"{key}s", OWN_NAMES[f"train.{key}"])
        named[key] = _either(*name["anyOf"], _table(cls, {"name": name}, leave=("options",), options=True))
    return _table(TrainSettings, named)


def _search() -> Schema:
    numbers: Schema = {key: {"type": "number"} for key in ("low", "high")}
    spanned = _table(SearchRange, numbers, leave=("path", "integer", "choices"))
    spanned["required"] = ["low", "high"]
    goal, sampler = {"enum": list(goal_metrics())}, {"enum": list(SAMPLERS)}
    space = {"type": "object", "additionalProperties": _either({"type": "array", "minItems": 1}, spanned)}
    written = {"goal": _either(goal, _list(goal)), "space": space, "sampler": _either(sampler, _list(sampler))}
    table = _table(Search, _described(SOURCE, written), leave=("goals", "samplers"))
    table["required"] = ["trials", "space"]
    return table


def _source() -> Schema:
    words = _either(TEXT, NAMES)
    stated = _table(StatedSetting, {"value": {}, "words": words}, leave=("path", "values"))
    stated["required"] = ["value"]
    levels = _either(TEXT, {"type": "object", "additionalProperties": TEXT})
    named = dict.fromkeys(("better", "than", "best", "when"), levels)
    others: Schema = {"words": words, "equal": _list(levels), "from": {"type": "integer"}}
    claim = _table(SourceClaim, {**others, **named}, leave=("start",))
    states = {"type": "object", "additionalProperties": stated}
    return _table(Origin, {"states": states, "claims": _list(claim)})


def _report(registry: Registry) -> Schema:
    places = _object({key: {"description": "The author's Markdown that stands there.", **TEXT} for key in PLACES})
    written = {
        "figures": _list(_plugin(registry, "figures")),
        "metric": _either({"enum": list(score_metrics())}, TEXT),
        "metrics": _list(_names(registry, "metrics")),
        "logo": TEXT,
        "text": _either(TEXT, places),
    }
    return _table(ReportSettings, written)
