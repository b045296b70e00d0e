"""Which trials and values the analysis reads: what stands for a repeat, and what it scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchkit.analysis.estimates import Estimate, estimate
from benchkit.metrics import metric_of, score_metrics
from benchkit.plan import Condition, Plan
from benchkit.results import StudyResults, Trial


def value_of(trial: Trial, metric: str) -> float | None:
    """Return what a trial scored in `split.metric` or `cost.seconds`, or None when it has no such number."""
    scope, _, name = metric.partition(".")
    if scope == "cost":
        cost = trial.outcome.cost if trial.outcome else None
        return None if cost is None else float(getattr(cost, name))
    try:
        return trial.score(metric)
    except KeyError:
        return None


def repeats_of(results: StudyResults, condition: Condition) -> dict[int, Trial]:
    """Return the trial that stands for each repeat index: the last done attempt, else the last attempt."""
    standing: dict[int, Trial] = {}
    for trial in results.of(condition):
        current = standing.get(trial.index)
        if current is None or trial.state == "done" or current.state != "done":
            standing[trial.index] = trial
    return standing


def done_repeats(results: StudyResults, condition: Condition) -> dict[int, Trial]:
    """Return the done trial of each repeat index that has one."""
    return {index: trial for index, trial in repeats_of(results, condition).items() if trial.state == "done"}


def values_by_repeat(results: StudyResults, condition: Condition, metric: str) -> dict[int, float]:
    """Return the metric of each done repeat that has it, by repeat index."""
    values = {index: value_of(trial, metric) for index, trial in done_repeats(results, condition).items()}
    return {index: value for index, value in values.items() if value is not None}


def estimate_metric(metric: str, values: Sequence[float]) -> Estimate:
    """Return the estimate of a metric from one value for each repeat, its interval cut at the metric's range."""
    return estimate(values, bounds=metric_of(metric).bounds)


def estimate_of(results: StudyResults, condition: Condition, metric: str) -> Estimate | None:
    """Return the estimate of a metric over a condition's done repeats, or None without any."""
    values = values_by_repeat(results, condition, metric)
    return estimate_metric(metric, list(values.values())) if values else None


def planned_trials(results: StudyResults, condition: Condition) -> int:
    """Return how many trials the study asks of a condition: its repeats, or the slots of its search."""
    return Plan(study=results.study, conditions=results.conditions).count(condition)


def compared(results: StudyResults) -> tuple[Condition, ...]:
    """Return the conditions that have repeats: the grid's and those confirmed after a search."""
    return tuple(condition for condition in results.conditions if condition.kind != "search")


def searched_conditions(results: StudyResults) -> tuple[Condition, ...]:
    """Return the conditions that are the frame of a search."""
    return tuple(condition for condition in results.conditions if condition.kind == "search")


def done_trials(results: StudyResults) -> Sequence[Trial]:
    """Return every done trial, search trials included."""
    return [trial for trial in results.trials if trial.state == "done"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A condition's estimates over its done repeats, by metric such as `test.accuracy`."""

    key: str
    label: str
    metrics: dict[str, Estimate]


def condition_scores(results: StudyResults, condition: Condition) -> Scores:
    """Return the estimate of every score that the condition's done repeats have."""
    found = {
        metric: known for metric in score_metrics() if (known := estimate_of(results, condition, metric)) is not None
    }
    return Scores(key=condition.key, label=condition.label, metrics=found)
