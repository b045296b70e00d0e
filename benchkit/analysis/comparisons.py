"""Comparisons of two conditions: paired by repeat, unpaired (Welch), or on the same images (sampling)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from benchkit.analysis.estimates import CONFIDENCE, Estimate, estimate, standard_error, t_quantile, two_sided_t

if TYPE_CHECKING:
    import numpy as np

ALPHA = 0.05
"""The significance level of every test in a report, after Holm's correction within its table."""

POWER = 0.8
"""The power for which minimum detectable differences are stated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """First minus second over the repeats that both have (same seeds, same order of images).

    `p` is that of the two-sided paired t test, None with fewer than two pairs or when the differences do not vary.
    `effect_size` is Cohen's d_z, the mean difference over its standard deviation, None where `p` is.
    """

    difference: Estimate
    p: float | None
    effect_size: float | None

    @property
    def n(self) -> int:
        """Return the number of pairs."""
        return self.difference.n

    @property
    def turned(self) -> PairedComparison:
        """Return second minus first."""
        values = [-value for value in self.difference.values]
        size = None if self.effect_size is None else -self.effect_size
        turned = estimate(values, resampled=self.difference.resampled)
        return PairedComparison(difference=turned, p=self.p, effect_size=size)


DRAWS = 10_000
"""Draws of a bootstrap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageComparison:
    """Two trained models on the same `n` images: how many only the first or only the second names rightly.

    `low` and `high` bound the difference of their accuracies: 95 % paired bootstrap interval over the images.
    """

    n: int
    only_first: int
    only_second: int
    p: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Return the difference of the two accuracies on these images."""
        return (self.only_first - self.only_second) / self.n


def paired_t(first: Sequence[float], second: Sequence[float], resampled: float = 0.0) -> PairedComparison:
    """Return the paired comparison of two sequences of the same length, one value for each repeat.

    t = mean(d) / (s(d) / √n) with n - 1 degrees of freedom, d = first - second (Student 1908); effect size
    d_z = mean(d) / s(d) (Cohen 1988). With `resampled` it is the corrected resampled t test (Nadeau and Bengio 2003,
    see `estimates.standard_error`). Raises `ValueError` when the lengths differ or are zero.
    """
    if len(first) != len(second):
        raise ValueError(f"pairs need equal lengths, got {len(first)} and {len(second)}")
    difference = estimate([a - b for a, b in zip(first, second, strict=True)], resampled=resampled)
    if not varies(difference):
        return PairedComparison(difference=difference, p=None, effect_size=None)
    assert difference.std is not None
    from scipy.special import stdtr

    statistic = difference.mean / standard_error(difference.std, difference.n, resampled)
    p = 2 * float(stdtr(difference.n - 1, -abs(statistic)))
    return PairedComparison(difference=difference, p=p, effect_size=difference.mean / difference.std)


def paired_by_repeat(
    first: Mapping[int, float], second: Mapping[int, float], resampled: float = 0.0
) -> PairedComparison | None:
    """Return the paired comparison of two conditions over the repeats that both have, or None without any."""
    shared = sorted(first.keys() & second.keys())
    return paired_t([first[i] for i in shared], [second[i] for i in shared], resampled) if shared else None


def varies(values: Estimate) -> bool:
    """Return whether there are two values or more that differ by more than rounding."""
    return values.std is not None and values.std > 1e-12 * max(1.0, abs(values.mean))


def mcnemar(right_first: np.ndarray, right_second: np.ndarray) -> ImageComparison:
    """Return McNemar's exact test (McNemar 1947) for two bool arrays (n,): which images each model names rightly.

    Under the null hypothesis the discordant images fall on either side like a fair coin: a two-sided binomial test.
    Raises `ValueError` when the shapes differ or are empty.
    """
    from scipy.stats import binomtest

    if right_first.shape != right_second.shape or right_first.size == 0:
        raise ValueError(f"McNemar needs two arrays of one length, got {right_first.shape} and {right_second.shape}")
    only_first = int((right_first & ~right_second).sum())
    only_second = int((right_second & ~right_first).sum())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    n = int(right_first.size)
    low, high = paired_bootstrap(n, only_first, only_second)
    return ImageComparison(n=n, only_first=only_first, only_second=only_second, p=p, low=low, high=high)


def paired_bootstrap(n: int, only_first: int, only_second: int) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the difference of two accuracies on the same n images.

    Images are drawn with replacement, each with both models' answers, so that the counts of images that only one of
    them names rightly are multinomial (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
    10,000 draws from a fixed seed: equal counts give equal intervals.
    """
    import numpy as np

    shares = (only_first / n, only_second / n, 1 - (only_first + only_second) / n)
    counts = np.random.default_rng(0).multinomial(n, shares, size=DRAWS)
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, (0.025, 0.975))
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return Holm's step-down adjusted p values in the given order (Holm 1979).

    Sorted ascending, the i-th of m is multiplied by m - i + 1, made monotone and capped at 1. The family is one table.
    """
    import numpy as np

    return tuple(stepped_down(np.asarray(p_values, dtype=float)).tolist())


def stepped_down(p: np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p values of each family, float (..., m): see `holm`."""
    import numpy as np

    order = p.argsort(-1)
    steps = np.maximum.accumulate(np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1), -1)
    adjusted = np.empty(p.shape)
    np.put_along_axis(adjusted, order, np.minimum(1.0, steps), -1)
    return adjusted


