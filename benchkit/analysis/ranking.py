"""Which condition is best, which cannot be told from it, and how many repeats would tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from benchkit.analysis.comparisons import (
    ALPHA,
    PairedComparison,
    holm,
    minimum_detectable_difference,
    paired_t,
    repeats_to_decide,
)
from benchkit.analysis.estimates import Estimate
from benchkit.analysis.readings import compared, estimate_metric, values_by_repeat
from benchkit.analysis.wording import lower_is_better
from benchkit.results import StudyResults

if TYPE_CHECKING:
    from benchkit.plan import Condition

Verdict = Literal["best", "tied", "behind", "untested"]
"""best: the best mean; tied: not told apart from it; behind: worse beyond chance; untested: no test was possible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two ranked conditions compared by repeat, `first` ranked before `second`; differences are first minus second.

    `p_adjusted` is Holm's over all pairs of the table. `detectable` is the smallest difference that these repeats
    would find with 80 % power, `repeats_needed` how many repeats would find the observed one (None: over 1000 or
    unknown), both at the level that Holm's correction asks of its first step: alpha over the number of pairs.
    """

    first: str
    second: str
    comparison: PairedComparison
    p_adjusted: float | None
    detectable: float | None
    repeats_needed: int | None

    @property
    def decided(self) -> bool:
        """Return whether the two are told apart at the report's significance level."""
        return self.p_adjusted is not None and self.p_adjusted < ALPHA


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedCondition:
    """A condition's place: its estimate, and its verdict against the best one. `pair` is None for the best itself."""

    rank: int
    key: str
    label: str
    estimate: Estimate
    verdict: Verdict
    pair: Pair | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Conditions by the mean of `metric` over repeats, best first, with every pair and those without a number."""

    metric: str
    rows: tuple[RankedCondition, ...]
    pairs: tuple[Pair, ...]
    without: tuple[str, ...]

    @property
    def best(self) -> RankedCondition | None:
        """Return the condition with the best mean, or None when there is none."""
        return self.rows[0] if self.rows else None

    @property
    def tied(self) -> tuple[RankedCondition, ...]:
        """Return the conditions that are not told apart from the best one."""
        return tuple(row for row in self.rows[1:] if row.verdict != "behind")

    @property
    def decided(self) -> bool:
        """Return whether one condition is better than every other beyond chance."""
        return len(self.rows) > 1 and not self.tied


def rank(results: StudyResults, metric: str) -> Ranking:
    """Return the conditions ranked by the mean of `metric` over their done repeats.

    Every pair is compared by a paired t test over the repeats both have, and Holm's correction spans all pairs:
    because the data choose which condition counts as best, correcting only the comparisons with it would find
    winners too often.
    """
    values = {condition.key: values_by_repeat(results, condition, metric) for condition in compared(results)}
    labels = {condition.key: condition.label for condition in compared(results)}
    keys = [key for key, found in values.items() if found]
    estimates = {key: estimate_metric(metric, list(values[key].values())) for key in keys}
    keys.sort(key=lambda key: (1 if lower_is_better(metric) else -1) * estimates[key].mean)
    pairs = _pairs(keys, values)
    rows = tuple(_ranked(place, key, labels[key], estimates[key], pairs, keys[0]) for place, key in enumerate(keys, 1))
    without = tuple(condition.label for condition in compared(results) if condition.key not in estimates)
    return Ranking(metric=metric, rows=rows, pairs=tuple(pairs.values()), without=without)


def _ranked(
    place: int, key: str, label: str, repeats: Estimate, pairs: Mapping[tuple[str, str], Pair], best: str
) -> RankedCondition:
    pair = pairs.get((best, key))
    verdict: Verdict = "best" if key == best else "untested"
    if pair is not None and pair.p_adjusted is not None:
        verdict = "behind" if pair.decided else "tied"
    return RankedCondition(rank=place, key=key, label=label, estimate=repeats, verdict=verdict, pair=pair)


def _pairs(keys: list[str], values: Mapping[str, Mapping[int, float]]) -> dict[tuple[str, str], Pair]:
    """Return the comparison of every two conditions that share a repeat, corrected as one family."""
    comparisons: dict[tuple[str, str], PairedComparison] = {}
    for first, second in combinations(keys, 2):
        shared = sorted(values[first].keys() & values[second].keys())
        if shared:
            comparisons[first, second] = paired_t(
                [values[first][i] for i in shared], [values[second][i] for i in shared]
            )
    tested = [pair for pair, comparison in comparisons.items() if comparison.p is not None]
    adjusted = dict(zip(tested, holm([comparisons[pair].p or 0.0 for pair in tested]), strict=True))
    alpha = ALPHA / max(1, len(tested))
    return {pair: _pair(pair, comparison, adjusted.get(pair), alpha) for pair, comparison in comparisons.items()}


def _pair(keys: tuple[str, str], comparison: PairedComparison, p_adjusted: float | None, alpha: float) -> Pair:
    std = comparison.difference.std or 0.0
    return Pair(
        first=keys[0],
        second=keys[1],
        comparison=comparison,
        p_adjusted=p_adjusted,
        detectable=minimum_detectable_difference(std, comparison.n, alpha),
        repeats_needed=repeats_to_decide(comparison.difference.mean, std, alpha) if p_adjusted is not None else None,
    )


def condition_named(results: StudyResults, key: str) -> Condition:
    """Return the condition with this key; raise `KeyError` when the study has none."""
    for condition in results.conditions:
        if condition.key == key:
            return condition
    raise KeyError(key)
