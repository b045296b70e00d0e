"""Checks of figures: plain data, words that state a result, pictures of small, large and incomplete studies."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from benchkit.report.figures.figure_set import data_tables
from benchkit.testing.check import NotApplicable, attempt, require, rule
from benchkit.testing.figure_drawing import SCENARIOS, all_drawn, compute, computed, draw, drawn
from benchkit.testing.subject import Subject


@rule("one-condition", likely="a scale, a comparison or a standard deviation needs more than one value")
def one_condition(subject: Subject) -> None:
    """It draws a single condition with a single repeat, or raises `NothingToDraw` with the reason."""
    drawn(subject, "one-condition")


@rule("twenty-conditions", likely="colours, columns or a legend run out: facet, or cycle through them")
def twenty_conditions(subject: Subject) -> None:
    """It draws twenty conditions."""
    drawn(subject, "twenty-conditions")


@rule("missing-trials", likely="it takes outcome, metrics or history for granted: look at trial.state first")
def missing_trials(subject: Subject) -> None:
    """It draws what is there when trials diverged, failed, still run or are missing."""
    drawn(subject, "missing-trials")


@rule("search", likely="trials of a search have no test metrics, and their phase is 'search'")
def search(subject: Subject) -> None:
    """It draws, or leaves out, the trials of a search."""
    drawn(subject, "search")


@rule("nothing-trained", likely="min, max or mean of nothing: raise benchkit.NothingToDraw with the reason")
def nothing_trained(subject: Subject) -> None:
    """Without any trial it raises `NothingToDraw` with the reason, or draws an honest picture."""
    with contextlib.suppress(NotApplicable):
        drawn(subject, "nothing-trained")


@rule("plain-data", likely="convert numpy and torch values with float() and int(), and leave out what is not finite")
def plain_data(subject: Subject) -> None:
    """Its data are a frozen dataclass of plain, finite numbers and text, nested in tuples and dataclasses."""
    for name in SCENARIOS:
        with contextlib.suppress(NotApplicable):
            _require_plain(computed(subject, name).data, f"data(results) for {SCENARIOS[name]}")


def _require_plain(data: Any, given: str) -> None:
    frozen = dataclasses.is_dataclass(data) and getattr(data, "__dataclass_params__").frozen  # noqa: B009
    require(frozen, given=given, expected="a frozen dataclass", got=type(data).__name__)
    fault = _fault(data, "data")
    require(not fault, given=given, expected="plain, finite values", got=fault)
    with attempt(given, expected="data that can be written as tables"):
        tables = data_tables(data)
    require(tables, given=given, expected="at least one table of numbers", got="none")


@rule("alt-text", likely="it describes the picture ('a bar chart of ...') where it should say what came out")
def alt_text(subject: Subject) -> None:
    """The alternative text is one sentence that states a result: it names a condition or a number."""
    for picture in all_drawn(subject):
        given, text = f"alt_text(data) for {SCENARIOS[picture.scenario]}", picture.alt_text
        sentence = isinstance(text, str) and "\n" not in text and text.endswith((".", "!")) and 20 <= len(text) <= 600
        require(sentence, given=given, expected="one sentence of 20 to 600 letters", got=repr(text))
        labels = [condition.label for condition in picture.results.conditions]
        states = re.search(r"\d", text) or any(label in text for label in labels)
        require(states, given=given, expected="a result: the name of a condition, or a number", got=repr(text))


@rule("caption", likely="the caption is empty, or does not say over how many repeats")
def caption(subject: Subject) -> None:
    """The caption is text that ends with a full stop."""
    for picture in all_drawn(subject):
        given, text = f"caption(data) for {SCENARIOS[picture.scenario]}", picture.caption
        right = isinstance(text, str) and text.strip().endswith(".") and len(text) >= 20
        require(right, given=given, expected="at least a sentence, with a full stop", got=repr(text))


@rule("repeatable", likely="random numbers without a fixed seed, the time, or the order of a set get into it")
def repeatable(subject: Subject) -> None:
    """Drawn a second time from the same results, data and picture are the same."""
    first = all_drawn(subject)[0]
    second = draw(subject, compute(subject, first.scenario, first.results))
    given = f"{SCENARIOS[first.scenario]}, drawn twice"
    require(repr(second.data) == repr(first.data), given=given, expected="equal data", got="other data")
    pictures = [json.dumps(picture.spec, sort_keys=True) for picture in (first, second)]
    require(pictures[0] == pictures[1], given=given, expected="an equal picture", got="another picture")


def _fault(value: Any, where: str) -> str:
    """Return where a value is not plain or not finite, an empty string when all is well."""
    if value is None or isinstance(value, str | bytes | bool) or type(value) is int:
        return ""
    if type(value) is float:
        return "" if math.isfinite(value) else f"{where} is {value}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return next((fault for name, part in parts.items() if (fault := _fault(part, f"{where}.{name}"))), "")
    if isinstance(value, tuple | frozenset):
        return next((fault for i, part in enumerate(value) if (fault := _fault(part, f"{where}[{i}]"))), "")
    if isinstance(value, Mapping):
        return next((fault for key, part in value.items() if (fault := _fault(part, f"{where}[{key!r}]"))), "")
    return f"{where} is a {type(value).__module__}.{type(value).__qualname__}"


RULES = (
    one_condition,
    twenty_conditions,
    missing_trials,
    search,
    nothing_trained,
    plain_data,
    alt_text,
    caption,
    repeatable,
)
