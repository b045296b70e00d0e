"""Rules about several studies: whether their rankings agree, whether by more than chance, and what they contradict."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from benchkit.analysis.agreement import Agreement
from benchkit.analysis.comparisons import ALPHA
from benchkit.analysis.findings import Finding
from benchkit.analysis.outcome_rules import p_words
from benchkit.analysis.rank_tests import LEAST_CONDITIONS, LEAST_STUDIES
from benchkit.analysis.wording import count, listing, metric_words, names, number, quoted


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
