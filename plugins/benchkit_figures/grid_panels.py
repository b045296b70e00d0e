"""The panels of a grid of factors: cells in steps of colour with their mean and n."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt

from benchkit_figures.colour_steps import DARK, LIGHT, Steps, colour_steps
from benchkit_figures.conditions import WIDTH, Layers, label_width
from benchkit_figures.metrics import lower_is_better, quantity

if TYPE_CHECKING:
    from benchkit_figures.grid_heatmap import GridData

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


def short(path: str) -> str:
    """Return the last part of a factor's path in words, such as `batch size`."""
    return path.rpartition(".")[2].replace("_", " ")


def _size(data: GridData, room: int) -> int:
    return max(24, min(86, room // len(data.x_levels)))


def _panel(data: GridData, place: int, across: int, steps: Steps, size: int) -> Layers:
    name = data.panels[place]
    left, bottom = place % across == 0, place + across >= len(data.panels)
    upright = max(map(len, data.x_levels)) * 6.2 <= size
    x_axis = alt.Axis(
        ticks=False,
        domain=False,
        labelAngle=0 if upright else -45,
        labels=bottom,
        title=short(data.x) if bottom else None,
    )
    down = alt.Axis(ticks=False, domain=False, labels=left, title=short(data.y) if left else None) if data.y else None
    unit = quantity(data.metric)
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
    ink = alt.condition("datum.dark", alt.value(LIGHT), alt.value(DARK))
    full = base.transform_filter("datum.n > 0")
    layers = [
        full.mark_rect(stroke="#FFFFFF", strokeWidth=1).encode(color=steps.encoding(unit.title)),
        full.mark_text(fontSize=11 if size >= 44 else 9, dy=-5).encode(text="text:N", color=ink),
        full.mark_text(fontSize=8.5, dy=8).encode(text="repeats:N", color=ink),
    ]
    chart = alt.layer(*layers).properties(
        width=size * len(data.x_levels),
        height=34 * len(data.y_levels),
        view=alt.ViewBackground(fill=EMPTY),
    )
    return chart.properties(title=alt.TitleParams(name, anchor="start", frame="group")) if name else chart


def _steps(data: GridData) -> Steps:
    unit = quantity(data.metric)
    values = [unit.shown(cell.mean) for cell in data.cells if cell.mean is not None]
    return colour_steps(values, lower_is_better=lower_is_better(data.metric))


def _rows(data: GridData, steps: Steps) -> list[dict[str, Any]]:
    unit = quantity(data.metric)
    return [
        {
            "condition": cell.condition,
            "x": cell.x,
            "y": cell.y,
            "panel": cell.panel,
            "n": cell.n,
            "mean": unit.shown(cell.mean),
            "low": unit.shown(cell.low),
            "high": unit.shown(cell.high),
            "step": steps.name(unit.shown(cell.mean)),
            "dark": steps.dark(unit.shown(cell.mean)),
            "text": unit.plain(cell.mean),
            "repeats": f"n = {cell.n}",
        }
        for cell in data.cells
        if cell.mean is not None and cell.low is not None and cell.high is not None
    ]
