"""The axis of a search's objective: wide enough for the usual values, with the rest at its worse edge."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from benchkit_figures.metrics import quantity
from benchkit_figures.search_trials import SearchData


def objective_scale(data: SearchData) -> alt.Scale:
    """Return the objective's scale, in the metric's unit."""
    return alt.Scale(domain=list(domain(data)), nice=False, zero=False)


def domain(data: SearchData) -> tuple[float, float]:
    """Return the axis ends in the metric's unit: everything but values far worse than the usual ones."""
    unit = quantity(data.metric)
    values = sorted(unit.shown(p.objective) for one in data.conditions for p in one.points if p.objective is not None)
    low, high = usual(values, lower=data.lower)
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return float(f"{low - pad:.5g}"), float(f"{high + pad:.5g}")


def usual(values: Sequence[float], *, lower: bool) -> tuple[float, float]:
    """Return the ends of ascending values without those far worse than the usual ones: beyond 3 quartile distances."""
    low, high = values[0], values[-1]
    first, third = values[(len(values) - 1) // 4], values[3 * (len(values) - 1) // 4]
    reach = 3 * (third - first)
    if lower and 0 < reach < high - third:
        high = max(value for value in values if value <= third + reach)
    if not lower and 0 < reach < first - low:
        low = min(value for value in values if value >= first - reach)
    return low, high


def beyond(data: SearchData, ends: tuple[float, float], objective: float | None) -> bool:
    """Return whether an objective lies outside the axis with these ends (`domain`)."""
    low, high = ends
    return objective is not None and not low <= quantity(data.metric).shown(objective) <= high


def clamped(data: SearchData, ends: tuple[float, float], objective: float | None) -> float:
    """Return where an objective stands on the axis with these ends, in the metric's unit: none at the worse edge."""
    low, high = ends
    if objective is None:
        return high if data.lower else low
    return min(max(quantity(data.metric).shown(objective), low), high)


def condition_choice(data: SearchData, name: str) -> alt.Parameter | None:
    """Return a selector of the searched condition for HTML, set to the best one; None when there is one only."""
    labels = [one.condition for one in data.conditions]
    if len(labels) < 2:
        return None
    bind = alt.binding_select(options=labels, name="Condition ")
    return alt.param(name=name, value=data.best_condition().condition, bind=bind)
