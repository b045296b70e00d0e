"""The two pictures of accuracy by class: points with intervals, or a table in steps of colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt

from benchkit_figures.colour_steps import DARK, LIGHT, Steps, colour_steps
from benchkit_figures.conditions import WIDTH, Layers, colour, label_width, shape

if TYPE_CHECKING:
    from benchkit_figures.class_accuracy import ClassData

MOST_NUMBERS = 12
"""Up to this many columns cells carry their number."""


def intervals(data: ClassData) -> Layers:
    """Return a row for each class with a point and a bar for each condition beside each other."""
    drawn = [one.condition for one in data.conditions]
    offset = alt.YOffset("condition:N", scale=alt.Scale(domain=drawn))
    grid = alt.Axis(domain=False, ticks=False, grid=True, tickBand="extent", labelLimit=200)
    y = alt.Y("class:N", sort=list(data.shown), title=None, axis=grid)
    title = f"{data.split.capitalize()} accuracy of the class (%)"
    scale = alt.Scale(domain=_domain(data), nice=False, zero=False)
    base = alt.Chart(alt.InlineData(values=_rows(data, _steps(data)))).encode(y=y, color=colour(data.labels, drawn))
    if len(drawn) > 1:
        base = base.encode(yOffset=offset)
    bars = base.mark_rule(strokeWidth=1.8).encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q")
    points = base.mark_point(filled=True, size=42, fillOpacity=1).encode(
        x=alt.X("accuracy:Q", title=title, scale=scale), shape=shape(data.labels), tooltip=_tooltip()
    )
    step = max(18, 11 * len(drawn) + 4) if len(data.shown) <= 12 else max(14, 8 * len(drawn) + 3)
    width = WIDTH - label_width(data.shown) - 24
    return alt.layer(bars, points).properties(width=width, height=alt.Step(step, **{"for": "position"}))


def table(data: ClassData) -> Layers:
    """Return a cell for each class and condition, coloured in steps of accuracy, with its percentage."""
    drawn = [one.condition for one in data.conditions]
    width = WIDTH - label_width(data.shown) - 34
    size = min(60, width // len(drawn))
    upright = max(map(len, drawn)) * 6 <= size
    axis = alt.Axis(orient="top", ticks=False, domain=False, labelAngle=0 if upright else -45, labelLimit=150)
    steps = _steps(data)
    base = alt.Chart(alt.InlineData(values=_rows(data, steps))).encode(
        x=alt.X("condition:N", sort=drawn, scale=alt.Scale(domain=drawn), title=None, axis=axis),
        y=alt.Y("class:N", sort=list(data.shown), title=None, axis=alt.Axis(ticks=False, domain=False)),
        tooltip=_tooltip(),
    )
    layers = [base.mark_rect().encode(color=steps.encoding("Accuracy (%)"))]
    if len(drawn) <= MOST_NUMBERS:
        ink = alt.condition("datum.dark", alt.value(LIGHT), alt.value(DARK))
        text = base.mark_text(fontSize=10).encode(text=alt.Text("accuracy:Q", format=".1f"), color=ink)
        layers.append(text)
    height = alt.Step(22 if len(data.shown) <= 12 else 17)
    return alt.layer(*layers).properties(width=size * len(drawn), height=height)


def _domain(data: ClassData) -> list[float]:
    shares = [share for one in data.conditions for share in one.classes if share.name in data.shown]
    low, high = 100 * min(share.low for share in shares), 100 * max(share.high for share in shares)
    pad = 0.03 * (high - low) or 1.0
    return [max(0.0, float(f"{low - pad:.4g}")), min(100.0, float(f"{high + pad:.4g}"))]


def _steps(data: ClassData) -> Steps:
    shares = [share for one in data.conditions for share in one.classes if share.name in data.shown]
    return colour_steps([_percent(share.accuracy) for share in shares])


def _rows(data: ClassData, steps: Steps) -> list[dict[str, Any]]:
    return [
        {
            "condition": one.condition,
            "class": share.name,
            "accuracy": _percent(share.accuracy),
            "low": _percent(share.low),
            "high": _percent(share.high),
            "right": share.right,
            "of": share.of,
            "step": steps.name(_percent(share.accuracy)),
            "dark": steps.dark(_percent(share.accuracy)),
        }
        for one in data.conditions
        for share in one.classes
        if share.name in data.shown
    ]


def _percent(share: float) -> float:
    return float(f"{100 * share:.4g}")


def _tooltip() -> list[alt.Tooltip]:
    names = {"condition:N": "Condition", "class:N": "Class", "accuracy:Q": "Accuracy (%)", "low:Q": "Interval from"}
    names |= {"high:Q": "Interval to", "right:Q": "Right", "of:Q": "Of"}
    return [alt.Tooltip(field, title=title) for field, title in names.items()]
