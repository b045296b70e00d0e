"""The [search] section of a study file, and the points of its space. Imports no torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from benchkit.errors import StudyError, nearest
from benchkit.metrics import epoch_metrics, goal_metrics, is_read_each_epoch, metric_of
from benchkit.study.factors import hashable, try_changes
from benchkit.study.study import Goal, Search, SearchRange, Tree
from benchkit.study.tree import Problems, fits, quoted, typed, value_at

SAMPLERS = ("tpe", "random", "gp", "cma-es", "grid", "nsga-ii")
TOLERANCE = 1e-8
"""How far a value may be off a range's steps, in steps."""

MOST_CHOICES = 10_000
MOST_POINTS = 100_000
"""The most points of a grid search."""
MOST_STEPS = 10**9
"""The most steps that a range may have, from its lowest to its highest value."""


def read_search(table: Any, settings: Tree, seed: int, problems: Problems) -> Search | None:
    """Return the search of a study, or None when it has none, noting every problem with it in `problems`."""
    if table is None:
        return None
    if not isinstance(table, Mapping):
        problems.add("search", f"got {quoted(table)}, expected a table")
        return None
    rest = {key: value for key, value in table.items() if key not in ("goal", "space", "sampler")}
    goals = _goals(table.get("goal", "val.loss"), problems)
    space = _space(table.get("space"), settings, seed, problems)
    samplers = _samplers(table.get("sampler", "tpe"), problems)
    prunable = len(goals) == 1 and is_read_each_epoch(goals[0].metric)
    rest.setdefault("pruner", "median" if prunable and goals[0].metric in epoch_metrics() else "none")
    given: dict[str, Any] = {"goals": goals, "space": space, "samplers": samplers if len(samplers) > 1 else ()}
    if samplers:
        given["sampler"] = samplers[0]
    search = typed(Search, rest, "search", problems, also=("goal", "space", "sampler"), **given)
    if search:
        _check(search, prunable, problems)
    return search


def _check(search: Search, prunable: bool, problems: Problems) -> None:
    if not prunable and search.pruner != "none":
        problems.add(
            "search.pruner",
            f"got {search.pruner!r}: only a single goal that is read after each epoch can be pruned, such as val.loss",
        )
    for sampler in search.samplers or (search.sampler,):
        _check_sampler(sampler, search, problems)


def _check_sampler(sampler: str, search: Search, problems: Problems) -> None:
    if sampler == "cma-es" and len(search.goals) > 1:
        problems.add("search.sampler", "got 'cma-es' with several goals; it takes one (nsga-ii, tpe and gp take more)")
    if sampler == "cma-es" and all(spanned.choices for spanned in search.space):
        problems.add("search.sampler", "got 'cma-es' with nothing but choices; it needs a numeric range")
    if sampler == "grid":
        _check_grid(search, problems)


def _check_grid(search: Search, problems: Problems) -> None:
    try:
        points = grid_size(search)
    except StudyError as error:
        problems.add("", error.what)
        return
    if points > MOST_POINTS:
        problems.add("search.space", f"is a grid of {points:,} points, expected at most {MOST_POINTS:,}")


def _samplers(value: Any, problems: Problems) -> tuple[str, ...]:
    """Return the samplers that a search names, one or a list of them to compare."""
    listed = value if isinstance(value, list) else [value]
    if not listed:
        problems.add("search.sampler", "is empty: give a sampler or a list of samplers to compare")
    samplers: list[str] = []
    for name in listed:
        if name not in SAMPLERS:
            close = nearest(name, SAMPLERS) if isinstance(name, str) else ""
            problems.add("search.sampler", f"got {quoted(name)}, expected one of {', '.join(SAMPLERS)}{close}")
        elif name in samplers:
            problems.add("search.sampler", f"{name!r} stands twice")
        else:
            samplers.append(name)
    return tuple(samplers)


def _goals(value: Any, problems: Problems) -> tuple[Goal, ...]:
    metrics = value if isinstance(value, list) else [value]
    if not metrics:
        problems.add("search.goal", "is empty: give a metric or a list of metrics")
    goals: list[Goal] = []
    known = goal_metrics()
    for metric in metrics:
        if metric not in known:
            close = nearest(metric, known) if isinstance(metric, str) else ""
            expected = f"expected one of {', '.join(known)} (never test: it is read once)"
            problems.add("search.goal", f"got {quoted(metric)}{close}, {expected}")
        elif metric in [goal.metric for goal in goals]:
            problems.add("search.goal", f"{metric!r} stands twice")
        else:
            lower = metric_of(metric).lower_is_better
            goals.append(Goal(metric=metric, direction="minimize" if lower else "maximize"))
    return tuple(goals)


def _space(space: Any, settings: Tree, seed: int, problems: Problems) -> tuple[SearchRange, ...]:
    if not isinstance(space, Mapping) or not space:
        problems.add("search.space", "is missing: give at least one path a range, { low = ..., high = ... }, or a list")
        return ()
    ranges = []
    for path, value in space.items():
        where = f"search.space.{path}"
        spanned = _range(path, value, where, problems)
        if spanned is not None:
            for sample in extremes(spanned):
                try_changes(settings, {path: sample}, seed, where, problems)
            ranges.append(spanned)
    return tuple(ranges)


