"""Two groups of repeats that share no random seeds: Welch's test, its interval, and what it could have found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchkit.analysis.comparisons import ALPHA, POWER, detectable_noncentrality, varies
from benchkit.analysis.estimates import CONFIDENCE, Estimate, estimate, t_quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpairedComparison:
    """Mean of the first group minus mean of the second, `first` and `second` of them.

    `low` and `high` bound the difference (Welch's t interval), `degrees` are Welch and Satterthwaite's degrees of
    freedom, `p` is that of the two-sided test. All are None when a group has one repeat or neither varies.
    """

    difference: float
    low: float | None
    high: float | None
    degrees: float | None
    p: float | None
    first: int
    second: int


def welch_t(first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE) -> UnpairedComparison:
    """Return the comparison of two independent groups without assuming equal variances.

    t = (mean1 - mean2) / √(s1²/n1 + s2²/n2), with (s1²/n1 + s2²/n2)² / ((s1²/n1)²/(n1 - 1) + (s2²/n2)²/(n2 - 1))
    degrees of freedom (Welch 1947). Raises `ValueError` for an empty group or non-finite values.
    """
    one, other = estimate(first), estimate(second)
    difference = one.mean - other.mean
    scale = standard_error(one, other)
    if scale is None:
        return UnpairedComparison(
            difference=difference, low=None, high=None, degrees=None, p=None, first=one.n, second=other.n
        )
    from scipy.stats import t

    error, degrees = scale
    half = t_quantile(1 - (1 - confidence) / 2, degrees) * error
    return UnpairedComparison(
        difference=difference,
        low=difference - half,
        high=difference + half,
        degrees=degrees,
        p=2 * float(t.sf(abs(difference) / error, degrees)),
        first=one.n,
        second=other.n,
    )


def standard_error(one: Estimate, other: Estimate) -> tuple[float, float] | None:
    """Return the standard error of the difference of two means and its degrees of freedom, or None without spread."""
    if one.std is None or other.std is None or not (varies(one) or varies(other)):
        return None
    first, second = one.std**2 / one.n, other.std**2 / other.n
    degrees = (first + second) ** 2 / (first**2 / (one.n - 1) + second**2 / (other.n - 1))
    return math.sqrt(first + second), degrees


def welch_detectable(one: Estimate, other: Estimate, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """Return the smallest true difference that Welch's test of two such groups finds with the given power.

    It takes the observed spreads as if they were true, as a noncentral t with Welch's degrees of freedom. None
    without spread or with one repeat in a group.
    """
    scale = standard_error(one, other)
    if scale is None:
        return None
    error, degrees = scale
    return detectable_noncentrality(degrees, alpha, power) * error
