"""What a search did: how much it spent, what it found, and what fresh repeats say of that."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchkit.analysis.comparisons import PairedComparison, paired_t
from benchkit.analysis.estimates import (
    Estimate,
    estimate_of,
    planned_trials,
    searched_conditions,
    value_of,
    values_by_repeat,
)
from benchkit.results import StudyResults, Trial
from benchkit.study.tree import value_at

if TYPE_CHECKING:
    from benchkit.plan import Condition
    from benchkit.study import Goal


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Repeats after a search: the chosen settings on fresh ones, against the study's own settings in the goal's metric.

    `optimism` is how much better the search's single best score was than the mean of the fresh repeats (positive: the
    search promised too much). `gain` is chosen minus default, paired by repeat: negative is good where the goal is
    minimised.
    """

    metric: str
    chosen: Estimate | None
    default: Estimate | None
    gain: PairedComparison | None
    optimism: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSummary:
    """One search: its budget as planned and as spent, the best trial so far and the confirmation.

    `label` is unique: the `condition` within which it searched and, where the study compares several, its `sampler`.
    `states` counts its trials by state. `epochs` and `seconds` are what all of them trained, so that searches are
    compared at the budget they had. `whole` says that no factor divides the search. `best_place` is the best trial's
    place in the order of start, from 1; `bests` are the epochs spent and the score after each trial that was better
    than all before it. `front` holds
    the places of the trials that no other beats in every goal (several goals only). `chose_default` says that the best
    trial has the study's own settings: then nothing is confirmed, as the condition's own repeats stand for them.
    `same_as` names the sampler whose search chose the same settings and whose fresh repeats stand for both.
    """

    key: str
    label: str
    whole: bool
    goal: str
    direction: str
    planned: int
    states: Mapping[str, int]
    epochs: int
    seconds: float
    best_place: int | None
    best_value: float | None
    best_params: Mapping[str, Any]
    front: tuple[int, ...]
    chose_default: bool
    confirmation: Confirmation | None
    condition: str = ""
    sampler: str = ""
    bests: tuple[tuple[int, float], ...] = ()
    same_as: str = ""

    def best_within(self, epochs: int) -> float | None:
        """Return the best score that the search had found when it had spent a number of epochs, or None."""
        return next((score for spent, score in reversed(self.bests) if spent <= epochs), None)

    @property
    def started(self) -> int:
        """Return how many trials have been started."""
        return sum(self.states.values()) - self.states.get("waiting", 0)

    @property
    def pruned_share(self) -> float | None:
        """Return the pruned share of the finished trials, None before any has finished."""
        finished = sum(self.states.get(state, 0) for state in ("done", "pruned", "diverged", "failed"))
        return self.states.get("pruned", 0) / finished if finished else None


def search_summaries(results: StudyResults) -> tuple[SearchSummary, ...]:
    """Return the summary of every search of the study, none when it has no search."""
    search = results.study.search
    if search is None:
        return ()
    return tuple(_summary(results, condition, search.goals) for condition in searched_conditions(results))


def _summary(results: StudyResults, condition: Condition, goals: Sequence[Goal]) -> SearchSummary:
    trials = results.searched(condition)
    goal = goals[0]
    best = best_trial(trials, goal)
    score = value_of(best, goal.metric) if best else None
    within = condition.storage_label.removesuffix(", search") if condition.levels else "the study"
    confirm = _confirming(results, condition, dict(best.params) if best else {})
    return SearchSummary(
        key=condition.key,
        label=f"{within}, by {condition.sampler}" if condition.sampler else within,
        whole=not condition.levels,
        goal=goal.metric,
        direction=goal.direction,
        planned=planned_trials(results, condition),
        states=dict(Counter(trial.state for trial in trials)),
        epochs=sum(len(trial.history) for trial in trials),
        seconds=sum(record.seconds for trial in trials for record in trial.history),
        best_place=trials.index(best) + 1 if best else None,
        best_value=score,
        best_params=dict(best.params) if best else {},
        front=front(trials, goals) if len(goals) > 1 else (),
        chose_default=best is not None and _is_default(condition, best),
        confirmation=_confirmation(results, condition, confirm, goal, score),
        condition=within,
        sampler=condition.sampler,
        bests=tuple(_bests(trials, goal)),
        same_as=confirm.sampler if confirm and confirm.parent != condition.key else "",
    )


def _bests(trials: Sequence[Trial], goal: Goal) -> Iterator[tuple[int, float]]:
    spent, best = 0, math.inf
    for trial in trials:
        spent += len(trial.history)
        value = value_of(trial, goal.metric) if trial.state == "done" else None
        if value is not None and goal.sign * value < best:
            best = goal.sign * value
            yield spent, value


def _confirming(results: StudyResults, condition: Condition, params: Mapping[str, Any]) -> Condition | None:
    """Return what trains a search's best settings again, its own or that of another sampler that chose the same."""
    confirms = [confirm for confirm in results.conditions if confirm.kind == "confirm-best"]
    own = next((confirm for confirm in confirms if confirm.parent == condition.key), None)
    if own is not None or not condition.sampler:
        return own
    same = (
        confirm
        for confirm in confirms
        if dict(confirm.levels) == dict(condition.levels) and dict(confirm.chosen) == dict(params)
    )
    return next(same, None)


def _is_default(condition: Condition, trial: Trial) -> bool:
    return all(value_at(condition.settings, path) == value for path, value in trial.params.items())


def best_trial(trials: Sequence[Trial], goal: Goal) -> Trial | None:
    """Return the done trial with the best score in the goal, the earlier one of equals, or None."""
    return goal.best((trial.value(goal.metric), trial) for trial in trials if trial.state == "done")


def front(trials: Sequence[Trial], goals: Sequence[Goal]) -> tuple[int, ...]:
    """Return the places, from 1, of the done trials that no other equals or beats in every goal (Pareto front)."""
    points: list[tuple[int, tuple[float, ...]]] = []
    for number, trial in enumerate(trials, 1):
        scores = [value_of(trial, goal.metric) for goal in goals] if trial.state == "done" else [None]
        known = [score for score in scores if score is not None]
        if len(known) == len(goals):
            points.append((number, tuple(goal.sign * v for goal, v in zip(goals, known, strict=True))))
    return tuple(number for number, point in points if not any(_beats(other, point) for _, other in points))


def _beats(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))


def _confirmation(
    results: StudyResults, condition: Condition, best: Condition | None, goal: Goal, score: float | None
) -> Confirmation | None:
    default = next((c for c in results.conditions if c.kind == "grid" and c.key == condition.parent), None)
    metric = goal.metric
    if best is None and default is None:
        return None
    chosen = estimate_of(results, best, metric) if best else None
    return Confirmation(
        metric=metric,
        chosen=chosen,
        default=estimate_of(results, default, metric) if default else None,
        gain=_gain(results, best, default, metric) if best and default else None,
        optimism=goal.sign * (chosen.mean - score) if chosen and score is not None else None,
    )


def _gain(results: StudyResults, best: Condition, default: Condition, metric: str) -> PairedComparison | None:
    first, second = values_by_repeat(results, best, metric), values_by_repeat(results, default, metric)
    shared = sorted(first.keys() & second.keys())
    return paired_t([first[i] for i in shared], [second[i] for i in shared]) if shared else None
