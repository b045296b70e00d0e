"""What a figure makes of the kit's made-up results, computed and drawn once for all checks."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchkit.protocols import ImageGrid, NothingToDraw
from benchkit.report.figures.drawing import chart_spec, spec_to_svg
from benchkit.results import StudyResults
from benchkit.testing.check import CheckFailure, NotApplicable, attempt, require
from benchkit.testing.figure_model import with_model
from benchkit.testing.results import scenarios
from benchkit.testing.subject import Subject

SCENARIOS: Mapping[str, str] = {
    "three-conditions": "results with three conditions, three repeats each",
    "search": "results with a search",
    "one-condition": "results with one condition, one repeat",
    "twenty-conditions": "results with twenty conditions",
    "missing-trials": "results with diverged, failed, running and missing trials",
    "nothing-trained": "results of a study of which nothing was trained",
}
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
    """What a figure made of some results: data, Vega-Lite spec (None for a grid), caption and alternative text."""

    scenario: str
    results: StudyResults
    data: Any
    spec: Mapping[str, Any] | None
    caption: Any
    alt_text: Any


def computed(subject: Subject, scenario: str) -> Computed:
    """Return the data of a scenario; raise `NotApplicable` where there is nothing to draw."""
    found = subject.once(f"data of {scenario}", lambda: _tried(subject, scenario))
    if isinstance(found, NotApplicable):
        raise found
    return found


def drawn(subject: Subject, scenario: str) -> Drawn:
    """Return what the figure made of a scenario; raise `NotApplicable` where there is nothing to draw."""
    return subject.once(f"picture of {scenario}", lambda: draw(subject, computed(subject, scenario)))


def all_drawn(subject: Subject) -> list[Drawn]:
    """Return what it made of the scenarios in which it draws; those that fail have checks of their own."""
    found = []
    for scenario in SCENARIOS:
        with contextlib.suppress(CheckFailure, NotApplicable):
            found.append(drawn(subject, scenario))
    if not found:
        drawn(subject, "three-conditions")
        raise NotApplicable("it draws none of the kit's results")
    return found


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


def draw(subject: Subject, found: Computed) -> Drawn:
    """Return picture, caption and alternative text; fail where they cannot be made or the picture is empty."""
    given, data = SCENARIOS[found.scenario], found.data
    with attempt(f"{given}: draw(data)"):
        picture = found.figure.draw(data)
    with attempt(f"{given}: caption(data) and alt_text(data)"):
        words, alternative = found.figure.caption(data), found.figure.alt_text(data)
    spec = None
    if isinstance(picture, ImageGrid):
        _check_grid(picture, given)
    else:
        with attempt(f"{given}: the picture", expected="an Altair chart that needs nothing from elsewhere"):
            spec = chart_spec(picture, description=str(alternative))
            svg = spec_to_svg(spec)
        require("<path" in svg or "<text" in svg, given=given, expected="a picture with marks", got="an empty one")
    return Drawn(
        scenario=found.scenario,
        results=found.results,
        data=data,
        spec=spec,
        caption=words,
        alt_text=alternative,
    )


def _tried(subject: Subject, scenario: str) -> Computed | NotApplicable:
    results = scenarios(subject.scratch("results"), subject.seed)[scenario]()
    results = with_model(results, subject)
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
