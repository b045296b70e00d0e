"""The two pictures of a confusion difference: a heatmap in steps of two colours, or the pairs that changed most."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

import altair as alt

from benchkit_figures.conditions import WIDTH, label_width
from benchkit_figures.confusion_panels import LABELLED_CLASSES

if TYPE_CHECKING:
    from benchkit_figures.confusion_difference import DifferenceData

ENDS = (-20, -10, -5, -1, 1, 5, 10, 20)
STEPS = ("-20 or less", "-20 to -10", "-10 to -5", "-5 to -1", "-1 to 1", "1 to 5", "5 to 10", "10 to 20", "20 or more")
COLOURS = ("#A63E00", "#D9772E", "#EDAE7C", "#F7DCC6", "#F6F8FB", "#CFE0EF", "#91BBDD", "#4688BE", "#135590")
"""From orange over nearly white to blue: told apart under colour-vision deficiencies."""

DARK_FROM = 10
"""Cells from this many points on, either way, are dark and carry light numbers."""


def heatmap(data: DifferenceData) -> Any:
    """Return a cell for each pair of classes, coloured by the difference; small differences carry no number."""
    classes, count = list(data.classes), len(data.classes)
    size = max(6, min(44, (WIDTH - label_width(classes) - 40) // count))
    axis: dict[str, Any] = {"ticks": False, "domain": False, "labelOverlap": count > LABELLED_CLASSES}
    upright = max(map(len, classes)) * 6 <= size
    base = alt.Chart(alt.InlineData(values=_cells(data))).encode(
        x=alt.X(
            "called:O", sort=classes, title="Predicted class", axis=alt.Axis(labelAngle=0 if upright else -45, **axis)
        ),
        y=alt.Y("true:O", sort=classes, title="True class", axis=alt.Axis(**axis)),
        tooltip=[
            alt.Tooltip("true:N", title="True class"),
            alt.Tooltip("called:N", title="Predicted class"),
            alt.Tooltip("difference:Q", title="Difference (points)", format="+.2f"),
        ],
    )
    beside = size * count <= WIDTH - 190 - label_width(classes)
    layers = [base.mark_rect().encode(color=_color(_legend(beside)))]
    if count <= LABELLED_CLASSES:
        ink = alt.condition(f"abs(datum.difference) >= {DARK_FROM}", alt.value("#F6F8FB"), alt.value("#1f2328"))
        text = base.transform_filter("abs(datum.difference) >= 1").mark_text(fontSize=min(11, max(7, size // 3)))
        layers.append(text.encode(text=alt.Text("difference:Q", format="+.0f"), color=ink))
    return alt.layer(*layers).properties(width=size * count, height=size * count)


def changed_pairs(data: DifferenceData) -> Any:
    """Return a row for each pair with a bar to the left or right, and both percentages beside it."""
    rows: list[dict[str, Any]] = [
        {
            "pair": f"{pair.true} → {pair.called}" if pair.true != pair.called else f"{pair.true}, right",
            "difference": float(f"{pair.difference:.4g}"),
            "step": STEPS[bisect.bisect_right(ENDS, pair.difference)],
            "text": f"{pair.first:.1f} % / {pair.second:.1f} %",
        }
        for pair in data.pairs
    ]
    order = [row["pair"] for row in rows]
    base = alt.Chart(alt.InlineData(values=rows))
    y = alt.Y("pair:N", sort=order, title=None, axis=alt.Axis(domain=False, ticks=False, labelLimit=200))
    x = alt.X("difference:Q", title="Difference (percentage points)", axis=alt.Axis(tickCount=6, format="+"))
    bars = base.mark_bar(size=11).encode(x=x, y=y, color=_color(None))
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(strokeOpacity=0.6).encode(x="zero:Q")
    plot = alt.layer(bars, zero).properties(width=WIDTH - label_width(order) - 150, height=alt.Step(18))
    title = alt.TitleParams(f"{data.first} / {data.second}", anchor="start", limit=150)
    numbers = base.mark_text(align="left", fontSize=10.5).encode(
        y=alt.Y("pair:N", sort=order, axis=None), x=alt.value(0), text="text:N"
    )
    return alt.hconcat(plot, numbers.properties(width=110, height=alt.Step(18), title=title), spacing=8)


def _color(legend: alt.Legend | None) -> alt.Color:
    return alt.Color("step:O", scale=alt.Scale(domain=list(STEPS), range=list(COLOURS)), legend=legend)


def _legend(beside: bool) -> alt.Legend:
    place: dict[str, Any] = (
        {"orient": "right"} if beside else {"orient": "bottom", "direction": "horizontal", "columns": 5}
    )
    return alt.Legend(
        title="Difference (percentage points)",
        symbolType="square",
        symbolSize=150,
        symbolStrokeWidth=0.5,
        symbolStrokeColor="#808080",
        **place,
    )


def _cells(data: DifferenceData) -> list[dict[str, Any]]:
    return [
        {
            "true": true,
            "called": called,
            "difference": float(f"{value:.4g}"),
            "step": STEPS[bisect.bisect_right(ENDS, value)],
        }
        for true, row in zip(data.classes, data.difference, strict=True)
        for called, value in zip(data.classes, row, strict=True)
    ]
