"""Estimates against SciPy's own intervals and numbers worked by hand."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from benchkit.analysis import estimate, prediction_interval, wilson
from benchkit.analysis.estimates import t_quantile


def test_the_t_interval_is_scipys() -> None:
    values = [0.71, 0.74, 0.69, 0.75]
    low, high = stats.t.interval(0.95, df=3, loc=stats.tmean(values), scale=stats.sem(values))
    found = estimate(values)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert found.mean == pytest.approx(0.7225)
    assert found.std == pytest.approx(stats.tstd(values))
    assert (found.n, found.values) == (4, tuple(values))


def test_three_repeats_by_hand() -> None:
    # mean 2, s = 1, t(0.975, 2) = 4.302653: half width 4.302653 / sqrt(3) = 2.484138
    found = estimate([1.0, 2.0, 3.0])
    assert found.half_width == pytest.approx(2.484138, abs=1e-6)


def test_one_repeat_has_no_interval() -> None:
    found = estimate([0.5])
    assert (found.mean, found.low, found.high, found.std, found.half_width) == (0.5, None, None, None, None)


def test_equal_repeats_have_an_interval_of_no_width() -> None:
    found = estimate([0.25, 0.25, 0.25])
    assert (found.low, found.high, found.std) == (0.25, 0.25, 0.0)


def test_an_interval_ends_where_the_quantity_does() -> None:
    values = [0.97, 0.98, 1.0]  # the plain interval is [0.945, 1.021]
    assert estimate(values).high == pytest.approx(1.02128, abs=1e-4)
    cut = estimate(values, bounds=(0.0, 1.0))
    assert (cut.low, cut.high) == (pytest.approx(0.94539, abs=1e-4), 1.0)
    assert cut.half_width == pytest.approx(estimate(values).half_width)
    assert prediction_interval(cut, bounds=(0.0, 1.0)) == (pytest.approx(0.90744, abs=1e-4), 1.0)


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_values_that_cannot_be_averaged_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        estimate(values)


def test_coverage_of_the_interval_over_three_repeats() -> None:
    draws = stats.norm.rvs(loc=1.0, scale=0.3, size=(2000, 3), random_state=3)
    hits = sum(found.low <= 1.0 <= found.high for found in map(estimate, draws))  # type: ignore[operator]
    assert 0.93 < hits / 2000 < 0.97


def test_wilson_is_the_formula_of_the_paper() -> None:
    # Wilson (1927): (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), here for 15 of 20
    z, p, n = 1.959963984540054, 0.75, 20
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    found = wilson(15, 20)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), rel=1e-9)
    assert found.share == 0.75


def test_wilson_is_scipys_to_the_bit() -> None:
    for n in (1, 2, 20, 360, 10_000):
        for successes in {0, 1, n // 3, n // 2, n - 1, n}:
            expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
            found = wilson(successes, n)
            assert (found.low, found.high) == (expected.low, expected.high)


@pytest.mark.parametrize(("successes", "n"), [(0, 12), (12, 12)])
def test_wilson_at_the_edges_stays_between_0_and_1(successes: int, n: int) -> None:
    found = wilson(successes, n)
    assert 0 <= found.low < found.high <= 1


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 2), (0, 0)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="proportion"):
        wilson(successes, n)


def test_the_prediction_interval_by_hand() -> None:
    # mean 2, s = 1, n = 3: 4.302653 * sqrt(1 + 1/3) = 4.968276
    low, high = prediction_interval(estimate([1.0, 2.0, 3.0])) or (0.0, 0.0)
    assert (low, high) == pytest.approx((2 - 4.968276, 2 + 4.968276), abs=1e-5)
    assert prediction_interval(estimate([1.0])) is None


def test_quantiles_of_t() -> None:
    assert t_quantile(0.975, 2) == pytest.approx(stats.t.ppf(0.975, 2), rel=1e-10)
