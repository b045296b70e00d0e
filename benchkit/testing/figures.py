"""Checks of figures: plain data, words that state a result, pictures of small, large and incomplete studies."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchkit.protocols import ImageGrid, NothingToDraw
from benchkit.report.drawing import chart_spec, spec_to_svg
from benchkit.report.figure_data import data_tables
from benchkit.results import StudyResults
from benchkit.testing.check import CheckFailure, NotApplicable, attempt, require, rule
from benchkit.testing.results import scenarios
from benchkit.testing.subject import Subject

_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_WORDS = {
    "one-condition": "results with one condition, one repeat",
    "three-conditions": "results with three conditions, three repeats each",
    "twenty-conditions": "results with twenty conditions",
    "missing-trials": "results with diverged, failed, running and missing trials",
    "search": "results with a search",
    "nothing-trained": "results of a study of which nothing was trained",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a figure made of some results: data, picture (a Vega-Lite spec or a grid), caption and alternative text."""

    scenario: str
    results: StudyResults
    data: Any
    spec: Mapping[str, Any] | None
    caption: Any
    alt_text: Any


@rule("one-condition", likely="a scale, a comparison or a standard deviation needs more than one value")
def one_condition(subject: Subject) -> None:
    """It draws a single condition with a single repeat, or raises `NothingToDraw` with the reason."""
    _drawn(subject, "one-condition")


@rule("twenty-conditions", likely="colours, columns or a legend run out: facet, or cycle through them")
def twenty_conditions(subject: Subject) -> None:
    """It draws twenty conditions."""
    _drawn(subject, "twenty-conditions")


@rule("missing-trials", likely="it takes outcome, metrics or history for granted: look at trial.state first")
def missing_trials(subject: Subject) -> None:
    """It draws what is there when trials diverged, failed, still run or are missing."""
    _drawn(subject, "missing-trials")


@rule("search", likely="trials of a search have no test metrics, and their phase is 'search'")
def search(subject: Subject) -> None:
    """It draws, or leaves out, the trials of a search."""
    _drawn(subject, "search")


@rule("nothing-trained", likely="min, max or mean of nothing: raise benchkit.NothingToDraw with the reason")
def nothing_trained(subject: Subject) -> None:
    """Without any trial it raises `NothingToDraw` with the reason, or draws an honest picture."""
    with contextlib.suppress(NotApplicable):
        _drawn(subject, "nothing-trained")


@rule("plain-data", likely="convert numpy and torch values with float() and int(), and leave out what is not finite")
def plain_data(subject: Subject) -> None:
    """Its data are a frozen dataclass of plain, finite numbers and text, nested in tuples and dataclasses."""
    for drawn in _all(subject):
        given = f"data(results) for {_WORDS[drawn.scenario]}"
        data = drawn.data
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
    for drawn in _all(subject):
        given, text = f"alt_text(data) for {_WORDS[drawn.scenario]}", drawn.alt_text
        sentence = isinstance(text, str) and "\n" not in text and text.endswith((".", "!")) and 20 <= len(text) <= 600
        require(sentence, given=given, expected="one sentence of 20 to 600 letters", got=repr(text))
        labels = [condition.label for condition in drawn.results.conditions]
        states = re.search(r"\d", text) or any(label in text for label in labels)
        require(states, given=given, expected="a result: the name of a condition, or a number", got=repr(text))


@rule("caption", likely="the caption is empty, or does not say over how many repeats")
def caption(subject: Subject) -> None:
    """The caption is text that ends with a full stop."""
    for drawn in _all(subject):
        given, text = f"caption(data) for {_WORDS[drawn.scenario]}", drawn.caption
        right = isinstance(text, str) and text.strip().endswith(".") and len(text) >= 20
        require(right, given=given, expected="at least a sentence, with a full stop", got=repr(text))