def minimum_detectable_difference(
    std: float, n: int, alpha: float = ALPHA, power: float = POWER, resampled: float = 0.0
) -> float | None:
    """Return the smallest true difference that a paired t test over `n` pairs finds with the given power.

    `std` is that of the paired differences. Solves power = P(|T| > t(1 - alpha/2)),
    T noncentral t with noncentrality difference · √n / std; `resampled` as in `paired_t`.
    None with fewer than two pairs or without spread.
    """
    if n < 2 or std <= 0:
        return None
    return detectable_noncentrality(n - 1, alpha, power) * std / math.sqrt(n) * math.sqrt(1 + n * resampled)


@cache
def detectable_noncentrality(degrees: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the true difference, in standard errors, that a two-sided t test finds with the given power."""
    from scipy.optimize import brentq

    def missing(noncentrality: float) -> float:
        return _power(noncentrality, degrees, alpha) - power

    upper = 10.0 * t_quantile(1 - alpha / 2, degrees) + 10.0
    return float(brentq(missing, 0.0, upper))


def superiority(first: Sequence[float], second: Sequence[float], *, lower: bool = False) -> float:
    """Return P(A > B): in which share of all pairs of runs, one of each condition, the first does better; ties half.

    The probability of outperforming (Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks, MLSys
    2021), as Mann and Whitney's U over n1 n2. Less is better where `lower`. Raises `ValueError` without runs.
    """
    if not first or not second:
        raise ValueError(f"a share of pairs needs runs of both, got {len(first)} and {len(second)}")
    sign = -1 if lower else 1
    gaps = [sign * (one - other) for one in first for other in second]
    return (sum(gap > 0 for gap in gaps) + sum(gap == 0 for gap in gaps) / 2) / len(gaps)


def _power(noncentrality: float, degrees: float, alpha: float) -> float:
    """Return the probability that a two-sided t test with these degrees of freedom rejects.

    Given the sample's standard deviation, T is a shifted normal over it; averaged here over equally likely values of
    it, because SciPy's noncentral t returns NaN for some of the arguments that few repeats lead to.
    """
    import numpy as np
    from scipy.special import ndtr

    threshold = t_quantile(1 - alpha / 2, degrees) * _spreads(degrees)
    return float(np.mean(ndtr(noncentrality - threshold) + ndtr(-threshold - noncentrality)))


@cache
def _spreads(degrees: float) -> np.ndarray:
    """Return 2000 equally likely values of a standard deviation whose square has these degrees of freedom."""
    import numpy as np
    from scipy.special import chdtri

    shares = (np.arange(2000) + 0.5) / 2000
    spreads: np.ndarray = np.sqrt(chdtri(degrees, shares) / degrees)
    return spreads


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpairedComparison:
    """Mean of the first group minus mean of the second: the bounds of its Welch's t interval, and the two-sided p.

    All are None when a group has one repeat or neither varies.
    """

    low: float | None = None
    high: float | None = None
    p: float | None = None


def welch_t(left: Estimate, right: Estimate) -> UnpairedComparison:
    """Return the comparison of two independent groups without assuming equal variances.

    t = (mean1 - mean2) / √(v1 + v2), with (v1 + v2)² / (v1²/(n1 - 1) + v2²/(n2 - 1)) degrees of freedom and v = s²/n
    (Welch 1947), or s² (1/n + `resampled`) of a group whose repeats are folds.
    """
    scale = welch_error(left, right)
    if scale is None:
        return UnpairedComparison()
    from scipy.stats import t

    (error, degrees), difference = scale, left.mean - right.mean
    half = two_sided_t(CONFIDENCE, degrees) * error
    p = 2 * float(t.sf(abs(difference) / error, degrees))
    return UnpairedComparison(low=difference - half, high=difference + half, p=p)


def welch_error(left: Estimate, right: Estimate) -> tuple[float, float] | None:
    """Return the standard error of the difference of two means and its degrees of freedom, or None without spread."""
    if left.std is None or right.std is None or not (varies(left) or varies(right)):
        return None
    first, second = (one.std**2 / one.n * (1 + one.n * one.resampled) for one in (left, right) if one.std is not None)
    degrees = (first + second) ** 2 / (first**2 / (left.n - 1) + second**2 / (right.n - 1))
    return math.sqrt(first + second), degrees


def welch_detectable(left: Estimate, right: Estimate, alpha: float = ALPHA) -> float | None:
    """Return the smallest true difference that Welch's test of two such groups finds with 80 % power.

    It takes the observed spreads as if they were true, as a noncentral t with Welch's degrees of freedom. None
    without spread or with one repeat in a group.
    """
    scale = welch_error(left, right)
    if scale is None:
        return None
    error, degrees = scale
    return detectable_noncentrality(degrees, alpha) * error
