"""Comparisons against SciPy, published power tables and examples worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchkit.analysis import holm, mcnemar, minimum_detectable_difference, paired_t
from benchkit.analysis.comparisons import superiority

FIRST = [0.81, 0.79, 0.83, 0.80]
SECOND = [0.78, 0.78, 0.79, 0.79]


def test_the_paired_t_test_is_scipys() -> None:
    found = paired_t(FIRST, SECOND)
    reference = stats.ttest_rel(FIRST, SECOND)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-10)
    interval = reference.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((interval.low, interval.high), rel=1e-10)
    assert found.effect_size == pytest.approx(reference.statistic / 2)  # t = d_z * sqrt(n), n = 4
    assert found.n == 4


def test_one_pair_is_no_test() -> None:
    found = paired_t([0.8], [0.7])
    assert (found.p, found.effect_size, found.n) == (None, None, 1)
    assert found.difference.mean == pytest.approx(0.1)


def test_differences_that_do_not_vary_are_no_test() -> None:
    assert paired_t([0.8, 0.7, 0.6], [0.7, 0.6, 0.5]).p is None
    assert paired_t([0.8, 0.8], [0.8, 0.8]).p is None


def test_pairs_need_equal_lengths() -> None:
    with pytest.raises(ValueError, match="lengths"):
        paired_t([1.0, 2.0], [1.0])


def test_mcnemar_is_the_binomial_test_on_discordant_images() -> None:
    first = np.array([True] * 12 + [False] * 3 + [True] * 80 + [False] * 5)
    second = np.array([False] * 12 + [True] * 3 + [True] * 80 + [False] * 5)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second, found.n) == (12, 3, 100)
    # 2 * (C(15,0) + C(15,1) + C(15,2) + C(15,3)) / 2^15 = 2 * 576 / 32768
    assert found.p == pytest.approx(1152 / 32768)
    assert found.p == pytest.approx(stats.binomtest(3, 15).pvalue)
    assert found.difference == pytest.approx(0.09)


def test_mcnemar_of_equal_models() -> None:
    same = np.array([True, False, True])
    found = mcnemar(same, same)
    assert found.p == 1.0 and (found.low, found.high) == (0.0, 0.0)


def test_the_interval_over_images_is_scipys_paired_bootstrap() -> None:
    first = np.array([True] * 120 + [False] * 60 + [True] * 700 + [False] * 120)
    second = np.array([False] * 120 + [True] * 60 + [True] * 700 + [False] * 120)
    found = mcnemar(first, second)
    reference = stats.bootstrap(
        (first.astype(float), second.astype(float)),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True, method="percentile", n_resamples=10_000, rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.0015)
    # The normal approximation: 0.06 ± 1.96 * sqrt((0.18 - 0.06²) / 1000) = 0.034 to 0.086.
    assert (found.low, found.high) == pytest.approx((0.034, 0.086), abs=0.002)


@pytest.mark.parametrize("second", [np.array([True]), np.array([True, False, True])])
def test_mcnemar_needs_the_same_images(second: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one length"):
        mcnemar(np.array([True, False]), second)


def test_holm_by_hand() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 gives 0.02, 0.03, 0.06, 0.04 -> the last is held at 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.6, 0.7]) == (1.0, 1.0)
    assert holm([]) == ()
    assert holm([0.2]) == (0.2,)


@pytest.mark.parametrize(("first", "second"), [([3.0, 1.0, 2.0], [2.0, 0.5]), ([1.0], [1.0]), ([1.0, 2.0], [3.0, 4.0])])
def test_superiority_is_mann_and_whitneys_u_over_all_pairs_of_runs(first: list[float], second: list[float]) -> None:
    u = stats.mannwhitneyu(first, second, method="asymptotic").statistic
    assert superiority(first, second) == pytest.approx(u / len(first) / len(second))
    assert superiority(first, second, lower=True) == pytest.approx(1 - superiority(first, second))
    with pytest.raises(ValueError, match="runs of both"):
        superiority(first, [])


@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_a_detectable_difference_is_found_with_the_stated_power(n: int) -> None:
    difference = minimum_detectable_difference(2.0, n)
    assert difference is not None
    noncentrality, critical = difference / 2.0 * np.sqrt(n), stats.t.ppf(0.975, n - 1)
    power = stats.nct.sf(critical, n - 1, noncentrality) + stats.nct.cdf(-critical, n - 1, noncentrality)
    assert power == pytest.approx(0.8, abs=0.002)


def test_two_repeats_detect_by_simulation() -> None:
    difference = minimum_detectable_difference(1.0, 2)
    assert difference is not None
    draws = np.random.default_rng(5).normal(difference, 1.0, (40000, 2))
    found = np.mean(stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.8, abs=0.01)


def test_nothing_is_detectable_from_one_repeat_or_without_spread() -> None:
    assert minimum_detectable_difference(1.0, 1) is None
    assert minimum_detectable_difference(0.0, 5) is None
