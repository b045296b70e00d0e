"""The panels of the loss gap: curves by epoch, and the gap at the selected epoch as points with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt

from benchkit_figures.conditions import WIDTH, Layers, colour, dash, label_width, panel_columns
from benchkit_figures.epoch_series import thinned

if TYPE_CHECKING:
    from benchkit_figures.loss_gap import GapData

COLUMNS = 3
LONG = 110
"""Labels wider than this in pixels leave the curves too little room beside the points."""

TITLE = "Validation minus training loss (nats)"


def gap_panels(data: GapData, overlay: int) -> Any:
    """Return the curves beside the points; with more than `overlay` conditions, a small panel each above the points."""
    names = label_width([gap.condition for gap in data.gaps])
    if len(data.gaps) <= overlay and names > LONG:
        room = WIDTH - max(58, names + 16)
        return alt.vconcat(_curves(data, room), _ends(data, room), spacing=20)
    if len(data.gaps) <= overlay:
        return alt.hconcat(_curves(data, WIDTH - 285 - names), _ends(data, 190), spacing=16)
    # The rows below share the left edge of their plots, so the panels leave the labels of the points their room.
    room = WIDTH - max(58, names + 16)
    columns = min(COLUMNS, panel_columns([gap.condition for gap in data.gaps]))
    panels = [_own(data, place, columns, (room - 10 * (columns - 1)) // columns) for place in range(len(data.gaps))]
    many = alt.concat(*panels, columns=columns, data=alt.InlineData(values=_rows(data, 6)), spacing=10)
    return alt.vconcat(many, _ends(data, room), spacing=20)


def _curves(data: GapData, width: int) -> Layers:
    drawn = [gap.condition for gap in data.gaps]
    scale = alt.Scale(domain=_domain(data), nice=False, zero=False)
    base = alt.Chart(alt.InlineData(values=_rows(data, 1))).encode(
        x=alt.X("epoch:Q", title="Epoch", axis=_whole(data), scale=_epochs(data)),
        color=colour(data.labels, drawn, "stroke"),
    )
    tooltip = [alt.Tooltip("condition:N"), alt.Tooltip("epoch:Q"), alt.Tooltip("mean:Q", format=".4f")]
    y = alt.Y("mean:Q", title=TITLE, scale=scale)
    line = base.mark_line(clip=True, point=_one_epoch(data)).encode(
        y=y, strokeDash=dash(data.labels, drawn), tooltip=tooltip
    )
    layers = [_zero(data, y), line]
    if any(gap.n > 1 for gap in data.gaps):
        band = base.mark_area(clip=True).encode(
            y=alt.Y("low:Q", title=TITLE, scale=scale), y2="high:Q", fillOpacity=alt.value(0.15)
        )
        layers.insert(0, band)
    return alt.layer(*layers).properties(width=width, height=max(200, 24 * len(drawn)))


def _own(data: GapData, place: int, columns: int, width: int) -> Layers:
    label = data.gaps[place].condition
    left, bottom = place % columns == 0, place + columns >= len(data.gaps)
    x_axis = alt.Axis(labels=bottom, title="Epoch" if bottom else None, tickCount=3, format="d", tickMinStep=1)
    y_axis = alt.Axis(labels=left, title="Gap (nats)" if left else None, tickCount=4)
    y = alt.Y("mean:Q", axis=y_axis, scale=alt.Scale(domain=_domain(data), nice=False, zero=False))
    base = alt.Chart().encode(x=alt.X("epoch:Q", axis=x_axis, scale=_epochs(data)), y=y)
    own = base.transform_filter(alt.FieldEqualPredicate(field="condition", equal=label))
    layers = [
        _zero(data, y),
        base.mark_line(clip=True, strokeWidth=0.5, color="#808080", strokeOpacity=0.3).encode(detail="condition:N"),
        own.mark_line(clip=True, strokeWidth=2, point=_one_epoch(data)).encode(color=colour(data.labels)),
    ]
    title = alt.TitleParams(label, limit=width, anchor="start", frame="group")
    return alt.layer(*layers).properties(width=width, height=76, title=title)


def _ends(data: GapData, width: int) -> Layers:
    """Return a row for each condition, smallest gap first: mean, interval, and the gap without augmentation."""
    order = [gap.condition for gap in sorted(data.gaps, key=lambda gap: abs(gap.selected))]
    rows = [
        {
            "condition": gap.condition,
            "selected": _short(gap.selected),
            "low": _short(gap.low),
            "high": _short(gap.high),
            "evaluated": None if gap.evaluated is None else _short(gap.evaluated),
            "n": gap.n,
        }
        for gap in data.gaps
    ]
    title = "Gap at the scored epoch (nats)"
    y = alt.Y("condition:N", sort=order, title=None, axis=alt.Axis(domain=False, ticks=False, grid=True))
    base = alt.Chart(alt.InlineData(values=rows)).encode(y=y, color=colour(data.labels))
    x = alt.X("selected:Q", title=title, axis=alt.Axis(tickCount=4), scale=alt.Scale(zero=True, padding=6))
    tooltip = [alt.Tooltip(f"{name}:{kind}") for name, kind in (("condition", "N"), ("selected", "Q"), ("n", "Q"))]
    layers = [
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q"),
        base.mark_point(shape="diamond", size=46, filled=False, strokeWidth=1.4).encode(
            x=alt.X("evaluated:Q", title=title)
        ),
        base.mark_point(filled=True, size=60, fillOpacity=1).encode(x=x, tooltip=tooltip),
    ]
    return alt.layer(*layers).properties(width=width, height=alt.Step(24 if len(order) <= 8 else 17))


def _zero(data: GapData, y: alt.Y) -> alt.Chart:
    """Return the line of no gap, if it is within the axis."""
    low, high = _domain(data)
    rows = [{"mean": 0}] if low <= 0 <= high else []
    rule: alt.Chart = alt.Chart(alt.InlineData(values=rows)).mark_rule(strokeOpacity=0.5, strokeDash=[2, 2])
    return rule.encode(y=y)


def _whole(data: GapData) -> alt.Axis:
    only = [data.gaps[0].points[0].epoch] if _one_epoch(data) else alt.Undefined
    return alt.Axis(tickMinStep=1, format="d", tickCount=6, values=only)


def _one_epoch(data: GapData) -> bool:
    return len({point.epoch for gap in data.gaps for point in gap.points}) == 1


def _epochs(data: GapData) -> alt.Scale:
    epochs = [point.epoch for gap in data.gaps for point in gap.points]
    low, high = min(epochs), max(epochs)
    return alt.Scale(domain=[low, high] if high > low else [low - 1, high + 1], nice=False)


def _domain(data: GapData) -> list[float]:
    """Return the axis ends; gaps far outside nearly all others, as in the first epochs, do not flatten the rest."""
    values = sorted(point.mean for gap in data.gaps for point in gap.points)
    low, high = values[0], values[-1]
    few, most = values[int(0.03 * (len(values) - 1))], values[int(0.97 * (len(values) - 1))]
    reach = most - few
    if reach > 0:
        low, high = max(low, few - reach), min(high, most + reach)
    low, high = min(low, 0.0), max(high, 0.0)
    pad = 0.05 * (high - low) or 1.0
    return [float(f"{low - pad:.4g}"), float(f"{high + pad:.4g}")]


def _rows(data: GapData, coarse: int) -> list[dict[str, Any]]:
    return [
        {
            "condition": gap.condition,
            "epoch": point.epoch,
            "mean": _short(point.mean),
            "low": _short(point.low),
            "high": _short(point.high),
        }
        for gap in data.gaps
        for point in thinned(gap.points, coarse)
    ]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
