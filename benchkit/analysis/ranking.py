"""Which condition is best, which cannot be told from it, and how many repeats would tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING, Literal

from benchkit.analysis.comparisons import (
    ALPHA,
    MOST_REPEATS,
    PairedComparison,
    holm,
    minimum_detectable_difference,
    paired_t,
    repeats_to_decide,
)
from benchkit.analysis.degenerate import one_class_conditions
from benchkit.analysis.estimates import Estimate, compared, estimate_of, values_by_repeat
from benchkit.analysis.trials import Coverage, coverage_words
from benchkit.analysis.wording import (
    Finding,
    amount,
    bare,
    count,
    lower_is_better,
    measured,
    metric_words,
    names,
    number,
    p_words,
    quoted,
    span,
)
from benchkit.metrics import metric_of
from benchkit.results import StudyResults

if TYPE_CHECKING:
    from benchkit.plan import Condition

Verdict = Literal["best", "tied", "behind", "untested", "one class"]
"""best: the best mean; tied: not told apart from it; behind: worse beyond chance; untested: no test was possible; one
class: no repeat tells classes apart, so there is nothing to compare."""


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
        return tuple(row for row in self.rows[1:] if row.verdict not in ("behind", "one class"))

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
    keys = [key for key, scores in values.items() if scores]
    means = {condition.key: estimate_of(results, condition, metric) for condition in compared(results)}
    estimates = {key: mean for key, mean in means.items() if mean is not None}
    keys.sort(key=lambda key: (1 if lower_is_better(metric) else -1) * estimates[key].mean)
    pairs = _pairs(keys, values)
    nothing = {row.key for row in one_class_conditions(results) if row.always}
    rows = tuple(
        _ranked(position, labels[key], estimates[key], pairs.get((keys[0], key)), key, said_nothing=key in nothing)
        for position, key in enumerate(keys, 1)
    )
    without = tuple(condition.label for condition in compared(results) if condition.key not in estimates)
    return Ranking(metric=metric, rows=rows, pairs=tuple(pairs.values()), without=without)


def _ranked(
    position: int, label: str, repeats: Estimate, pair: Pair | None, key: str, *, said_nothing: bool
) -> RankedCondition:
    verdict: Verdict = "best" if position == 1 else "one class" if said_nothing else "untested"
    if verdict == "untested" and pair is not None and pair.p_adjusted is not None:
        verdict = "behind" if pair.decided else "tied"
    return RankedCondition(rank=position, key=key, label=label, estimate=repeats, verdict=verdict, pair=pair)


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


def winner_finding(ranking: Ranking, coverage: Sequence[Coverage]) -> Finding:
    """Say which condition is best, that the ranking is not decided, or that nothing can be said yet."""
    if ranking.best is None:
        return _unanswered(ranking.metric, coverage)
    if len(ranking.rows) == 1:
        return _alone(ranking, ranking.best)
    if ranking.decided:
        return _decided(ranking, ranking.best)
    return _undecided(ranking, ranking.best)


def _unanswered(metric: str, coverage: Sequence[Coverage]) -> Finding:
    return Finding(
        rule="winner",
        tone="answer",
        sentence=f"There is no answer yet: no repeat has a {metric_words(metric)}.",
        evidence=f"{coverage_words(coverage)}.",
    )


def _alone(ranking: Ranking, best: RankedCondition) -> Finding:
    value = measured(ranking.metric, best.estimate.mean)
    return Finding(
        rule="winner",
        tone="answer",
        sentence=f"{quoted(best.label)} reaches a {metric_words(ranking.metric)} of {value}; it is the only "
        f"condition with "
        "results, so there is nothing to compare it with.",
        evidence=interval_words(ranking.metric, best),
        about=(best.label,),
    )


def _decided(ranking: Ranking, best: RankedCondition) -> Finding:
    second = ranking.rows[1]
    assert second.pair is not None
    by = amount(ranking.metric, second.pair.comparison.difference.mean)
    return Finding(
        rule="winner",
        tone="answer",
        sentence=f"{quoted(best.label)} is best with a {metric_words(ranking.metric)} of "
        f"{measured(ranking.metric, best.estimate.mean)}, {by} {_ahead(ranking.metric)} {quoted(second.label)}, "
        f"the next "
        "one.",
        evidence=f"{interval_words(ranking.metric, best)} Against {quoted(second.label)}: {pair_words(second.pair)}.",
        about=(best.label, second.label),
    )


def _undecided(ranking: Ranking, best: RankedCondition) -> Finding:
    tied = [row.label for row in ranking.tied]
    are = "is" if len(tied) == 1 else "are"
    return Finding(
        rule="winner",
        tone="answer",
        sentence=f"The ranking is not decided: {quoted(best.label)} has the best mean {metric_words(ranking.metric)}, "
        f"{measured(ranking.metric, best.estimate.mean)}, but {names(tied)} {are} not told apart from it.",
        evidence=f"{interval_words(ranking.metric, best)} {_closest_words(ranking.metric, ranking.tied[0])}",
        about=(best.label, *tied),
    )


def basis(ranking: Ranking, coverage: Sequence[Coverage]) -> str:
    """Return the sentence that says what the answer rests on and what would settle it."""
    if ranking.best is None:
        return f"{coverage_words(coverage)}."
    if len(ranking.rows) == 1:
        return interval_words(ranking.metric, ranking.best)
    if not ranking.decided:
        return _closest_words(ranking.metric, ranking.tied[0], short=True)
    pair = ranking.rows[1].pair
    assert pair is not None
    gap = pair.comparison.difference
    if gap.low is None or gap.high is None:  # ahead of conditions that name one class alone, in a single repeat
        return _closest_words(ranking.metric, ranking.rows[1], short=True)
    low, high = sorted((abs(gap.low), abs(gap.high)))
    scale = f"{bare(ranking.metric, low)} to {amount(ranking.metric, high)}"
    n = count(pair.comparison.n, "repeat")
    return (
        f"Over {n} the lead is {scale} (95 % t interval of the paired difference; p {p_words(pair.p_adjusted)}, Holm)."
    )


def _closest_words(metric: str, row: RankedCondition, *, short: bool = False) -> str:
    pair, label = row.pair, quoted(row.label)
    if pair is None:
        return f"It shares no repeat with {label}, so the two cannot be paired."
    behind = f"{label} is {amount(metric, pair.comparison.difference.mean)} behind"
    if pair.p_adjusted is None and pair.comparison.n == 1:
        return f"{behind} in the one repeat that both have; from two repeats on it is known how many would decide."
    if pair.p_adjusted is None:
        return f"{behind} in each of {count(pair.comparison.n, 'repeat')}; a paired test needs differences that vary."
    return f"{behind}{'' if short else f': {pair_words(pair)}'}; {needed_words(metric, pair)}."


def needed_words(metric: str, pair: Pair) -> str:
    """Return in words what difference could have been seen, and how many repeats would decide."""
    if pair.repeats_needed is None:
        needed = f"more than {MOST_REPEATS:,} repeats would be needed if that difference is true"
    elif pair.repeats_needed <= pair.comparison.n:
        needed = "one or two more repeats may decide"
    else:
        needed = f"about {count(pair.repeats_needed, 'repeat')} would decide if that difference is true"
    if pair.detectable is None:
        return needed
    if pair.detectable >= metric_of(metric).high:
        return f"{count(pair.comparison.n, 'repeat')} can show no possible difference (80 % power), and {needed}"
    seen = (
        f"{count(pair.comparison.n, 'repeat')} can show a difference of {amount(metric, pair.detectable)} (80 % power)"
    )
    return f"{seen}, and {needed}"


def pair_words(pair: Pair) -> str:
    """Return the paired test in words: paired t test over 3 repeats, p = 0.031 after Holm's correction, d_z = 2.1."""
    effect = pair.comparison.effect_size
    size = f", effect size d_z = {number(effect, 3)}" if effect is not None else ""
    n = count(pair.comparison.n, "repeat")
    return f"paired t test over {n}, p {p_words(pair.p_adjusted)} after Holm's correction{size}"


