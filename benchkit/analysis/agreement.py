"""Several studies beside each other: which conditions they share, how each ranks them, and whether they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from benchkit.analysis.estimates import Estimate
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
from benchkit.analysis.wording import lower_is_better


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A condition in one study: its estimate, and its rank among the conditions that all studies have, else None."""

    estimate: Estimate
    rank: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedCondition:
    """A condition that two studies or more have: its standing in each (None where absent), and its mean rank."""

    label: str
    standings: tuple[Standing | None, ...]
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
        Standing(estimate=found[label], rank=row.get(label)) if label in found else None
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
