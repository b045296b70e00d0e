"""Checks of figures: plain data, words that state a result, pictures of small, large and incomplete studies."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from benchkit.protocols import ImageGrid, NothingToDraw, is_frozen
from benchkit.report.figures.drawing import chart_spec, spec_to_svg
from benchkit.report.figures.figure_set import data_tables
from benchkit.results import StudyResults, Trial
from benchkit.testing.check import CheckFailure, NotApplicable, attempt, require, rule
from benchkit.testing.results import IMAGES, scenarios
from benchkit.testing.specimens import SmallNetwork
from benchkit.testing.subject import Subject

SCENARIOS: Mapping[str, str] = {
    "three-conditions": "results with three conditions, three repeats each",
    "search": "results with a search",
    "one-condition": "results with one condition, one repeat",
    "twenty-conditions": "results with twenty conditions",
    "missing-trials": "results with diverged, failed, running and missing trials",
    "nothing-trained": "results of a study of which nothing was trained",
}
_MODEL_IMAGES = (3, 16, 16)
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """A figure (an instance) and the data it computed from the results of a scenario."""

    scenario: str
    results: StudyResults
    figure: Any
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a figure made of its data: Vega-Lite spec (None for a grid), caption and alternative text."""

    made: Computed
    spec: Mapping[str, Any] | None
    caption: Any
    alt_text: Any


def computed(subject: Subject, scenario: str) -> Computed:
    """Return the data of a scenario; raise `NotApplicable` where there is nothing to draw."""
    outcome = subject.once(f"data of {scenario}", lambda: _tried(subject, scenario))
    if isinstance(outcome, NotApplicable):
        raise outcome
    return outcome


def drawn(subject: Subject, scenario: str) -> Drawn:
    """Return what the figure made of a scenario; raise `NotApplicable` where there is nothing to draw."""
    return subject.once(f"picture of {scenario}", lambda: draw(computed(subject, scenario)))


def all_drawn(subject: Subject) -> list[Drawn]:
    """Return what it made of the scenarios in which it draws; those that fail have checks of their own."""
    pictures = []
    for scenario in SCENARIOS:
        with contextlib.suppress(CheckFailure, NotApplicable):
            pictures.append(drawn(subject, scenario))
    if not pictures:
        drawn(subject, "three-conditions")
        raise NotApplicable("it draws none of the kit's results")
    return pictures


def compute(subject: Subject, scenario: str, results: StudyResults) -> Computed:
    """Return the data that a new instance computes from results; raise `NothingToDraw` as it does."""
    figure = subject.plugin(**subject.options)
    try:
        with attempt(f"{SCENARIOS[scenario]}: data(results)"):
            data = figure.data(results)
    except CheckFailure as failure:
        if isinstance(failure.__cause__, NothingToDraw):
            raise failure.__cause__ from None
        raise
    return Computed(scenario=scenario, results=results, figure=figure, data=data)


def draw(made: Computed) -> Drawn:
    """Return picture, caption and alternative text; fail where they cannot be made or the picture is empty."""
    given, data = SCENARIOS[made.scenario], made.data
    with attempt(f"{given}: draw(data)"):
        picture = made.figure.draw(data)
    with attempt(f"{given}: caption(data) and alt_text(data)"):
        words, alternative = made.figure.caption(data), made.figure.alt_text(data)
    spec = None
    if isinstance(picture, ImageGrid):
        _check_grid(picture, given)
    else:
        with attempt(f"{given}: the picture", expected="an Altair chart that needs nothing from elsewhere"):
            spec = chart_spec(picture, description=str(alternative))
            svg = spec_to_svg(spec)
        require("<path" in svg or "<text" in svg, given=given, expected="a picture with marks", got="an empty one")
    return Drawn(made=made, spec=spec, caption=words, alt_text=alternative)


def _tried(subject: Subject, scenario: str) -> Computed | NotApplicable:
    results = scenarios(subject.scratch("results"), subject.seed)[scenario]()
    results = _with_model(results, subject)
    try:
        return compute(subject, scenario, results)
    except NothingToDraw as reason:
        given = SCENARIOS[scenario]
        require(str(reason).strip(), given=given, expected="NothingToDraw with a reason", got="no reason")
        return NotApplicable(f"nothing to draw for {given}: {reason}")


def _check_grid(grid: ImageGrid, given: str) -> None:
    require(grid.rows, given=given, expected="an image grid with rows", got="no row")
    for words, images in grid.rows:
        got = f"{len(images)} images at {words!r}"
        require(len(images) == len(grid.columns), given=given, expected=f"{len(grid.columns)} images a row", got=got)
        known = all(isinstance(image, bytes) and image.startswith(_PICTURES) for image in images)
        require(known, given=given, expected="bytes of PNG or JPEG", got=f"something else at {words!r}")


