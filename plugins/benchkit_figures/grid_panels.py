"""The panels of a grid of factors: cells in steps of colour with their mean and n."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import altair as alt

from benchkit_figures.conditions import WIDTH, Layers, label_width
from benchkit_figures.confusion_panels import COLOURS
from benchkit_figures.metrics import Quantity, lower_is_better, quantity

if TYPE_CHECKING:
    from benchkit_figures.grid_heatmap import GridData

MOST_STEPS = len(COLOURS)
DARK_STEPS = 4
"""Of the steps, the last four are dark and carry light numbers."""

EMPTY = "#F6F8FB"


def panels(data: GridData) -> Any:
    """Return one panel, or several in rows, with a legend of the steps below."""
    across, room = _columns(data)
    steps, size = _steps(data), _size(data, room)
    values = alt.InlineData(values=_rows(data, steps))
    made = [_panel(data, place, across, steps, size) for place in range(len(data.panels))]
    if len(made) == 1:
        return made[0].properties(data=values)
    return alt.concat(*made, columns=across, data=values, spacing={"row": 14, "column": 16})


def _columns(data: GridData) -> tuple[int, int]:
    """Return how many panels stand in a row, and the room of each in pixels."""
    labels = label_width(data.y_levels) + 30
    for across in (4, 3, 2):
        room = (WIDTH - labels - 16 * (across - 1)) // across
        if across <= len(data.panels) and room >= 46 * len(data.x_levels):
            return across, room
    return 1, WIDTH - labels


def _size(data: GridData, room: int) -> int:
    return max(24, min(86, room // len(data.x_levels)))


def _panel(data: GridData, place: int, across: int, steps: list[float], size: int) -> Layers:
    name = data.panels[place]
    left, bottom = place % across == 0, place + across >= len(data.panels)
    upright = max(map(len, data.x_levels)) * 6.2 <= size
    x_axis = alt.Axis(
        ticks=False, domain=False, labelAngle=0 if upright else -45, labels=bottom, title=data.x if bottom else None
    )
    down = alt.Axis(ticks=False, domain=False, labels=left, title=data.y if left else None) if data.y else None
    unit, names = quantity(data.metric), _names(data, steps)
    base = alt.Chart().transform_filter(alt.FieldEqualPredicate(field="panel", equal=name))
    base = base.encode(
        x=alt.X("x:O", sort=list(data.x_levels), scale=alt.Scale(domain=list(data.x_levels)), axis=x_axis),
        y=alt.Y("y:O", sort=list(data.y_levels), scale=alt.Scale(domain=list(data.y_levels)), axis=down),
        tooltip=[
            alt.Tooltip("condition:N", title="Condition"),
            alt.Tooltip("mean:Q", title=unit.title),
            alt.Tooltip("low:Q", title="Interval from"),
            alt.Tooltip("high:Q", title="Interval to"),
            alt.Tooltip("n:Q", title="Repeats"),
        ],
    )
    legend = alt.Legend(
        title=unit.title,
        orient="bottom",
        direction="horizontal",
        columns=4,
        symbolType="square",
        symbolSize=140,
        symbolStrokeWidth=0,
    )
    color = alt.Color("step:O", scale=alt.Scale(domain=names, range=_colours(names)), legend=legend)
    ink = alt.condition("datum.dark", alt.value("#F6F8FB"), alt.value("#1f2328"))
    full = base.transform_filter("datum.n > 0")
    layers = [
        full.mark_rect(stroke="#FFFFFF", strokeWidth=1).encode(color=color),
        full.mark_text(fontSize=11 if size >= 44 else 9, dy=-5).encode(text="text:N", color=ink),
        full.mark_text(fontSize=8.5, dy=8).encode(text="repeats:N", color=ink),
    ]
    chart = alt.layer(*layers).properties(
        width=size * len(data.x_levels),
        height=34 * len(data.y_levels),
        view=alt.ViewBackground(fill=EMPTY),
    )
    return chart.properties(title=alt.TitleParams(name, anchor="start", frame="group")) if name else chart


def _steps(data: GridData) -> list[float]:
    """Return the inner ends of the colour steps, round numbers in the metric's unit; none when all cells are equal."""
    unit = quantity(data.metric)
    values = [unit.shown(cell.mean) for cell in data.cells if cell.mean is not None]
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(high), 1.0):
        return []
    power = 10.0 ** math.floor(math.log10((high - low) / MOST_STEPS))
    for factor in (1, 2, 2.5, 5, 10, 20, 25, 50):
        width = factor * power
        first, last = math.floor(low / width) + 1, math.ceil(high / width) - 1
        if last - first + 2 <= MOST_STEPS:
            return [float(f"{place * width:.10g}") for place in range(first, last + 1)]
    return []


def _names(data: GridData, steps: list[float]) -> list[str]:
    """Return the steps in words, in the order of their colours: the best is darkest."""
    if not steps:
        names = ["all"]
    else:
        inner = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(steps)]
        names = [f"under {steps[0]:g}", *inner, f"{steps[-1]:g} and over"]
    return names[::-1] if lower_is_better(data.metric) else names


def _colours(names: list[str]) -> list[str]:
    """Return one colour a step, the last the darkest."""
    return list(COLOURS[-len(names) :]) if len(names) > 1 else [COLOURS[2]]


def _rows(data: GridData, steps: list[float]) -> list[dict[str, Any]]:
    unit, names = quantity(data.metric), _names(data, steps)
    dark = set(names[-DARK_STEPS:]) if len(names) > 1 else set()
    rows = []
    for cell in data.cells:
        if cell.mean is None or cell.low is None or cell.high is None:
            continue
        place = sum(unit.shown(cell.mean) >= end for end in steps)
        step = (names[::-1] if lower_is_better(data.metric) else names)[place]
        rows.append(
            {
                "condition": cell.condition,
                "x": cell.x,
                "y": cell.y,
                "panel": cell.panel,
                "n": cell.n,
                "mean": unit.shown(cell.mean),
                "low": unit.shown(cell.low),
                "high": unit.shown(cell.high),
                "step": step,
                "dark": step in dark,
                "text": _text(unit, cell.mean),
                "repeats": f"n = {cell.n}",
            }
        )
    return rows


def _text(unit: Quantity, value: float) -> str:
    return unit.plain(value)
