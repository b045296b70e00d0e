"""How every figure looks: palette, dashes, shapes, font and the Vega-Lite configuration.

Colours are told apart under the common colour-vision deficiencies, have a contrast of at least 4.5:1 to a white page
and, as the report's styles turn them, to a near-black one, and are never black or white. In grey print some are alike:
so conditions also differ in dash and shape. Text and axes are `currentColor`: HTML gives them the page's text colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FONT_FAMILY = "Inter, Liberation Sans, Arial, sans-serif"
"""The font of figures; the report embeds the first of these families in HTML and in the PDF."""

FIGURE_WIDTH = 640
"""The width in CSS pixels that figures are designed for: 169 mm, the text width of an A4 page with 20 mm margins."""

INK = "#1f2328"
"""The colour of text and axes where a figure is not on the page (SVG for print, PNG, PDF)."""

PALETTE = ("#1E78B4", "#C34B00", "#0F784B", "#C32D96", "#5A3C00", "#3C3C69", "#781E3C", "#2A2AF0")
"""Colours of conditions in their order, on a white page; the report's styles turn each into its pair on a dark one."""

DASHES = ((1, 0), (6, 2), (2, 2), (8, 2, 2, 2), (12, 3), (4, 2, 1, 2, 1, 2), (1, 3))
"""Dash patterns of lines in pixels. Seven against eight colours: 56 conditions before a pair repeats."""

SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
"""Shapes of points."""

SEQUENTIAL = ("#E8EFF7", "#C7DAEC", "#A0C3E1", "#73A8D3", "#5596CB", "#2570AC", "#135590", "#0B3A69")
"""Steps of one quantity from little to much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionStyle:
    """How a condition is drawn: `colour` as #RRGGBB, `dash` in pixels, `shape` by its Vega name."""

    colour: str
    dash: tuple[int, ...]
    shape: str


def condition_scale(labels: Sequence[str]) -> dict[str, ConditionStyle]:
    """Return the style of every condition label, by its place in `labels`: the report's planned conditions in order.

    Figures get the same colours from Vega by giving their colour scale the same labels as domain.
    """
    return {
        label: ConditionStyle(
            colour=PALETTE[index % len(PALETTE)], dash=DASHES[index % len(DASHES)], shape=SHAPES[index % len(SHAPES)]
        )
        for index, label in enumerate(labels)
    }


def vega_config() -> dict[str, Any]:
    """Return the Vega-Lite configuration that every figure is drawn with."""
    text = {"labelColor": "currentColor", "titleColor": "currentColor", "titleFontWeight": 600}
    quiet = {"labelFontSize": 11, "titleFontSize": 11, "labelFont": FONT_FAMILY, "titleFont": FONT_FAMILY}
    lines = {"domainColor": "currentColor", "domainOpacity": 0.5, "tickColor": "currentColor", "tickOpacity": 0.5}
    grid = {"gridColor": "#808080", "gridOpacity": 0.2}
    return {
        "font": FONT_FAMILY,
        "view": {"stroke": None, "continuousWidth": FIGURE_WIDTH - 70, "continuousHeight": 260},
        "axis": {
            **text,
            **quiet,
            **lines,
            **grid,
            "titlePadding": 8,
            "tickSize": 4,
            "labelLimit": 200,
            "labelFlush": False,
        },
        "axisX": {"grid": False},
        "axisQuantitative": {"labelOverlap": "greedy", "labelSeparation": 4},
        "legend": {**text, **quiet, "symbolStrokeWidth": 2, "labelLimit": 220, "symbolLimit": 60, "titleLimit": 300},
        "header": {**text, **quiet, "labelFontWeight": 600, "labelPadding": 4, "titlePadding": 4},
        "title": {"color": "currentColor", "font": FONT_FAMILY, "fontSize": 11, "fontWeight": 600, "offset": 6},
        "text": {"color": "currentColor", "font": FONT_FAMILY, "fontSize": 11},
        "rule": {"color": "currentColor"},
        "line": {"strokeWidth": 1.8, "strokeCap": "butt", "strokeJoin": "round"},
        # Vega-Lite's default of 0.7 costs a transparency group for every point in the PDF.
        **{mark: {"opacity": 1} for mark in ("point", "circle", "square", "tick")},
        "concat": {"spacing": 18},
        "facet": {"spacing": 14},
        "range": {"category": list(PALETTE), "symbol": list(SHAPES), "ordinal": list(SEQUENTIAL)},
    }
