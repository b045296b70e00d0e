"""One look for each condition in every figure: colour, dash and shape by its place among the planned conditions."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from benchkit.results import StudyResults

Layers = alt.LayerChart | alt.FacetChart
"""What `altair.layer` returns."""

DASHES = ((1, 0), (6, 2), (2, 2), (8, 2, 2, 2), (12, 3), (4, 2, 1, 2, 1, 2), (1, 3))
"""Dash patterns of lines in pixels; colours and shapes come from the report's own Vega configuration."""

WIDTH = 640
"""The width in pixels that a figure fills on a printed page."""


def planned_labels(results: StudyResults) -> tuple[str, ...]:
    """Return the labels of all planned conditions in report order: the domain of every condition scale."""
    return tuple(condition.label for condition in results.conditions)


def colour(labels: Sequence[str], drawn: Sequence[str] = (), symbol: str = "circle") -> alt.Color:
    """Return the colour of the field `condition`; the legend lists the conditions drawn, if there are several."""
    return alt.Color("condition:N", scale=alt.Scale(domain=list(labels)), legend=_legend(drawn, symbol))


def dash(labels: Sequence[str], drawn: Sequence[str] = ()) -> alt.StrokeDash:
    """Return the dash pattern of the field `condition`, in one legend with its colour."""
    patterns = [list(DASHES[place % len(DASHES)]) for place in range(len(labels))]
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


def panel_columns(labels: Sequence[str], most: int = 4) -> int:
    """Return how many panels stand in a row so that each has room for its label, at most `most` and at least two."""
    longest = max((len(label) for label in labels), default=0)
    room = next((columns for columns in (4, 3) if longest * 6.6 <= (WIDTH - 72) / columns - 10), 2)
    return max(1, min(most, room, len(labels)))