@rule("repeatable", likely="random numbers without a fixed seed, the time, or the order of a set get into it")
def repeatable(subject: Subject) -> None:
    """Drawn a second time from the same results, data and picture are the same."""
    first = _all(subject)[0]
    second = _draw(subject, first.scenario, first.results)
    given = f"{_WORDS[first.scenario]}, drawn twice"
    require(repr(second.data) == repr(first.data), given=given, expected="equal data", got="other data")
    pictures = [json.dumps(one.spec, sort_keys=True) for one in (first, second)]
    require(pictures[0] == pictures[1], given=given, expected="an equal picture", got="another picture")


def _all(subject: Subject) -> list[Drawn]:
    """Return what it made of the scenarios in which it draws; those that fail have checks of their own."""
    found = []
    for name in ("three-conditions", "search", "one-condition", "twenty-conditions", "missing-trials"):
        with contextlib.suppress(CheckFailure, NotApplicable):
            found.append(_drawn(subject, name))
    if not found:
        _drawn(subject, "three-conditions")
        raise NotApplicable("it draws none of the kit's results")
    return found


def _drawn(subject: Subject, name: str) -> Drawn:
    """Return what it made of a scenario; raise `NotApplicable` where it has nothing to draw."""
    found = subject.once(name, lambda: _tried(subject, name))
    if isinstance(found, NotApplicable):
        raise found
    return found


def _tried(subject: Subject, name: str) -> Drawn | NotApplicable:
    results = scenarios(subject.scratch("results"), subject.seed)[name]()
    try:
        return _draw(subject, name, results)
    except NothingToDraw as reason:
        given = _WORDS[name]
        require(str(reason).strip(), given=given, expected="NothingToDraw with a reason", got="no reason")
        return NotApplicable(f"nothing to draw for {given}: {reason}")


def _draw(subject: Subject, name: str, results: StudyResults) -> Drawn:
    given = _WORDS[name]
    figure = subject.plugin(**subject.options)
    try:
        with attempt(f"{given}: data(results)"):
            data = figure.data(results)
    except CheckFailure as failure:
        if isinstance(failure.__cause__, NothingToDraw):
            raise failure.__cause__ from None
        raise
    with attempt(f"{given}: draw(data)"):
        picture = figure.draw(data)
    with attempt(f"{given}: caption(data) and alt_text(data)"):
        words, alternative = figure.caption(data), figure.alt_text(data)
    spec = None
    if isinstance(picture, ImageGrid):
        _check_grid(picture, given)
    else:
        with attempt(f"{given}: the picture", expected="an Altair chart that needs nothing from elsewhere"):
            spec = chart_spec(picture, description=str(alternative))
            svg = spec_to_svg(spec)
        require("<path" in svg or "<text" in svg, given=given, expected="a picture with marks", got="an empty one")
    return Drawn(scenario=name, results=results, data=data, spec=spec, caption=words, alt_text=alternative)


def _check_grid(grid: ImageGrid, given: str) -> None:
    require(grid.rows, given=given, expected="an image grid with rows", got="no row")
    for words, images in grid.rows:
        got = f"{len(images)} images at {words!r}"
        require(len(images) == len(grid.columns), given=given, expected=f"{len(grid.columns)} images a row", got=got)
        known = all(isinstance(image, bytes) and image.startswith(_PICTURES) for image in images)
        require(known, given=given, expected="bytes of PNG or JPEG", got=f"something else at {words!r}")


def _fault(value: Any, place: str) -> str:
    """Return where a value is not plain or not finite, an empty string when all is well."""
    if value is None or isinstance(value, str | bytes | bool) or type(value) is int:
        return ""
    if type(value) is float:
        return "" if math.isfinite(value) else f"{place} is {value}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return next((fault for name, part in parts.items() if (fault := _fault(part, f"{place}.{name}"))), "")
    if isinstance(value, tuple | frozenset):
        return next((fault for i, part in enumerate(value) if (fault := _fault(part, f"{place}[{i}]"))), "")
    if isinstance(value, Mapping):
        return next((fault for key, part in value.items() if (fault := _fault(part, f"{place}[{key!r}]"))), "")
    return f"{place} is a {type(value).__module__}.{type(value).__qualname__}"


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
