"""Several studies beside each other: which conditions they share, how each ranks them, and whether they agree.

By Friedman's test, Kendall's concordance and Nemenyi's critical difference of mean ranks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Literal

from benchkit.analysis.comparisons import ALPHA
from benchkit.analysis.estimates import Estimate, compared
from benchkit.analysis.ranking import Ranking, better_first
from benchkit.analysis.summary import dotted_settings
from benchkit.analysis.wording import (
    Finding,
    count,
    listing,
    lower_is_better,
    metric_words,
    names,
    number,
    p_words,
    quoted,
)
from benchkit.plan import typed_settings
from benchkit.results import StudyResults
from benchkit.storage import encode

if TYPE_CHECKING:
    import numpy as np

LEAST_STUDIES = 3
LEAST_CONDITIONS = 3
"""Friedman's test is stated from this many studies and shared conditions on."""

MOST_ORDERS = 5040
MOST_SUMS = 200_000
MOST_LAST_SUMS = 50_000_000
"""How far the exact distribution is enumerated: orders of one study, rank sums of all but the last, and of the last."""


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
class Namesakes:
    """Conditions of one label that are not the same, and in which settings they differ.

    `groups` are the studies within which the label means the same. A difference is a setting and its values, one for
    each group.
    """

    label: str
    groups: tuple[tuple[str, ...], ...]
    differences: tuple[tuple[str, tuple[str, ...]], ...]

    def label_in(self, study: str) -> str:
        """Return the label by which a study's condition is told from those of the first group."""
        group = next((group for group in self.groups if study in group), self.groups[0])
        return self.label if group == self.groups[0] else f"{self.label} ({listing(group)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTest:
    """Friedman's test of `conditions` ranked within each of `studies`: are all orders equally likely?

    The procedure is that of Demšar, Statistical comparisons of classifiers over multiple data sets, Journal of Machine
    Learning Research 7 (2006): its data sets are studies here.

    `statistic` is the χ² corrected for ties, `concordance` is Kendall's W in [0, 1] (1: every study ranks alike).
    `p` comes from all permutations of ranks within studies (`method` exact) or, where these are too many, from the F
    distribution of Iman and Davenport's statistic.
    """

    studies: int
    conditions: int
    statistic: float
    concordance: float
    p: float
    method: Literal["exact", "F"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Conditions by the same label in several studies, where it stands for the same settings.

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
    namesakes: tuple[Namesakes, ...] = ()

    @property
    def leaders(self) -> tuple[str, ...]:
        """Return the condition with the best mean in each study, among the common ones."""
        return tuple(order[0] for order in self.orders if order)


SameSettings = tuple[Mapping[str, str], list[str]]
"""Settings as they are written, and the studies in which a label stands for them."""


def find_namesakes(studies: Sequence[StudyResults]) -> tuple[Namesakes, ...]:
    """Return the labels that stand for different settings in several studies.

    A condition of a factor is the same where every setting that a factor of any of the studies sets is; one without
    factors where all its settings but those of the data are. What the studies' bases differ in is for them all alike.
    """
    levels = [level for results in studies for factor in results.study.factors for level in factor.levels]
    varied = {path for level in levels for path in level.settings}
    by_label: dict[str, dict[frozenset[tuple[str, str]], SameSettings]] = {}
    for results in studies:
        for condition in compared(results):
            written = _paths(condition.settings)
            if condition.levels:
                written = {path: text for path, text in written.items() if _within(path, varied)}
            # Without factors all settings tell conditions apart, defaults filled in.
            same = written if condition.levels else _paths(typed_settings(condition.settings, results.study.seed))
            groups = by_label.setdefault(condition.label, {})
            groups.setdefault(frozenset(same.items()), (written, []))[1].append(results.study.name)
    return tuple(_namesakes(label, tuple(groups.values())) for label, groups in by_label.items() if len(groups) > 1)


def _paths(settings: object) -> dict[str, str]:
    """Return settings beside those of the data as text, by path."""
    pairs = dotted_settings(encode(settings))
    return {path.removesuffix(".name"): text for path, text in pairs if not path.startswith("data.")}


def _within(path: str, varied: Collection[str]) -> bool:
    return any(path == factor or path.startswith(f"{factor}.") for factor in varied)


def _namesakes(label: str, groups: Sequence[SameSettings]) -> Namesakes:
    paths = dict.fromkeys(path for written, _ in groups for path in written)
    values = {path: tuple(written.get(path, "not given") or "empty" for written, _ in groups) for path in paths}
    return Namesakes(
        label=label,
        groups=tuple(tuple(studies) for _, studies in groups),
        differences=tuple((path, texts) for path, texts in values.items() if len(set(texts)) > 1),
    )


def agree(rankings: Sequence[tuple[str, Ranking]], metric: str, namesakes: Sequence[Namesakes] = ()) -> Agreement:
    """Return the comparison of studies, given as name and ranking by the same metric; `namesakes` are told apart."""
    rankings = [(name, _relabelled(name, ranking, namesakes)) for name, ranking in rankings]
    estimates = [{row.label: row.estimate for row in ranking.rows} for _, ranking in rankings]
    names = tuple(name for name, _ in rankings)
    labels = list(dict.fromkeys(label for study in estimates for label in study))
    common = [label for label in labels if all(label in study for study in estimates)]
    lower = lower_is_better(metric)
    ranks = [mid_ranks([study[label].mean for label in common], lower_is_better=lower) for study in estimates]
    by_label = [dict(zip(common, row, strict=True)) for row in ranks]
    means = dict(zip(common, mean_ranks(ranks), strict=True)) if common else {}
    several = [label for label in labels if sum(label in study for study in estimates) > 1]
    shared = [_shared(label, estimates, by_label, means) for label in several]
    shared.sort(key=lambda row: (row.mean_rank is None, row.mean_rank or 0.0))
    tested = len(common) >= LEAST_CONDITIONS and len(names) >= LEAST_STUDIES
    return Agreement(
        metric=metric,
        studies=names,
        shared=tuple(shared),
        common=tuple(sorted(common, key=lambda label: means[label])),
        alone=tuple(
            (name, tuple(label for label in study if label not in several))
            for name, study in zip(names, estimates, strict=True)
        ),
        orders=tuple(tuple(sorted(common, key=row.__getitem__)) for row in by_label),
        opposed=_opposed(rankings, common),
        test=friedman(ranks) if tested else None,
        critical_difference=critical_difference(len(common), len(names)) if tested else None,
        namesakes=tuple(namesakes),
    )


def _relabelled(study: str, ranking: Ranking, namesakes: Sequence[Namesakes]) -> Ranking:
    labels = {shared.label: shared.label_in(study) for shared in namesakes}
    return replace(ranking, rows=tuple(replace(row, label=labels.get(row.label, row.label)) for row in ranking.rows))


def _shared(
    label: str,
    estimates: Sequence[Mapping[str, Estimate]],
    ranks: Sequence[Mapping[str, float]],
    means: Mapping[str, float],
) -> SharedCondition:
    standings = tuple(
        ConditionInStudy(estimate=study[label], rank=row.get(label)) if label in study else None
        for study, row in zip(estimates, ranks, strict=True)
    )
    return SharedCondition(label=label, standings=standings, mean_rank=means.get(label))


def _opposed(rankings: Sequence[tuple[str, Ranking]], common: Sequence[str]) -> tuple[Opposed, ...]:
    """Return the pairs that one study decides one way and another study the other way."""
    better: dict[tuple[str, str], list[str]] = {}
    for name, ranking in rankings:
        labels = {row.key: row.label for row in ranking.rows}
        for pair in (better_first(pair, ranking.metric) for pair in ranking.pairs):
            if pair.decided:
                better.setdefault((labels[pair.first], labels[pair.second]), []).append(name)
    return tuple(
        Opposed(
            first=first, second=second, first_in=tuple(better[first, second]), second_in=tuple(better[second, first])
        )
        for first, second in combinations(common, 2)
        if (first, second) in better and (second, first) in better
    )


def agreement_findings(agreement: Agreement) -> tuple[Finding, ...]:
    """Return what can be said of the studies together: agreement first, then the test, contradictions and gaps."""
    further = [*_contradictions(agreement), *map(_namesake_finding, agreement.namesakes), *_alone(agreement)]
    return (_agreement(agreement), _tested(agreement), *further)


def _namesake_finding(shared: Namesakes) -> Finding:
    shown = [f"{path} is {' or '.join(values)}" for path, values in shared.differences]
    return Finding(
        rule="namesakes",
        tone="warning",
        sentence=f"{quoted(shared.label)} is not the same condition in {' and in '.join(map(listing, shared.groups))}, "
        f"so it is not compared between them: {listing(shown, most=4)}.",
        evidence="Conditions of one name are compared only where the settings behind it are equal.",
        about=(shared.label,),
    )


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
        return f"The {studies} share no condition by its label, so their rankings cannot be compared."
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
    led: dict[str, list[str]] = {}
    for study, leader in zip(agreement.studies, leaders, strict=True):
        led.setdefault(leader, []).append(study)
    best = [f"{quoted(label)} in {listing(names)}" for label, names in led.items()]
    return f"The ranking does not agree: the best mean {metric} is that of {listing(best)}."


def _tested(agreement: Agreement) -> Finding:
    test, distance = agreement.test, agreement.critical_difference
    studies, conditions = count(len(agreement.studies), "study", "studies"), count(len(agreement.common), "condition")
    if test is None or distance is None:
        return Finding(
            rule="friedman",
            sentence=f"Whether mean ranks differ by more than chance is not tested: {studies} with {conditions} in "
            f"common are too few for Friedman's test, which is stated from {LEAST_STUDIES} studies and "
            f"{LEAST_CONDITIONS} conditions on.",
        )
    how = "all permutations of ranks" if test.method == "exact" else "F approximation of Iman and Davenport"
    apart = _apart(agreement, distance)
    differ = test.p < ALPHA
    pairs = f"{'; '.join(apart)} differ by it or more" if apart else "no two conditions are that far apart"
    return Finding(
        rule="friedman",
        sentence=f"Over {studies} the mean ranks of {conditions} {'differ' if differ else 'are not shown to differ'} "
        f"by more than chance would make them (Friedman's test, p {p_words(test.p)}).",
        evidence=f"χ² = {number(test.statistic, 3)}, Kendall's W = {number(test.concordance, 3)} (1: all studies rank "
        f"alike), p from {how}. Nemenyi's critical difference of mean ranks is {number(distance, 3)}: {pairs}. The "
        "test takes each study's means as they are, knows nothing of their spread over repeats, and takes studies as "
        "independent, which those of the same images are not.",
        about=agreement.common,
    )


def _apart(agreement: Agreement, distance: float) -> list[str]:
    ranked = [(row.label, row.mean_rank) for row in agreement.shared if row.mean_rank is not None]
    return [
        f"{quoted(first_label)} and {quoted(second_label)}"
        for (first_label, first), (second_label, second) in combinations(ranked, 2)
        if abs(first - second) >= distance
    ]


def _contradictions(agreement: Agreement) -> Sequence[Finding]:
    if len(set(agreement.orders)) < 2 or len(agreement.common) < 2:
        return []
    if not agreement.opposed:
        return [
            Finding(
                rule="contradiction",
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


def _alone(agreement: Agreement) -> Iterator[Finding]:
    """Say which conditions only one study has; they take no part in ranks."""
    parts = [f"{names(labels, most=12)} in {study}" for study, labels in agreement.alone if labels]
    if not parts:
        return
    sentence = f"Not shared, and so not ranked together: {'; '.join(parts)}."
    yield Finding(rule="not-shared", sentence=sentence)


def mid_ranks(values: Sequence[float], *, lower_is_better: bool = False) -> tuple[float, ...]:
    """Return the rank of each value, 1 for the best; equal values share the mean of their ranks.

    Values that are the same in twelve decimals count as equal: what differs beyond is the rounding of a mean.
    """
    from scipy.stats import rankdata

    sign = 1 if lower_is_better else -1
    return tuple(float(rank) for rank in rankdata([sign * round(value, 12) for value in values]))


def mean_ranks(ranks: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the mean rank of each condition from (studies, conditions) ranks."""
    return tuple(math.fsum(column) / len(ranks) for column in zip(*ranks, strict=True))


def friedman(ranks: Sequence[Sequence[float]]) -> RankTest:
    """Return Friedman's test (Friedman 1937) of (studies, conditions) ranks, tied ones as mid-ranks.

    χ² = (k - 1) Σ_j (R_j - N(k + 1)/2)² / (Σ_ij r_ij² - N k (k + 1)²/4) for N studies, k conditions, rank sums R_j
    (Conover 1999). Raises `ValueError` with fewer than two studies or conditions, where there is nothing to test.
    """
    import numpy as np

    table = np.asarray(ranks, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(f"Friedman's test needs two studies and two conditions or more, got shape {table.shape}")
    studies, conditions = table.shape
    centred = table - (conditions + 1) / 2
    spread = float((centred**2).sum())
    apart = float((centred.sum(axis=0) ** 2).sum())
    statistic = (conditions - 1) * apart / spread if spread else 0.0
    exact = _exact_p(np.rint(2 * centred).astype(np.int64))
    return RankTest(
        studies=studies,
        conditions=conditions,
        statistic=statistic,
        concordance=statistic / (studies * (conditions - 1)),
        p=iman_davenport(statistic, studies, conditions) if exact is None else exact,
        method="F" if exact is None else "exact",
    )


def iman_davenport(statistic: float, studies: int, conditions: int) -> float:
    """Return the p value of F = (N - 1) χ² / (N(k - 1) - χ²) with k - 1 and (k - 1)(N - 1) degrees of freedom.

    Iman and Davenport (1980), less conservative than Friedman's χ² itself, which is meant for many studies.
    """
    from scipy.stats import f

    left = studies * (conditions - 1) - statistic
    if left <= 0:
        return 0.0
    return float(f.sf((studies - 1) * statistic / left, conditions - 1, (conditions - 1) * (studies - 1)))


def critical_difference(conditions: int, studies: int, alpha: float = ALPHA) -> float:
    """Return Nemenyi's critical difference of mean ranks: q √(k(k + 1) / (6N)).

    q is the studentized range's quantile for k conditions and infinite degrees of freedom, divided by √2 (Nemenyi 1963;
    Demšar 2006, table 5). Mean ranks further apart than this differ at the level `alpha`, all pairs considered.
    """
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - alpha, conditions, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(conditions * (conditions + 1) / (6 * studies))


def _exact_p(ranks: np.ndarray) -> float | None:
    """Return the share of all permutations of ranks within studies whose rank sums lie at least as far apart.

    `ranks` int (studies, conditions) are centred on zero. Rank sums are followed study by study, in sorted order,
    because only how far they lie apart counts. None where there are too many.
    """
    import numpy as np

    if math.factorial(ranks.shape[1]) > MOST_ORDERS:
        return None
    orders = np.array(list(permutations(range(ranks.shape[1]))))
    sums = np.sort(ranks[:1], axis=1)
    weights: np.ndarray = np.ones(1)
    for row in ranks[1:-1]:
        moves, counts = np.unique(row[orders], axis=0, return_counts=True)
        if len(sums) * len(moves) > MOST_SUMS:
            return None
        reached = np.sort((sums[:, None] + moves[None]).reshape(-1, ranks.shape[1]), axis=1)
        heavy = (weights[:, None] * (counts / counts.sum())[None]).ravel()
        sums, where = np.unique(reached, axis=0, return_inverse=True)
        weights = np.bincount(where.ravel(), heavy)
    moves, counts = np.unique(ranks[-1][orders], axis=0, return_counts=True)
    if len(sums) * len(moves) > MOST_LAST_SUMS:
        return None
    observed, chances, share = (ranks.sum(axis=0) ** 2).sum(), counts / counts.sum(), 0.0
    for start in range(0, len(sums), 256):
        part = sums[start : start + 256]
        apart = (part**2).sum(axis=1)[:, None] + (moves**2).sum(axis=1)[None] + 2 * part @ moves.T
        share += float(weights[start : start + 256] @ (apart >= observed) @ chances)
    return min(1.0, share)
