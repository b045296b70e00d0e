"""Ranks over several data sets: Friedman's test, Kendall's concordance and Nemenyi's critical difference.

The procedure is that of Demšar (2006), Statistical comparisons of classifiers over multiple data sets, Journal of
Machine Learning Research 7, 1-30. Blocks are data sets (here: studies), treatments are conditions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from benchkit.analysis.comparisons import ALPHA

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
class RankTest:
    """Friedman's test of `conditions` ranked within each of `studies`: are all orders equally likely?

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
    orders = np.array(list(itertools.permutations(range(ranks.shape[1]))))
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
