"""Where a searched setting's values stand on an axis from 0 to 1, and the ticks of that axis."""

from __future__ import annotations

import math

from benchkit_figures.search_trials import SearchData


def position(search: SearchData, place: int, value: float | str) -> float:
    """Return where a setting's value stands on its axis, from 0 at the low end to 1; choices are spread evenly."""
    if isinstance(value, str):
        choices = search.choices[place]
        return choices.index(value) / (len(choices) - 1) if len(choices) > 1 else 0.5
    low, high = search.low[place], search.high[place]
    if high <= low:
        return 0.5
    if search.log[place]:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def ticks(search: SearchData, place: int) -> tuple[tuple[float, str], ...]:
    """Return the ticks of a setting's axis as (position from 0 to 1, text): choices, powers of ten or round values."""
    if search.choices[place]:
        return tuple((position(search, place, choice), choice) for choice in search.choices[place])
    low, high = search.low[place], search.high[place]
    values = _decades(low, high) if search.log[place] else round_values(low, high)
    return tuple((position(search, place, value), f"{value:g}") for value in values)


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
