"""Conditions in figures: one look for each (colour, dash, shape by its rank among those planned), and their words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import altair as alt

from benchkit.plan import Condition
from benchkit.results import StudyResults

Made = TypeVar("Made")

Layers = alt.LayerChart | alt.FacetChart
"""What `altair.layer` returns."""

DASHES = ((1, 0), (6, 2), (2, 2), (8, 2, 2, 2), (12, 3), (4, 2, 1, 2, 1, 2), (1, 3))
"""Dash patterns of lines in pixels; colours and shapes come from the report's own Vega configuration."""

WIDTH = 640
"""The width in pixels that a figure fills on a printed page."""


def planned_labels(results: StudyResults) -> tuple[str, ...]:
    """Return the labels of all planned conditions in report order: the domain of every condition scale."""
    return tuple(condition.label for condition in results.conditions)


def by_condition(results: StudyResults, made: Callable[[Condition], Made | None]) -> tuple[list[Made], tuple[str, ...]]:
    """Return what is made of each condition that has something to show, in report order, and the labels of the others.

    A search itself has no repeats and is not among the others.
    """
    pairs = [(condition, made(condition)) for condition in results.conditions]
    without = tuple(condition.label for condition, item in pairs if item is None and condition.kind != "search")
    return [item for _, item in pairs if item is not None], without


def repeats_words(counts: Iterable[int]) -> str:
    """Return numbers of repeats in words, such as `3 repeats` or `2 to 3 repeats`."""
    known = sorted(set(counts))
    n = str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"
    return f"{n} repeat{'' if known[-1] == 1 else 's'}"


def listed(labels: Sequence[str], most: int = 6) -> str:
    """Return labels parted by commas, or by semicolons where they hold commas; more than `most` are counted."""
    mark = "; " if any("," in label for label in labels) else ", "
    if len(labels) <= most:
        return mark.join(labels)
    return f"{mark.join(labels[: most - 1])} and {len(labels) - most + 1} more"


def rounded(value: float) -> float:
    """Return a number with four significant digits, as many as a chart shows."""
    return float(f"{value:.4g}")


def colour(labels: Sequence[str], drawn: Sequence[str] = (), symbol: str = "circle") -> alt.Color:
    """Return the colour of the field `condition`; the legend lists the conditions drawn, if there are several."""
    return alt.Color("condition:N", scale=alt.Scale(domain=list(labels)), legend=_legend(drawn, symbol))


def dash(labels: Sequence[str], drawn: Sequence[str] = ()) -> alt.StrokeDash:
    """Return the dash pattern of the field `condition`, in one legend with its colour."""
    patterns = [list(DASHES[index % len(DASHES)]) for index in range(len(labels))]
    scale = alt.Scale(domain=list(labels), range=patterns)
    return alt.StrokeDash("condition:N", scale=scale, legend=_legend(drawn, "stroke"))


def shape(labels: Sequence[str]) -> alt.Shape:
    """Return the shape of the field `condition`, without a legend of its own."""
    return alt.Shape("condition:N", scale=alt.Scale(domain=list(labels)), legend=None)


def _legend(drawn: Sequence[str], symbol: str) -> alt.Legend | None:
    """Return a legend above the figure, with as many columns as its longest label lets fit."""
    if len(drawn) < 2:
        return None
    longest = min(max(len(label) for label in drawn), 36)
    columns = max(1, min(len(drawn), int(WIDTH / (longest * 6.4 + 36))))
    return alt.Legend(
        title=None,
        orient="top",
        direction="horizontal",
        columns=columns,
        values=list(drawn),
        symbolType=symbol,
        symbolSize=350 if symbol == "stroke" else 80,
    )


def label_width(labels: Sequence[str]) -> int:
    """Return about how many pixels an axis needs for these labels, at most 200."""
    return min(200, 14 + round(6.4 * max((len(label) for label in labels), default=0)))


def panels_in_columns(panels: Sequence[Layers], labels: Sequence[str], columns: int, width: int, **data: Any) -> Any:
    """Return the only panel, or panels in columns under their labels, at most `width` wide each."""
    if len(panels) == 1:
        return panels[0].properties(**data) if data else panels[0]
    titled = [
        panel.properties(title=alt.TitleParams(label, anchor="start", frame="group", limit=width))
        for panel, label in zip(panels, labels, strict=True)
    ]
    return alt.concat(*titled, columns=columns, spacing={"row": 12, "column": 16}, **data)


def panel_columns(labels: Sequence[str], most: int = 4) -> int:
    """Return how many panels stand in a row so that each has room for its label, at most `most` and at least two."""
    longest = max((len(label) for label in labels), default=0)
    room = next((columns for columns in (4, 3) if longest * 6.6 <= (WIDTH - 72) / columns - 10), 2)
    return max(1, min(most, room, len(labels)))
