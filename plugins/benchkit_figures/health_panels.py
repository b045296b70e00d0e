"""The panels of norm health: a column for each layer, mean above variance, and the gradient norm below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import altair as alt

from benchkit_figures.conditions import WIDTH, colour, dash
from benchkit_figures.epoch_series import thinned

if TYPE_CHECKING:
    from benchkit_figures.norm_health import HealthCurve, HealthData

HEIGHT = 110


def health_panels(data: HealthData) -> Any:
    """Return the rows of panels; each row has one vertical axis, logarithmic for variances and gradient norms."""
    rows = []
    for quantity in ("mean", "variance"):
        curves = [curve for curve in data.curves if curve.quantity == quantity]
        if curves:
            panels = [_panel(data, curves, quantity, panel) for panel in data.panels]
            rows.append(alt.hconcat(*panels, spacing=12, bounds="flush"))
    gradient = [curve for curve in data.curves if curve.quantity == "gradient norm"]
    if gradient:
        rows.append(alt.hconcat(_panel(data, gradient, "gradient norm", "")))
    return alt.vconcat(*rows, data=alt.InlineData(values=_rows(data)), spacing=12)


def _panel(data: HealthData, curves: Sequence[HealthCurve], quantity: str, panel: str) -> alt.Chart:
    first = panel == data.panels[0] if data.panels and panel else True
    title = {"mean": "Mean", "variance": "Variance", "gradient norm": "Gradient norm"}[quantity]
    last = quantity != "mean"
    y_axis = alt.Axis(labels=first, title=title if first else None, tickCount=4, values=_ticks(curves, quantity))
    x_axis = alt.Axis(
        labels=last,
        title="Epoch" if last else None,
        tickCount=8 if not panel else 3,
        format="d",
        tickMinStep=1,
        values=_epochs(data)[:1] if _one_epoch(data) else alt.Undefined,
    )
    chart = alt.Chart().transform_filter(f"datum.quantity == '{quantity}' && datum.panel == '{panel}'")
    tooltip = [alt.Tooltip("condition:N", title="Condition"), alt.Tooltip("epoch:Q", title="Epoch")]
    tooltip.append(alt.Tooltip("value:Q", title=title, format=".4g"))
    lines = chart.mark_line(clip=True, strokeWidth=1.5, point=_one_epoch(data)).encode(
        x=alt.X("epoch:Q", axis=x_axis, scale=_epoch_scale(data)),
        y=alt.Y("value:Q", axis=y_axis, scale=_scale(curves, quantity)),
        color=colour(data.labels, data.drawn, "stroke"),
        strokeDash=dash(data.labels, data.drawn),
        tooltip=tooltip,
    )
    count = max(1, len(data.panels))
    width = (WIDTH - 84 - 10 * (count - 1)) // count if panel else WIDTH - 84
    drawn: alt.Chart = lines.properties(width=width, height=HEIGHT)
    heading = panel if quantity == "mean" else ""
    return drawn.properties(title=alt.TitleParams(heading, anchor="start", frame="group")) if heading else drawn


def _is_log(curves: Sequence[HealthCurve], quantity: str) -> bool:
    values = [point.mean for curve in curves for point in curve.points]
    return quantity != "mean" and min(values) > 0 and max(values) > 5 * min(values)


def _ticks(curves: Sequence[HealthCurve], quantity: str) -> Any:
    """Return the ticks of a log scale: decades, with 2 and 5 between them where there are few."""
    if not _is_log(curves, quantity):
        return alt.Undefined
    values = [point.mean for curve in curves for point in curve.points]
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = (1, 2, 5) if last - first < 3 else (1,)
    every = max(1, (last - first) // 5)
    return [float(f"{step}e{power}") for power in range(first, last + 1, every) for step in steps]


def _scale(curves: Sequence[HealthCurve], quantity: str) -> alt.Scale:
    values = sorted(point.mean for curve in curves for point in curve.points)
    low, high = values[0], values[-1]
    if _is_log(curves, quantity):
        return alt.Scale(type="log", domain=[float(f"{low * 0.9:.3g}"), float(f"{high * 1.1:.3g}")], nice=False)
    pad = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    return alt.Scale(domain=[float(f"{low - pad:.4g}"), float(f"{high + pad:.4g}")], nice=False, zero=False)


def _one_epoch(data: HealthData) -> bool:
    return len({point.epoch for curve in data.curves for point in curve.points}) == 1


def _epochs(data: HealthData) -> list[int]:
    epochs = [point.epoch for curve in data.curves for point in curve.points]
    low, high = min(epochs), max(epochs)
    return [low, high] if high > low else [low]


def _epoch_scale(data: HealthData) -> alt.Scale:
    ends = _epochs(data)
    return alt.Scale(domain=ends if len(ends) > 1 else [ends[0] - 1, ends[0] + 1], nice=False)


def _rows(data: HealthData) -> list[dict[str, Any]]:
    return [
        {
            "condition": curve.condition,
            "quantity": curve.quantity,
            "panel": curve.panel,
            "epoch": point.epoch,
            "value": float(f"{point.mean:.4g}"),
        }
        for curve in data.curves
        for point in thinned(curve.points, 2)
    ]