def _with_model(results: StudyResults, subject: Subject) -> StudyResults:
    """Return results whose trials hold what the figure observes after epochs and inspects at the end.

    They are unchanged for a figure that does neither.
    """
    figure = subject.plugin(**subject.options)
    if not hasattr(figure, "observe") and not hasattr(figure, "inspect"):
        return results
    return replace(results, trials=tuple(_with_model_of(trial, figure, subject) for trial in results.trials))


def _with_model_of(trial: Trial, figure: Any, subject: Subject) -> Trial:
    torch.manual_seed(trial.number)
    model = SmallNetwork(4, _MODEL_IMAGES, nn.BatchNorm2d).eval()
    pictures = np.random.default_rng(trial.number % 4).integers(0, 256, (IMAGES, 16, 16, 3), dtype=np.uint8)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    if hasattr(figure, "inspect") and trial.state == "done" and trial.folder.is_dir():
        labels = torch.arange(IMAGES) % 4
        with attempt("inspect(model, images, labels)"):
            inspected = figure.inspect(model, images, labels)
        arrays = isinstance(inspected, dict) and all(isinstance(array, np.ndarray) for array in inspected.values())
        require(
            arrays, given="inspect(model, images, labels)", expected="a dict of arrays", got=type(inspected).__name__
        )
        whole = {name: np.ascontiguousarray(array) for name, array in inspected.items()}
        save_file(
            {**whole, "images": pictures, "labels": labels.numpy()},
            trial.folder / f"inspected-{subject.name}.safetensors",
        )
    if not hasattr(figure, "observe"):
        return trial
    with attempt("observe(model, images)"), torch.no_grad():
        seen = {f"{subject.name}.{name}": float(value) for name, value in figure.observe(model, images[:64]).items()}
    return replace(trial, history=tuple(replace(record, observed=seen) for record in trial.history))


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
    require(is_frozen(data), given=given, expected="a frozen dataclass", got=type(data).__name__)
    fault = _fault(data, "data")
    require(not fault, given=given, expected="plain, finite values", got=fault)
    with attempt(given, expected="data that can be written as tables"):
        tables = data_tables(data)
    require(tables, given=given, expected="at least one table of numbers", got="none")


@rule("alt-text", likely="it describes the picture ('a bar chart of ...') where it should say what came out")
def alt_text(subject: Subject) -> None:
    """The alternative text is one sentence that states a result: it names a condition or a number."""
    for picture in all_drawn(subject):
        given, text = f"alt_text(data) for {SCENARIOS[picture.made.scenario]}", picture.alt_text
        sentence = isinstance(text, str) and "\n" not in text and text.endswith((".", "!")) and 20 <= len(text) <= 600
        require(sentence, given=given, expected="one sentence of 20 to 600 letters", got=repr(text))
        labels = [condition.label for condition in picture.made.results.conditions]
        states = re.search(r"\d", text) or any(label in text for label in labels)
        require(states, given=given, expected="a result: the name of a condition, or a number", got=repr(text))


@rule("caption", likely="the caption is empty, or does not say over how many repeats")
def caption(subject: Subject) -> None:
    """The caption is text that ends with a full stop."""
    for picture in all_drawn(subject):
        given, text = f"caption(data) for {SCENARIOS[picture.made.scenario]}", picture.caption
        right = isinstance(text, str) and text.strip().endswith(".") and len(text) >= 20
        require(right, given=given, expected="at least a sentence, with a full stop", got=repr(text))


@rule("repeatable", likely="random numbers without a fixed seed, the time, or the order of a set get into it")
def repeatable(subject: Subject) -> None:
    """Drawn a second time from the same results, data and picture are the same."""
    first = all_drawn(subject)[0]
    second = draw(compute(subject, first.made.scenario, first.made.results))
    given = f"{SCENARIOS[first.made.scenario]}, drawn twice"
    require(repr(second.made.data) == repr(first.made.data), given=given, expected="equal data", got="other data")
    pictures = [json.dumps(picture.spec, sort_keys=True) for picture in (first, second)]
    require(pictures[0] == pictures[1], given=given, expected="an equal picture", got="another picture")


def _fault(value: Any, where: str) -> str:
    """Return where a value is not plain or not finite, an empty string when all is well."""
    if value is None or isinstance(value, str | bytes | bool) or type(value) is int:
        return ""
    if type(value) is float:
        return "" if math.isfinite(value) else f"{where} is {value}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f".{field.name}": getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, tuple | frozenset):
        parts = {f"[{index}]": part for index, part in enumerate(value)}
    elif isinstance(value, Mapping):
        parts = {f"[{key!r}]": part for key, part in value.items()}
    else:
        return f"{where} is a {type(value).__module__}.{type(value).__qualname__}"
    return next((fault for name, part in parts.items() if (fault := _fault(part, f"{where}{name}"))), "")


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
