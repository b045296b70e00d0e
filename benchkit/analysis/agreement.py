"""Several studies beside each other: which conditions they share, how each ranks them, and whether they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from benchkit.analysis.comparisons import ALPHA
from benchkit.analysis.estimates import Estimate
from benchkit.analysis.findings import Finding
from benchkit.analysis.rank_tests import (
    LEAST_CONDITIONS,
    LEAST_STUDIES,
    RankTest,
    critical_difference,
    friedman,
    mean_ranks,
    mid_ranks,
)
from benchkit.analysis.ranking import Ranking
from benchkit.analysis.wording import count, listing, lower_is_better, metric_words, names, number, p_words, quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionInStudy:
    """A condition in one study: its estimate, and its rank among the conditions that all studies have, else None."""

    estimate: Estimate
    rank: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedCondition:
    """A condition that two studies or more have: its standing in each (None where absent), and its mean rank."""

    label: str
    standings: tuple[ConditionInStudy | None, ...]
    mean_rank: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opposed:
    """Two conditions that studies tell apart in opposite directions: `first` is better in some, `second` in others."""

    first: str
    second: str
    first_in: tuple[str, ...]
    second_in: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Conditions by the same label in several studies.

    `shared` are those of two studies or more, by mean rank; `common` the labels that every study has; `alone` the
    others by study. `orders` are the common labels in each study's order of means. `test` and `critical_difference`
    need three studies and three common conditions.
    """

    metric: str
    studies: tuple[str, ...]
    shared: tuple[SharedCondition, ...]
    common: tuple[str, ...]
    alone: tuple[tuple[str, tuple[str, ...]], ...]
    orders: tuple[tuple[str, ...], ...]
    opposed: tuple[Opposed, ...]
    test: RankTest | None
    critical_difference: float | None

    @property
    def leaders(self) -> tuple[str, ...]:
        """Return the condition with the best mean in each study, among the common ones."""
        return tuple(order[0] for order in self.orders if order)


def agree(rankings: Sequence[tuple[str, Ranking]], metric: str) -> Agreement:
    """Return the comparison of studies, given as name and ranking by the same metric."""
    estimates = [{row.label: row.estimate for row in ranking.rows} for _, ranking in rankings]
    names = tuple(name for name, _ in rankings)
    labels = list(dict.fromkeys(label for found in estimates for label in found))
    common = [label for label in labels if all(label in found for found in estimates)]
    lower = lower_is_better(metric)
    ranks = [mid_ranks([found[label].mean for label in common], lower_is_better=lower) for found in estimates]
    by_label = [dict(zip(common, row, strict=True)) for row in ranks]
    means = dict(zip(common, mean_ranks(ranks), strict=True)) if common else {}
    several = [label for label in labels if sum(label in found for found in estimates) > 1]
    shared = [_shared(label, estimates, by_label, means) for label in several]
    shared.sort(key=lambda row: (row.mean_rank is None, row.mean_rank or 0.0))
    tested = len(common) >= LEAST_CONDITIONS and len(names) >= LEAST_STUDIES
    return Agreement(
        metric=metric,
        studies=names,
        shared=tuple(shared),
        common=tuple(sorted(common, key=lambda label: means[label])),
        alone=tuple(
            (name, tuple(label for label in found if label not in several))
            for name, found in zip(names, estimates, strict=True)
        ),
        orders=tuple(tuple(sorted(common, key=row.__getitem__)) for row in by_label),
        opposed=_opposed(rankings, common),
        test=friedman(ranks) if tested else None,
        critical_difference=critical_difference(len(common), len(names)) if tested else None,
    )


def _shared(
    label: str,
    estimates: Sequence[Mapping[str, Estimate]],
    ranks: Sequence[Mapping[str, float]],
    means: Mapping[str, float],
) -> SharedCondition:
    standings = tuple(
        ConditionInStudy(estimate=found[label], rank=row.get(label)) if label in found else None
        for found, row in zip(estimates, ranks, strict=True)
    )
    return SharedCondition(label=label, standings=standings, mean_rank=means.get(label))


def _opposed(rankings: Sequence[tuple[str, Ranking]], common: Sequence[str]) -> tuple[Opposed, ...]:
    """Return the pairs that one study decides one way and another study the other way."""
    better: dict[tuple[str, str], list[str]] = {}
    for name, ranking in rankings:
        labels = {row.key: row.label for row in ranking.rows}
        for pair in ranking.pairs:
            if pair.decided:
                better.setdefault((labels[pair.first], labels[pair.second]), []).append(name)
    return tuple(
        Opposed(first=one, second=other, first_in=tuple(better[one, other]), second_in=tuple(better[other, one]))
        for one, other in combinations(common, 2)
        if (one, other) in better and (other, one) in better
    )


