"""The points of a search's space: the study's own, those of a grid, and the ends of every range. Imports no torch."""

from __future__ import annotations

import itertools
from typing import Any

from benchkit.errors import StudyError
from benchkit.study import Search, SearchRange, Tree
from benchkit.study.tree import value_at

TOLERANCE = 1e-8
"""How far a value may be off a range's steps, in steps."""


def default_params(search: Search, settings: Tree) -> dict[str, Any]:
    """Return the settings that a study already has for its search space, where they lie inside their ranges."""
    own = {one.path: value_at(settings, one.path) for one in search.space}
    return {one.path: own[one.path] for one in search.space if contains(one, own[one.path])}


def contains(one: SearchRange, value: Any) -> bool:
    """Return whether a search of this range can choose a value."""
    if one.choices:
        return any(value == choice and type(value) is type(choice) for choice in one.choices)
    number = isinstance(value, int if one.integer else int | float) and not isinstance(value, bool)
    if not number or one.low is None or one.high is None or not one.low <= value <= one.high:
        return False
    steps = (value - one.low) / one.step if one.step else 0.0
    return bool(abs(steps - round(steps)) < TOLERANCE)


def extremes(one: SearchRange) -> tuple[Any, ...]:
    """Return the values that bound a range: its lowest and highest, or all of its choices."""
    return one.choices or (one.low, one.high)


def grid_points(search: Search) -> list[dict[str, Any]]:
    """Return every point of a grid search, the last path of the space varying fastest.

    Raises `StudyError` for a range without a step.
    """
    axes = [[(one.path, value) for value in _axis(one)] for one in search.space]
    return [dict(point) for point in itertools.product(*axes)]


def _axis(one: SearchRange) -> tuple[Any, ...]:
    if one.choices:
        return one.choices
    if one.low is None or one.high is None or not (one.step or one.integer):
        raise StudyError(f"search.space.{one.path}: a grid needs a list of choices, or a range with a step")
    step = one.step or 1
    count = int((one.high - one.low) / step + TOLERANCE) + 1
    # Multiples of a step carry rounding errors (3 * 0.1 > 0.3), which must not lead out of the range.
    values = [min(one.high, float(f"{one.low + k * step:.12g}")) for k in range(count)]
    return tuple(int(value) for value in values) if one.integer else tuple(float(value) for value in values)
