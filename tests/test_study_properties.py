"""Any study file and any `--set` ends in a study or in one error that says what is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchkit.errors import StudyError
from benchkit.plan import Plan, make_plan
from benchkit.registry import Registry
from benchkit.study.checks import check_plan
from benchkit.study.studyfile import parse_study

REGISTRY = Registry.installed()
KEYS = (
    "title", "seed", "data", "data.name", "data.train_size", "data.normalize", "model", "model.name", "model.norm",
    "model.weights", "train", "train.epochs", "train.optimizer", "train.optimizer.lr", "train.optimizer.betas",
    "train.schedule", "train.precision", "train.select_by", "regularizers", "factors", "search", "search.trials",
    "search.goal", "search.sampler", "search.space", "repeats", "repeats.n", "confirm", "published", "report",
    "report.figures", "report.authors", "report.logo", "report.metric", "smoke", "smoke.x",
)  # fmt: skip
PLACES = st.sampled_from(KEYS) | st.sampled_from(["regularizers", "factors", "search", "published", "report"])
PATHS = (
    "train.optimizer.lr",
    "model.norm",
    "model.norm.groups",
    "regularizers",
    "regularizers.dropout.rate",
    "data",
    "x",
)
EXTREMES = st.sampled_from([10**50, 2**63, -(2**63) - 1, 1e308, 5e-324, math.nan, math.inf, -(10**9)])
NUMBERS = st.one_of(st.integers(-1, 9), st.floats(0, 1), st.integers(0, 10**4), EXTREMES)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "gn", "dropout", "val.loss", "grid", "a\0b", "\ud800", "best", "../x.svg", "1e-3", "[" * 400]),
)
SCALARS = st.one_of(NUMBERS, TEXTS, st.booleans())
WORDS = st.sampled_from(
    ["name", "n", "low", "high", "step", "log", "label", "set", "value", "add", "id", "rate", "rows", "when", "source",
     "metric", "trials", "space", "choices", *PATHS]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=12
)
RANGES = st.fixed_dictionaries(
    {"low": NUMBERS, "high": NUMBERS}, optional={"step": NUMBERS, "log": st.booleans(), "trials": NUMBERS}
)
LEVELS = st.lists(
    VALUES | st.fixed_dictionaries({"label": TEXTS, "set": st.dictionaries(st.sampled_from(PATHS), VALUES)})
)
SECTIONS = st.one_of(
    VALUES,
    st.lists(SCALARS, min_size=1, max_size=2),
    st.dictionaries(st.sampled_from(PATHS), LEVELS, max_size=3),
    st.fixed_dictionaries({
        "trials": NUMBERS, "sampler": st.sampled_from(["grid", "tpe", "cma-es", ["tpe", "grid"]]),
        "space": st.dictionaries(st.sampled_from(PATHS), RANGES | LEVELS, min_size=1, max_size=2),
    }),
)  # fmt: skip
BASE: Mapping[str, Any] = {
    "title": "t", "data": {"name": "digits"}, "model": {"name": "resnet", "norm": "gn"},
    "regularizers": [{"name": "dropout", "rate": 0.1}], "factors": {"train.epochs": [1, 2]},
    "search": {"trials": 2, "space": {"train.optimizer.lr": {"low": 0.1, "high": 0.2}}},
}  # fmt: skip


def toml(value: Any) -> str:
    """Return a value as inline TOML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def changed(table: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    inner = table.get(head)
    return {**table, head: changed(inner, rest, value) if rest and isinstance(inner, Mapping) else value}


def ends_well(text: str, *overrides: str, smoke: bool = False) -> Plan | None:
    """Return the plan of a study, or None where one error, of at most a screen or two, says why there is none."""
    try:
        study = parse_study(text, name="x", overrides=overrides, smoke=smoke)
        plan = make_plan(study)
        assert len(plan.units()) >= 1
        check_plan(plan, REGISTRY)
    except StudyError as error:
        assert error.what and len(error.problems) <= 51 and "\ud800" not in str(error).replace("\\ud800", "")
        return None
    return plan


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(PLACES, SECTIONS), min_size=1, max_size=2), st.booleans())
def test_any_study_file_ends_in_a_study_or_one_error(changes: list[tuple[str, Any]], smoke: bool) -> None:
    table: dict[str, Any] = dict(BASE)
    for path, value in changes:
        table = changed(table, path, value)
    ends_well("\n".join(f"{json.dumps(key)} = {toml(value)}" for key, value in table.items()), smoke=smoke)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=200))
@example("﻿title = 1")
def test_any_text_ends_in_a_study_or_one_error(text: str) -> None:
    assert ends_well(text) is None


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(PLACES | st.text(max_size=12), SECTIONS.map(toml) | st.text(max_size=20)), max_size=3),
    st.booleans(),
)
@example([("title", '"\ud800"'), ("title", "[]")], False)
def test_any_override_ends_in_a_study_or_one_error(written: list[tuple[str, str]], smoke: bool) -> None:
    text = "\n".join(f"{json.dumps(key)} = {toml(value)}" for key, value in BASE.items())
    ends_well(text, *(f"{path}={value}" for path, value in written), smoke=smoke)
