"""Marginal effects: what each level of a factor does on average over the levels of the others."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean

from benchkit.analysis.estimates import Estimate
from benchkit.analysis.readings import compared, estimate_metric, values_by_repeat
from benchkit.results import StudyResults


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelEffect:
    """A level's mean over all combinations of the other factors, as an estimate over repeats.

    Only repeats that every combination has done are used, so that levels are averaged over the same company.
    """

    factor: str
    level: str
    combinations: int
    estimate: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """How far a condition's mean moves when one factor moves and all others stay: the range over its levels."""

    factor: str
    others: str
    low: float
    high: float
    lowest_level: str
    highest_level: str

    @property
    def range(self) -> float:
        """Return the highest minus the lowest mean."""
        return self.high - self.low


def level_effects(results: StudyResults, metric: str) -> tuple[LevelEffect, ...]:
    """Return the marginal mean of every level, for studies with two factors or more; else nothing."""
    if len(results.study.factors) < 2:
        return ()
    grid = [condition for condition in compared(results) if condition.kind == "grid"]
    effects: list[LevelEffect] = []
    for factor in results.study.factors:
        for level in factor.levels:
            members = [c for c in grid if c.levels.get(factor.path) == level.label]
            values = [values_by_repeat(results, condition, metric) for condition in members]
            shared = sorted(set.intersection(*(set(v) for v in values))) if values else []
            if shared:
                means = [sum(v[i] for v in values) / len(values) for i in shared]
                effects.append(
                    LevelEffect(
                        factor=factor.path,
                        level=level.label,
                        combinations=len(members),
                        estimate=estimate_metric(metric, means),
                    )
                )
    return tuple(effects)


def sensitivities(results: StudyResults, factor: str, metric: str) -> tuple[Sensitivity, ...]:
    """Return how far means move along one factor, for each combination of the other factors."""
    groups: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for condition in compared(results):
        values = values_by_repeat(results, condition, metric)
        if condition.kind == "grid" and factor in condition.levels and values:
            others = ", ".join(label for path, label in condition.levels.items() if path != factor)
            groups[others].append((fmean(values.values()), condition.levels[factor]))
    return tuple(
        Sensitivity(
            factor=factor,
            others=others,
            low=min(means)[0],
            high=max(means)[0],
            lowest_level=min(means)[1],
            highest_level=max(means)[1],
        )
        for others, means in groups.items()
        if len(means) > 1
    )
