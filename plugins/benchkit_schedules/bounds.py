"""The check of a schedule's options: all that is wrong, in one error."""

from __future__ import annotations

import math
from collections.abc import Mapping

from benchkit import PluginError


def require(schedule: str, given: Mapping[str, float], *, low: float = 0.0, high: float = 1.0) -> None:
    """Raise `PluginError` naming every option that is no finite number from `low` to `high`."""
    expected = f"expected a number from {low:g} " + ("up" if high == math.inf else f"to {high:g}")
    outside = {name: value for name, value in given.items() if not (low <= value <= high and math.isfinite(value))}
    problems = [f"{name} = {value}: {expected}" for name, value in outside.items()]
    if problems:
        raise PluginError(f"the schedule {schedule!r} was given wrong options", problems=problems)
