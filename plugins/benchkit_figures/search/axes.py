"""Where a searched setting's values stand on an axis from 0 to 1, and the ticks of that axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from benchkit_figures.encodings import choice_of, quantity
from benchkit_figures.search.trials import SearchData, SearchedCondition

CELLS = 20
"""Cells along an axis of numbers; an axis of choices has one for each."""


def position(search: SearchData, index: int, value: float | str) -> float:
    """Return where a setting's value stands on its axis, from 0 at the low end to 1; choices are spread evenly."""
    if isinstance(value, str):
        choices = search.choices[index]
        return choices.index(value) / (len(choices) - 1) if len(choices) > 1 else 0.5
    low, high = search.low[index], search.high[index]
    if high <= low:
        return 0.5
    if search.log[index]:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def ticks(search: SearchData, index: int) -> tuple[tuple[float, str], ...]:
    """Return the ticks of a setting's axis as (position from 0 to 1, text): choices, powers of ten or round values."""
    if search.choices[index]:
        return tuple((position(search, index, choice), choice) for choice in search.choices[index])
    low, high = search.low[index], search.high[index]
    values = _decades(low, high) if search.log[index] else round_values(low, high)
    return tuple((position(search, index, value), f"{value:g}") for value in values)


def _decades(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0**power for power in range(first, last + 1)] if last > first else [low, high]


def round_values(low: float, high: float) -> list[float]:
    """Return up to six round numbers in the range, steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{count * step:.6g}") for count in range(first, math.floor(high / step + 1e-9) + 1)]


def objective_scale(data: SearchData) -> alt.Scale:
    """Return the objective's scale, in the metric's unit."""
    return alt.Scale(domain=list(domain(data)), nice=False, zero=False)


def domain(data: SearchData) -> tuple[float, float]:
    """Return the axis ends in the metric's unit: of the done trials, but for values far worse than the usual ones.

    A quarter of that is left on the worse side for trials that were pruned; most of these are far beyond it. With fewer
    than two done trials the ends are those of all trials.
    """
    unit = quantity(data.metric)
    scored = [(p.state, unit.shown(p.objective)) for c in data.conditions for p in c.points if p.objective is not None]
    done = sorted(value for state, value in scored if state == "done")
    among = done if len(set(done)) > 1 else sorted(value for _, value in scored)
    low, high = usual(among, lower=data.lower)
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    worse = 4 * pad if any(state == "pruned" for state, _ in scored) else pad
    low, high = (low - pad, high + worse) if data.lower else (low - worse, high + pad)
    return float(f"{low:.5g}"), float(f"{high:.5g}")


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


def any_beyond(data: SearchData, searches: Sequence[SearchedCondition]) -> bool:
    """Return whether an objective of some searches lies outside the axis (`domain`)."""
    low, high = domain(data)
    values = [p.objective for searched in searches for p in searched.points if p.objective is not None]
    return any(not low <= quantity(data.metric).shown(value) <= high for value in values)


def clamped(data: SearchData, ends: tuple[float, float], objective: float | None) -> float:
    """Return where an objective stands on the axis with these ends, in the metric's unit: none at the worse edge."""
    low, high = ends
    if objective is None:
        return high if data.lower else low
    return min(max(quantity(data.metric).shown(objective), low), high)


def condition_choice(data: SearchData, name: str) -> alt.Parameter | None:
    """Return a selector of the searched condition for HTML, set to the best one; None when there is one only."""
    return choice_of(name, [searched.condition for searched in data.conditions], data.best_condition().condition)


def placed(search: SearchData, index: int, value: float | str) -> float:
    """Return where a setting's value stands from 0 to 1; a choice stands in the middle of its own cell."""
    choices = search.choices[index]
    if isinstance(value, str):
        return (choices.index(value) + 0.5) / len(choices)
    return position(search, index, value)


def spots(count: int) -> list[tuple[float, float]]:
    """Return the lower and upper edges of `count` cells from 0 to 1."""
    return [(index / count, (index + 1) / count) for index in range(count)]
