"""The [search] section of a study file: goals, space, sampler and pruner. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from benchkit.errors import nearest
from benchkit.metrics import epoch_metrics, goal_metrics, metric_of
from benchkit.study.factors import try_changes
from benchkit.study.searchspace import TOLERANCE, extremes
from benchkit.study.study import Goal, Search, SearchRange, Tree
from benchkit.study.typed import Problems, fits, typed

SAMPLERS = ("tpe", "random", "gp", "cma-es", "grid", "nsga-ii")
PRUNERS = ("median", "hyperband", "none")
GOALS = goal_metrics()


def read_search(table: Any, settings: Tree, seed: int, problems: Problems) -> Search | None:
    """Return the search of a study, or None when it has none, noting every problem with it in `problems`."""
    if table is None:
        return None
    if not isinstance(table, Mapping):
        problems.add("search", f"got {table!r}, expected a table")
        return None
    rest = {key: value for key, value in table.items() if key not in ("goal", "space", "sampler")}
    goals = _goals(table.get("goal", "val.loss"), problems)
    space = _space(table.get("space"), settings, seed, problems)
    samplers = _samplers(table.get("sampler", "tpe"), problems)
    prunable = len(goals) == 1 and goals[0].metric in epoch_metrics()
    rest.setdefault("pruner", "median" if prunable else "none")
    given: dict[str, Any] = {"goals": goals, "space": space, "samplers": samplers if len(samplers) > 1 else ()}
    if samplers:
        given["sampler"] = samplers[0]
    found = typed(Search, rest, "search", problems, also=("goal", "space", "sampler"), **given)
    if found:
        _check(found, prunable, problems)
    return found


def _check(search: Search, prunable: bool, problems: Problems) -> None:
    if search.pruner not in PRUNERS:
        expected = f"expected one of {', '.join(PRUNERS)}{nearest(search.pruner, PRUNERS)}"
        problems.add("search.pruner", f"got {search.pruner!r}, {expected}")
    if search.trials < 1:
        problems.add("search.trials", f"got {search.trials}, expected at least 1")
    if not prunable and search.pruner != "none":
        problems.add(
            "search.pruner",
            f"got {search.pruner!r}: only a single goal of {' or '.join(epoch_metrics())} can be pruned",
        )
    for sampler in search.samplers or (search.sampler,):
        _check_sampler(sampler, search, problems)


def _check_sampler(sampler: str, search: Search, problems: Problems) -> None:
    if sampler == "cma-es" and len(search.goals) > 1:
        problems.add("search.sampler", "got 'cma-es' with several goals; it takes one (nsga-ii, tpe and gp take more)")
    if sampler == "cma-es" and all(one.choices for one in search.space):
        problems.add("search.sampler", "got 'cma-es' with nothing but choices; it needs a numeric range")
    for one in search.space:
        if sampler == "grid" and not (one.choices or one.step or one.integer):
            problems.add(f"search.space.{one.path}", "a grid needs a list of choices, or a range with a step")


def _samplers(value: Any, problems: Problems) -> tuple[str, ...]:
    """Return the samplers that a search names, one or a list of them to compare."""
    listed = value if isinstance(value, list) else [value]
    if not listed:
        problems.add("search.sampler", "is empty: give a sampler or a list of samplers to compare")
    found: list[str] = []
    for name in listed:
        if name not in SAMPLERS:
            close = nearest(name, SAMPLERS) if isinstance(name, str) else ""
            problems.add("search.sampler", f"got {name!r}, expected one of {', '.join(SAMPLERS)}{close}")
        elif name in found:
            problems.add("search.sampler", f"{name!r} stands twice")
        else:
            found.append(name)
    return tuple(found)


def _goals(value: Any, problems: Problems) -> tuple[Goal, ...]:
    metrics = value if isinstance(value, list) else [value]
    if not metrics:
        problems.add("search.goal", "is empty: give a metric or a list of metrics")
    goals: list[Goal] = []
    for metric in metrics:
        if metric not in GOALS:
            close = nearest(metric, GOALS) if isinstance(metric, str) else ""
            expected = f"expected one of {', '.join(GOALS)} (never test: it is read once)"
            problems.add("search.goal", f"got {metric!r}{close}, {expected}")
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
    found = []
    for path, value in space.items():
        where = f"search.space.{path}"
        one = _range(path, value, where, problems)
        if one is not None:
            for sample in extremes(one):
                try_changes(settings, {path: sample}, seed, where, problems)
            found.append(one)
    return tuple(found)


def _range(path: str, value: Any, where: str, problems: Problems) -> SearchRange | None:
    if isinstance(value, list) and value:
        if any(item == other for at, item in enumerate(value) for other in value[:at]):
            problems.add(where, f"got {value!r}: a choice stands twice")
        return SearchRange(path=path, choices=tuple(value))
    if not isinstance(value, Mapping):
        problems.add(where, f"got {value!r}, expected {{ low = ..., high = ... }} or a list of choices")
        return None
    low, high = value.get("low"), value.get("high")
    if not fits(low, float) or not fits(high, float) or not low < high:  # type: ignore[operator]
        problems.add(where, f"got low {low!r} and high {high!r}, expected two numbers, low below high")
        return None
    integer = isinstance(low, int) and isinstance(high, int)
    found = typed(SearchRange, dict(value), where, problems, path=path, integer=integer, choices=())
    if found is None:
        return None
    before = len(problems.lines)
    _check_scale(found, where, problems)
    whole = {"low": int(found.low or 0), "high": int(found.high or 0)} if integer else {}
    return None if len(problems.lines) > before else SearchRange(**{**_fields(found), **whole})


def _fields(one: SearchRange) -> dict[str, Any]:
    return {name: getattr(one, name) for name in SearchRange.__dataclass_fields__}


def _check_scale(one: SearchRange, where: str, problems: Problems) -> None:
    assert one.low is not None and one.high is not None
    if one.log and one.low <= 0:
        problems.add(where, f"got low {one.low!r}, expected above 0 on a log scale")
    if one.step is None:
        return
    if one.log:
        problems.add(where, "has both log and step; a log scale takes no step")
    elif one.step <= 0 or (one.integer and not float(one.step).is_integer()):
        expected = "a whole number of at least 1, as low and high are whole" if one.integer else "a number above 0"
        problems.add(where, f"got step {one.step!r}, expected {expected}")
    elif not _is_whole((one.high - one.low) / one.step):
        problems.add(where, f"got step {one.step!r}, which does not lead from {one.low!r} to {one.high!r}")


def _is_whole(number: float) -> bool:
    return math.isclose(number, round(number), abs_tol=TOLERANCE)
