"""Marginal effects: what each level of a factor does on average over the levels of the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchkit.analysis.estimates import Estimate, compared, estimate_metric, values_by_repeat
from benchkit.analysis.wording import (
    Finding,
    amount,
    measured,
    metric_words,
    quoted,
)
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


def sensitivity_findings(sensitivities: Sequence[Sensitivity], metric: str) -> list[Finding]:
    """Say how far the batch size moves the mean: of the combination that suffers most and least, or of the only one."""
    rows = sorted(sensitivities, key=lambda row: row.range)
    if not rows:
        return []
    least, most = rows[0], rows[-1]
    moved = quoted(most.others) if most.others else f"the {metric_words(metric)}"
    sentence = f"The batch size moves {moved}{' most,' if len(rows) > 1 else ''} by {amount(metric, most.range)}"
    if len(rows) > 1:
        sentence += f", and {quoted(least.others)} least, by {amount(metric, least.range)}"
    return [
        Finding(
            rule="batch-size-sensitivity",
            tone="note",
            sentence=f"{sentence}.",
            evidence=f"Range of mean {metric_words(metric)} over the levels of {most.factor}; "
            f"{quoted(most.others) if most.others else 'it'} is lowest at {most.lowest_level} "
            f"({measured(metric, most.low)}) and highest at {most.highest_level} ({measured(metric, most.high)}).",
            about=tuple(dict.fromkeys(row.others for row in (most, least) if row.others)),
        )
    ]