def interval_words(metric: str, row: RankedCondition) -> str:
    """Return an estimate's interval in words, or that one repeat has none."""
    repeats = row.estimate
    if repeats.low is None or repeats.high is None:
        return f"{quoted(row.label)} has one repeat, so nothing is known of the spread between random seeds."
    n = count(repeats.n, "repeat")
    return f"95 % t interval of {quoted(row.label)} over {n}: {span(metric, repeats.low, repeats.high)}."


def _ahead(metric: str) -> str:
    return "below" if lower_is_better(metric) else "ahead of"


UNSTABLE = 3.0
"""How many times the median spread of the other conditions counts as unstable."""


def unstable_findings(ranking: Ranking) -> list[Finding]:
    """Say which conditions spread over repeats far more than the others do."""
    spreads = [(row.label, row.estimate) for row in ranking.rows if row.estimate.n >= 3 and row.estimate.std]
    findings = []
    for label, repeats in spreads:
        others = [other.std for name, other in spreads if name != label and other.std is not None]
        usual = median(others) if len(others) >= 2 else None
        if usual and repeats.std is not None and repeats.std > UNSTABLE * usual:
            findings.append(
                Finding(
                    rule="unstable-seeds",
                    tone="warning",
                    sentence=f"{quoted(label)} depends on the random seed: its repeats lie between "
                    f"{span(ranking.metric, min(repeats.values), max(repeats.values))}.",
                    evidence=f"Standard deviation over {count(repeats.n, 'repeat')}: "
                    f"{amount(ranking.metric, repeats.std)}, "
                    f"{number(repeats.std / usual, 2)} times the median of the other conditions.",
                    about=(label,),
                )
            )
    return findings
