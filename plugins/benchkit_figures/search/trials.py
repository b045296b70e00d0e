"""The trials of a search as the search figures need them: order, state, objective and parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchkit import NothingToDraw
from benchkit.metrics import is_read_each_epoch
from benchkit.results import StudyResults, Trial
from benchkit.study import Goal, SearchRange
from benchkit_figures.encodings import value_of

RESULTS = ("done", "pruned", "diverged", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPoint:
    """A finished search trial: its number in the search (from 1), state, objective if it has one, and parameters.

    A pruned trial's objective is that of its last epoch. `values` holds the parameters in the order of the space;
    numbers stay numbers, choices become text.
    """

    place: int
    state: str
    objective: float | None
    values: tuple[float | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedCondition:
    """A searched condition with its finished trials in the order of their numbers."""

    condition: str
    points: tuple[SearchPoint, ...]

    def best(self, lower: bool) -> SearchPoint | None:
        """Return the done trial with the best objective, or None."""
        scored = [(p.objective, p) for p in self.points if p.state == "done" and p.objective is not None]
        sign = 1 if lower else -1
        return min(scored, key=lambda pair: sign * pair[0])[1] if scored else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchData:
    """All searches of a study: the goal's metric, whether lower is better, the searched settings, the conditions.

    `low` and `high` are the ranges of numeric parameters (widened to what was tried), `choices` the texts of the
    others; `log` tells which are searched on a log scale. All are in the order of `paths`.
    """

    metric: str
    lower: bool
    paths: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    log: tuple[bool, ...]
    choices: tuple[tuple[str, ...], ...]
    conditions: tuple[SearchedCondition, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the paths without their first part where the rest still tells them apart."""
        short = [path.partition(".")[2] or path for path in self.paths]
        return tuple(name if short.count(name) == 1 else path for name, path in zip(short, self.paths, strict=True))

    def settings_words(self, point: SearchPoint) -> str:
        """Return a trial's settings in words."""
        return ", ".join(
            f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
            for name, value in zip(self.names, point.values, strict=True)
        )

    def best_condition(self) -> SearchedCondition:
        """Return the condition with the best objective of any done trial, the first when none has one."""
        sign = 1 if self.lower else -1
        scored = [
            (best.objective, searched)
            for searched in self.conditions
            if (best := searched.best(self.lower)) is not None
        ]
        known = [(sign * value, searched) for value, searched in scored if value is not None]
        return min(known, key=lambda pair: pair[0])[1] if known else self.conditions[0]


def search_data(results: StudyResults) -> SearchData:
    """Return all searches of the study by its first goal; raise `NothingToDraw` when none has a finished trial."""
    search = results.study.search
    if search is None:
        raise NothingToDraw("the study has no search")
    goal, searched = search.goals[0], []
    for condition in results.conditions:
        trials = sorted(results.searched(condition), key=lambda trial: trial.index)
        points = tuple(_point(trial, goal, search.space) for trial in trials if trial.state in RESULTS)
        if points:
            searched.append(SearchedCondition(condition=condition.label, points=points))
    if not any(point.objective is not None for setting in searched for point in setting.points):
        raise NothingToDraw(f"no search trial has finished with a value of {goal.metric}")
    ranges = [_range(index, setting, searched) for index, setting in enumerate(search.space)]
    return SearchData(
        metric=goal.metric,
        lower=goal.direction == "minimize",
        paths=tuple(setting.path for setting in search.space),
        low=tuple(low for low, _ in ranges),
        high=tuple(high for _, high in ranges),
        log=tuple(setting.log and low > 0 for setting, (low, _) in zip(search.space, ranges, strict=True)),
        choices=tuple(_choices(index, setting, searched) for index, setting in enumerate(search.space)),
        conditions=tuple(searched),
    )


def _point(trial: Trial, goal: Goal, space: Sequence[SearchRange]) -> SearchPoint:
    return SearchPoint(
        place=trial.index + 1,
        state=trial.state,
        objective=objective_of(trial, goal.metric),
        values=tuple(_value(trial.params, setting) for setting in space),
    )


def objective_of(trial: Trial, metric: str) -> float | None:
    """Return a finished trial's score, a pruned one's value in its last epoch, or None."""
    if trial.state == "done":
        return value_of(trial, metric)
    if trial.state == "pruned" and trial.history and is_read_each_epoch(metric):
        value = trial.history[-1].score(metric)
        return value if math.isfinite(value) else None
    return None


def _value(params: Mapping[str, Any], setting: SearchRange) -> float | str:
    """Return the parameter's value: a number for a numeric range, else text; empty text when the trial lacks it."""
    value = params.get(setting.path, "")
    number = isinstance(value, int | float) and not isinstance(value, bool) and not setting.choices
    return float(value) if number else str(value)


def _range(index: int, setting: SearchRange, searched: Sequence[SearchedCondition]) -> tuple[float, float]:
    tried = [v for c in searched for p in c.points if isinstance(v := p.values[index], float)]
    if setting.choices:
        return 0.0, 0.0
    ends = [float(end) for end in (setting.low, setting.high) if end is not None]
    return min([*ends, *tried], default=0.0), max([*ends, *tried], default=1.0)


def _choices(index: int, setting: SearchRange, searched: Sequence[SearchedCondition]) -> tuple[str, ...]:
    if not setting.choices:
        return ()
    tried = [v for c in searched for p in c.points if isinstance(v := p.values[index], str) and v]
    return tuple(dict.fromkeys([*map(str, setting.choices), *tried]))
