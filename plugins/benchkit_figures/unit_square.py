"""The plane of two settings as a unit square: where values stand on it, and the cells it is parted into."""

from __future__ import annotations

from benchkit_figures.search_axes import position
from benchkit_figures.search_trials import SearchData

CELLS = 20
"""Cells along an axis of numbers; an axis of choices has one for each."""


def placed(search: SearchData, place: int, value: float | str) -> float:
    """Return where a setting's value stands from 0 to 1; a choice stands in the middle of its own cell."""
    choices = search.choices[place]
    if choices and isinstance(value, str):
        return (choices.index(value) + 0.5) / len(choices)
    return position(search, place, value)


def spots(count: int) -> list[tuple[float, float]]:
    """Return the lower and upper edges of `count` cells from 0 to 1."""
    return [(place / count, (place + 1) / count) for place in range(count)]
