"""Printed shares as fractions of a number of images: k of n, to the digits that were printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

MOST_IMAGES = 1000
"""Up to this many images a fraction is looked for behind a published share."""

CHANCE = 0.01
"""A small n is called implied when round numbers would agree with one this small less often than this."""


def implied_n(values: Sequence[float]) -> tuple[int, float] | None:
    """Return the smallest n for which every value is some k/n to its printed digits, and the chance of that.

    0.9167 and 0.8333 are 11/12 and 10/12; so is 0.9166, as many programs cut digits off. A random value with d digits
    agrees with some k/n in at most 1.5 (n + 1) / 10^d of cases, and m different ones with some n' <= n at most in the
    sum over n' of the product of these; None when that is above `CHANCE`, or when no n up to `MOST_IMAGES` fits.
    """
    if not values:
        return None
    digits = [digits_of(value) for value in dict.fromkeys(values)]
    chance = 0.0
    for n in range(1, MOST_IMAGES + 1):
        chance += math.prod(min(1.0, 1.5 * (n + 1) / 10**d) for d in digits)
        if chance > CHANCE:
            return None
        if all(is_fraction(value, n) for value in values):
            return n, chance
    return None


def digits_of(value: float) -> int:
    """Return how many decimals a number was written with, at most 12: beyond that floats differ by rounding."""
    exponent = Decimal(repr(value)).as_tuple().exponent
    return min(12, max(0, -exponent)) if isinstance(exponent, int) else 0


def is_fraction(value: float, n: int) -> bool:
    """Return whether a printed value is some k/n, rounded to its digits or cut off after them."""
    unit = 10.0 ** -digits_of(value)
    return any(-0.5000001 * unit <= k / n - value < 0.9999999 * unit for k in _candidates(value, n))


def _candidates(value: float, n: int) -> tuple[int, int, int]:
    middle = round(value * n)
    return middle - 1, middle, middle + 1