def agreement_findings(agreement: Agreement) -> tuple[Finding, ...]:
    """Return what can be said of the studies together: agreement first, then the test, contradictions and gaps."""
    found = [_agreement(agreement), _tested(agreement), *_contradictions(agreement), *_alone(agreement)]
    return tuple(found)


def _agreement(agreement: Agreement) -> Finding:
    return Finding(
        rule="agreement",
        tone="answer",
        sentence=_agreement_words(agreement),
        evidence=" ".join(
            f"{name}: {', '.join(order)}." for name, order in zip(agreement.studies, agreement.orders, strict=True)
            if order
        ),
        about=agreement.common,
    )  # fmt: skip


def _agreement_words(agreement: Agreement) -> str:
    studies, common = count(len(agreement.studies), "study", "studies"), agreement.common
    metric = metric_words(agreement.metric)
    if not agreement.shared:
        return f"The {studies} share no condition, so their rankings cannot be compared."
    if len(common) < 2:
        which = f"only {quoted(common[0])}" if common else "no condition"
        return f"The {studies} have {which} in common, so there is no common ranking to compare."
    leaders = agreement.leaders
    if len(set(agreement.orders)) == 1:
        return (
            f"The ranking agrees: by mean {metric}, every study puts {names(agreement.orders[0])} in this order, "
            "best first."
        )
    if len(set(leaders)) == 1:
        return (
            f"The studies agree on the best: {quoted(leaders[0])} has the best mean {metric} in all {studies}, but "
            "they order the others differently."
        )
    best = [
        f"{quoted(label)} in {listing([n for n, one in zip(agreement.studies, leaders, strict=True) if one == label])}"
        for label in dict.fromkeys(leaders)
    ]
    return f"The ranking does not agree: the best mean {metric} is that of {listing(best)}."


def _tested(agreement: Agreement) -> Finding:
    test, distance = agreement.test, agreement.critical_difference
    studies, conditions = count(len(agreement.studies), "study", "studies"), count(len(agreement.common), "condition")
    if test is None or distance is None:
        return Finding(
            rule="friedman",
            tone="note",
            sentence=f"Whether mean ranks differ by more than chance is not tested: {studies} with {conditions} in "
            f"common are too few for Friedman's test, which is stated from {LEAST_STUDIES} studies and "
            f"{LEAST_CONDITIONS} conditions on.",
            evidence="",
        )
    how = "all permutations of ranks" if test.method == "exact" else "F approximation of Iman and Davenport"
    apart = _apart(agreement, distance)
    differ = test.p < ALPHA
    pairs = f"{'; '.join(apart)} differ by it or more" if apart else "no two conditions are that far apart"
    return Finding(
        rule="friedman",
        tone="note",
        sentence=f"Over {studies} the mean ranks of {conditions} {'differ' if differ else 'are not shown to differ'} "
        f"by more than chance would make them (Friedman's test, p {p_words(test.p)}).",
        evidence=f"χ² = {number(test.statistic, 3)}, Kendall's W = {number(test.concordance, 3)} (1: all studies rank "
        f"alike), p from {how}. Nemenyi's critical difference of mean ranks is {number(distance, 3)}: {pairs}. The "
        "test takes each study's means as they are and knows nothing of their spread over repeats.",
        about=agreement.common,
    )


def _apart(agreement: Agreement, distance: float) -> list[str]:
    ranked = [(row.label, row.mean_rank) for row in agreement.shared if row.mean_rank is not None]
    return [
        f"{quoted(one)} and {quoted(other)}"
        for (one, first), (other, second) in combinations(ranked, 2)
        if abs(first - second) >= distance
    ]


def _contradictions(agreement: Agreement) -> Sequence[Finding]:
    if len(set(agreement.orders)) < 2 or len(agreement.common) < 2:
        return []
    if not agreement.opposed:
        return [
            Finding(
                rule="contradiction",
                tone="note",
                sentence="No two conditions are told apart in opposite directions, so where the orders differ, chance "
                "between random seeds may be the reason.",
                evidence="Paired t tests within each study, Holm's correction over all pairs of that study.",
            )
        ]
    return [
        Finding(
            rule="contradiction",
            tone="warning",
            sentence=f"The studies contradict each other on {quoted(pair.first)} and {quoted(pair.second)}: the first "
            f"is better beyond chance in {listing(pair.first_in)}, the second in {listing(pair.second_in)}.",
            evidence="Paired t tests within each study, Holm's correction over all pairs of that study.",
            about=(pair.first, pair.second),
        )
        for pair in agreement.opposed
    ]


def _alone(agreement: Agreement) -> Sequence[Finding]:
    """Say which conditions only one study has; they take no part in ranks."""
    parts = [f"{names(labels, most=12)} in {study}" for study, labels in agreement.alone if labels]
    if not parts:
        return []
    sentence = f"Not shared, and so not ranked together: {'; '.join(parts)}."
    return [Finding(rule="not-shared", tone="note", sentence=sentence, evidence="")]