def _range(path: str, value: Any, where: str, problems: Problems) -> SearchRange | None:
    if isinstance(value, list) and value:
        if len(value) > MOST_CHOICES:
            problems.add(where, f"has {len(value):,} choices, expected at most {MOST_CHOICES:,}")
            return None
        if len({hashable(item) for item in value}) < len(value):
            problems.add(where, f"got {quoted(value)}: a choice stands twice")
        return SearchRange(path=path, choices=tuple(value))
    if not isinstance(value, Mapping):
        problems.add(where, f"got {quoted(value)}, expected {{ low = ..., high = ... }} or a list of choices")
        return None
    low: Any = value.get("low")
    high: Any = value.get("high")
    if not fits(low, float) or not fits(high, float) or not low < high:
        problems.add(where, f"got low {quoted(low)} and high {quoted(high)}, expected two numbers, low below high")
        return None
    integer = isinstance(low, int) and isinstance(high, int)
    kind = int if integer else float
    rest = {key: item for key, item in value.items() if key not in ("low", "high")}
    spanned = typed(
        SearchRange, rest, where, problems, also=("low", "high"), path=path, integer=integer, choices=(),
        low=kind(low), high=kind(high),
    )  # fmt: skip
    before = len(problems)
    if spanned is not None:
        _check_scale(spanned, where, problems)
    return spanned if len(problems) == before else None


def _check_scale(spanned: SearchRange, where: str, problems: Problems) -> None:
    low, high, step = spanned.low, spanned.high, spanned.step
    assert low is not None and high is not None
    if not math.isfinite(float(high) - float(low)):
        problems.add(where, f"got low {low!r} and high {high!r}, whose distance is no finite number")
    if spanned.log and low <= 0:
        problems.add(where, f"got low {low!r}, expected above 0 on a log scale")
    if step is None:
        return
    if spanned.log:
        problems.add(where, "has both log and step; a log scale takes no step")
    elif step <= 0 or (spanned.integer and not step.is_integer()):
        expected = "a whole number of at least 1, as low and high are whole" if spanned.integer else "a number above 0"
        problems.add(where, f"got step {step!r}, expected {expected}")
    elif not high - low <= step * MOST_STEPS:
        problems.add(where, f"got step {step!r}, expected at most {MOST_STEPS:,} steps from {low!r} to {high!r}")
    elif not _is_whole((high - low) / step):
        problems.add(where, f"got step {step!r}, which does not lead from {low!r} to {high!r}")


def _is_whole(number: float) -> bool:
    return math.isclose(number, round(number), abs_tol=TOLERANCE)


def default_params(search: Search, settings: Tree) -> dict[str, Any]:
    """Return the settings that a study already has for its search space, where they lie inside their ranges."""
    own = {spanned.path: value_at(settings, spanned.path) for spanned in search.space}
    return {spanned.path: own[spanned.path] for spanned in search.space if contains(spanned, own[spanned.path])}


def contains(spanned: SearchRange, value: Any) -> bool:
    """Return whether a search of this range can choose a value."""
    if spanned.choices:
        return any(value == choice and type(value) is type(choice) for choice in spanned.choices)
    number = isinstance(value, int if spanned.integer else int | float) and not isinstance(value, bool)
    if not number or spanned.low is None or spanned.high is None or not spanned.low <= value <= spanned.high:
        return False
    return not spanned.step or abs((steps := (value - spanned.low) / spanned.step) - round(steps)) < TOLERANCE


def extremes(spanned: SearchRange) -> tuple[Any, ...]:
    """Return the values that bound a range: its lowest and highest, or all of its choices."""
    return spanned.choices or (spanned.low, spanned.high)


def grid_size(search: Search) -> int:
    """Return how many points a grid search has; raise `StudyError` for a range without a step."""
    return math.prod(_axis_size(spanned) for spanned in search.space)


def grid_points(search: Search) -> list[dict[str, Any]]:
    """Return every point of a grid search, the last path of the space varying fastest.

    Raises `StudyError` for a range without a step.
    """
    axes = [[(spanned.path, value) for value in _axis(spanned)] for spanned in search.space]
    return [dict(point) for point in itertools.product(*axes)]


def _axis_size(spanned: SearchRange) -> int:
    if spanned.choices:
        return len(spanned.choices)
    if spanned.low is None or spanned.high is None or not (spanned.step or spanned.integer):
        raise StudyError(f"search.space.{spanned.path}: a grid needs a list of choices, or a range with a step")
    return int((spanned.high - spanned.low) / (spanned.step or 1) + TOLERANCE) + 1


def _axis(spanned: SearchRange) -> tuple[Any, ...]:
    size = _axis_size(spanned)
    if spanned.choices:
        return spanned.choices
    assert spanned.low is not None and spanned.high is not None
    # Multiples of a step carry rounding errors (3 * 0.1 > 0.3), which must not lead out of the range.
    step, low, high = spanned.step or 1, spanned.low, spanned.high
    values = [min(high, float(f"{low + k * step:.12g}")) for k in range(size)]
    return tuple(int(value) for value in values) if spanned.integer else tuple(float(value) for value in values)
