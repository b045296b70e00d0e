"""The drawing of contours: cells in a few colour steps, trials as points, axes with the settings' own ticks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import altair as alt

from benchkit_figures.colour_steps import Steps, colour_steps
from benchkit_figures.conditions import WIDTH, Layers
from benchkit_figures.metrics import quantity
from benchkit_figures.objective_axis import usual

if TYPE_CHECKING:
    from benchkit_figures.search_contours import ContourAxis, ContourData, ContourPanel

COLUMNS = 3
EDGE = 0.02
"""How far the axes go beyond 0 and 1, so that trials at an end are whole."""


def contour_panels(data: ContourData) -> alt.ConcatChart:
    """Return a panel for every pair of settings, three in a row, with one colour scale."""
    steps = _steps(data)
    columns = min(COLUMNS, len(data.shown))
    width = min(300, (WIDTH - 78 * columns) // columns)
    choice = _choice(data)
    panels = [_panel(data, place, steps).properties(width=width, height=width) for place in range(len(data.shown))]
    chart = alt.concat(*panels, columns=columns, spacing={"row": 14, "column": 14})
    return chart if choice is None else chart.add_params(choice)


def _choice(data: ContourData) -> alt.Parameter | None:
    """Return the selector of the searched condition for HTML, set to the best one; None when there is one only."""
    labels = list(dict.fromkeys(panel.condition for panel in data.panels))
    if len(labels) < 2:
        return None
    return alt.param(
        name="contours_condition", value=labels[0], bind=alt.binding_select(options=labels, name="Search ")
    )


def _steps(data: ContourData) -> Steps:
    """Return colour steps over the usual values; what is far worse than those is in the last one."""
    unit = quantity(data.metric)
    values = sorted(unit.shown(cell.objective) for panel in data.panels for cell in panel.cells)
    low, high = usual(values, lower=data.lower)
    return colour_steps([min(max(value, low), high) for value in values], lower_is_better=data.lower)


def _panel(data: ContourData, place: int, steps: Steps) -> Layers:
    shown = data.shown[place]
    same = [panel for panel in data.panels if (panel.first, panel.second) == (shown.first, shown.second)]
    x, y = (_axis(channel, data.axes[at]) for channel, at in ((alt.X, shown.first), (alt.Y, shown.second)))
    unit = quantity(data.metric)
    only = "datum.condition == contours_condition" if len({p.condition for p in data.panels}) > 1 else "true"
    cells = (
        alt.Chart(alt.InlineData(values=[row for panel in same for row in _cell_rows(data, panel, steps)]))
        .transform_filter(only)
        .mark_rect(strokeWidth=0)
        .encode(
            x=x,
            x2="x2:Q",
            y=y,
            y2="y2:Q",
            color=steps.encoding(unit.title),
            tooltip=[alt.Tooltip("value:Q", title=f"Mean {unit.title}"), alt.Tooltip("n:Q", title="Trials near")],
        )
    )
    points = alt.Chart(alt.InlineData(values=[row for panel in same for row in _trial_rows(data, panel)]))
    marks = points.transform_filter(only).encode(x=x, y=y)
    tooltip = [alt.Tooltip(f"{name}:{kind}", title=title) for name, kind, title in _tips(unit.title)]
    done = marks.transform_filter("datum.state == 'done'").mark_point(
        size=26, shape="circle", filled=True, color="#1f2328", stroke="#ffffff", strokeWidth=0.8
    )
    pruned = marks.transform_filter("datum.state == 'pruned'").mark_point(
        size=26, shape="triangle-down", color="#5b6470", strokeWidth=1.2
    )
    ring = marks.transform_filter("datum.best").mark_point(size=150, strokeWidth=2.4, color="#D55E00", shape="circle")
    return alt.layer(cells, pruned.encode(tooltip=tooltip), done.encode(tooltip=tooltip), ring)


def _tips(title: str) -> tuple[tuple[str, str, str], ...]:
    return (("trial", "Q", "Trial"), ("state", "N", "State"), ("value", "Q", title))


def _axis(channel: type[alt.X] | type[alt.Y], axis: ContourAxis) -> Any:
    """Return a channel from 0 to 1 whose ticks carry the setting's own values."""
    texts = json.dumps({f"{at:.4f}": text for at, text in axis.ticks})
    given = alt.Axis(
        values=[at for at, _ in axis.ticks],
        labelExpr=f"{texts}[format(datum.value, '.4f')]",
        labelOverlap="greedy",
        labelLimit=70,
        labelAngle=0,
        grid=False,
    )
    scale = alt.Scale(domain=[-EDGE, 1 + EDGE], nice=False, zero=False)
    short = "x:Q" if channel is alt.X else "y:Q"
    return channel(short, title=f"{axis.name} (log scale)" if axis.log else axis.name, axis=given, scale=scale)


def _cell_rows(data: ContourData, panel: ContourPanel, steps: Steps) -> list[dict[str, Any]]:
    unit = quantity(data.metric)
    return [
        {
            "condition": panel.condition,
            "x": _short(cell.low_x),
            "x2": _short(cell.high_x),
            "y": _short(cell.low_y),
            "y2": _short(cell.high_y),
            "step": steps.name(unit.shown(cell.objective)),
            "value": unit.shown(cell.objective),
            "n": cell.trials,
        }
        for cell in panel.cells
    ]


def _trial_rows(data: ContourData, panel: ContourPanel) -> list[dict[str, Any]]:
    unit = quantity(data.metric)
    return [
        {
            "condition": panel.condition,
            "x": _short(trial.x),
            "y": _short(trial.y),
            "trial": trial.place,
            "state": trial.state,
            "best": trial.best,
            "value": unit.shown(trial.objective),
        }
        for trial in panel.trials
    ]


def _short(position: float) -> float:
    return float(f"{position:.4g}")
