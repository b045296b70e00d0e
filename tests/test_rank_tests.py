"""Friedman's test, mid-ranks and Nemenyi's critical difference against SciPy, published tables and counting."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from benchkit.analysis.agreement import critical_difference, friedman, iman_davenport, mean_ranks, mid_ranks


def test_ranks_start_with_the_best_and_equal_values_share_theirs() -> None:
    assert mid_ranks([0.9, 0.7, 0.8, 0.7]) == (1.0, 3.5, 2.0, 3.5)
    assert mid_ranks([0.9, 0.7, 0.8, 0.7], lower_is_better=True) == (4.0, 1.5, 3.0, 1.5)
    assert mid_ranks([0.1 + 0.2, 0.3]) == (1.5, 1.5)  # rounding makes no rank
    assert mean_ranks([(1, 2, 3), (2, 1, 3)]) == (1.5, 1.5, 3.0)


@pytest.mark.parametrize(("studies", "conditions"), [(3, 3), (5, 4), (12, 6), (4, 9)])
@pytest.mark.parametrize("ties", [False, True])
def test_the_statistic_is_scipys(studies: int, conditions: int, ties: bool) -> None:
    rng = np.random.default_rng(studies * conditions)
    scores = rng.normal(size=(studies, conditions))
    scores = np.round(scores) if ties else scores
    found = friedman([mid_ranks(list(row)) for row in scores])
    known = stats.friedmanchisquare(*scores.T)
    assert found.statistic == pytest.approx(known.statistic)
    assert found.concordance == pytest.approx(known.statistic / (studies * (conditions - 1)))
    assert 0 < found.p <= 1


@pytest.mark.parametrize(
    ("ranks", "p"),
    [  # Friedman (1937), tables of the exact distribution: k = 3 with N = 3 and 4, k = 4 with N = 3
        ([(1, 2, 3)] * 3, 0.028),
        ([(1, 2, 3)] * 4, 0.0046),
        ([(1, 2, 3), (1, 2, 3), (1, 2, 3), (1, 3, 2)], 0.042),
        ([(1, 2, 3, 4)] * 3, 0.0017),
    ],
)
def test_few_studies_have_the_published_exact_p(ranks: list[tuple[float, ...]], p: float) -> None:
    found = friedman(ranks)
    assert found.method == "exact"
    assert found.p == pytest.approx(p, abs=5.1e-4)


def test_the_exact_p_counts_permutations_with_ties() -> None:
    ranks = [(1.0, 2.5, 2.5), (1.0, 2.0, 3.0), (1.5, 1.5, 3.0), (2.0, 1.0, 3.0)]
    observed = np.sum(np.sum(ranks, axis=0) ** 2)
    ways = [sum(np.sum(rows, axis=0) ** 2) for rows in itertools.product(*(itertools.permutations(r) for r in ranks))]
    assert friedman(ranks).p == pytest.approx(np.mean(np.array(ways) >= observed - 1e-9))


def test_demsars_example() -> None:
    """Demšar (2006), section 3.2.2: mean ranks of four classifiers over 14 data sets, their χ², F and CD."""
    chi2 = 12 * 14 / (4 * 5) * (3.143**2 + 2.000**2 + 2.893**2 + 1.964**2 - 4 * 5**2 / 4)
    assert chi2 == pytest.approx(9.28, abs=0.01)
    f = 13 * chi2 / (14 * 3 - chi2)
    assert f == pytest.approx(3.69, abs=0.01)
    assert iman_davenport(chi2, 14, 4) == pytest.approx(stats.f.sf(f, 3, 39))
    assert stats.f.sf(2.85, 3, 39) == pytest.approx(0.05, abs=0.001)  # the critical value he states
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, alpha=0.10) == pytest.approx(1.12, abs=0.005)


def test_the_critical_difference_has_demsars_quantiles() -> None:
    table = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
    for conditions, quantile in table.items():
        known = quantile * np.sqrt(conditions * (conditions + 1) / (6 * 5))
        assert critical_difference(conditions, 5) == pytest.approx(known, abs=0.001 * known)


def test_many_studies_use_the_f_distribution() -> None:
    rng = np.random.default_rng(3)
    ranks = [tuple(rng.permutation(8) + 1.0) for _ in range(6)]
    found = friedman(ranks)
    assert found.method == "F"
    assert found.p == pytest.approx(iman_davenport(found.statistic, 6, 8))


def test_nothing_to_test_is_an_error_and_all_ties_are_no_difference() -> None:
    with pytest.raises(ValueError, match="two studies"):
        friedman([(1.0, 2.0, 3.0)])
    same = friedman([(2.0, 2.0, 2.0)] * 3)
    assert (same.statistic, same.p) == (0.0, 1.0)
