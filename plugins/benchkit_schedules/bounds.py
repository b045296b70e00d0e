"""The check of a schedule's options: all that is wrong, in one error."""

from __future__ import annotations

from collections.abc import Mapping

from benchkit import PluginError


def require(schedule: str, given: Mapping[str, float], *, high: float = 1.0) -> None:
    """Raise `PluginError` naming every option that is no number from 0 to `high`."""
    outside = {name: value for name, value in given.items() if not 0 <= value <= high}
    problems = [f"{name} = {value}: expected a number from 0 to {high:g}" for name, value in outside.items()]
    if problems:
        raise PluginError(f"the schedule {schedule!r} was given wrong options", problems=problems)
