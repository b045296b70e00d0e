"""Published numbers beside ours: the difference, a verdict, and whether a number can be what it claims to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from benchkit.analysis.estimates import Estimate, Proportion, prediction_interval, wilson
from benchkit.analysis.readings import compared, estimate_of
from benchkit.analysis.wording import SHARES, metric_bounds
from benchkit.results import StudyResults
from benchkit.study import Published, PublishedRow

MOST_IMAGES = 1000
"""Up to this many images a fraction is looked for behind a published share."""

CHANCE = 0.01
"""A small n is called implied when round numbers would agree with one this small less often than this."""

PublishedVerdict = Literal["consistent", "ours higher", "ours lower", "one repeat", "no counterpart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedComparison:
    """One published number beside ours.

    `low` and `high` bound where one more repeat of ours would fall (95 % prediction interval): a published number is
    taken as one run. `sampling` is the published share's own Wilson interval over its n images, where n is stated.
    `difference` is ours minus published.
    """

    source: str
    label: str
    metric: str
    published: float
    sampling: Proportion | None
    ours: Estimate | None
    low: float | None
    high: float | None
    verdict: PublishedVerdict
    note: str

    @property
    def difference(self) -> float | None:
        """Return ours minus published, or None when we have no such number."""
        return None if self.ours is None else self.ours.mean - self.published


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpliedN:
    """A published source whose shares look like fractions of few images: the smallest n that gives them all.

    `chance` is how often as many random numbers with these digits would agree with an n this small.
    """

    source: str
    metric: str
    n: int
    values: tuple[float, ...]
    fractions: tuple[str, ...]
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroMismatch:
    """A micro F1 that differs from the accuracy beside it, which cannot be when each image has one label."""

    source: str
    label: str
    accuracy: float
    micro_f1: float


def compare_published(results: StudyResults) -> tuple[PublishedComparison, ...]:
    """Return every published row beside each of our conditions that has its levels, in the study's order."""
    found: list[PublishedComparison] = []
    for source in results.study.published:
        for row in source.rows:
            matching = [c for c in compared(results) if all(c.levels.get(k) == v for k, v in row.when.items())]
            pairs = [(c.label, estimate_of(results, c, row.metric)) for c in matching]
            for label, ours in pairs or [(_when(row), None)]:
                found.append(_comparison(source, row, label, ours))
    return tuple(found)


def _when(row: PublishedRow) -> str:
    return ", ".join(f"{path} = {value}" for path, value in row.when.items())


def _comparison(source: Published, row: PublishedRow, label: str, ours: Estimate | None) -> PublishedComparison:
    interval = prediction_interval(ours, bounds=metric_bounds(row.metric)) if ours else None
    low, high = interval or (None, None)
    share = row.metric.rpartition(".")[2] == "accuracy" and row.n and 0 <= row.value <= 1
    return PublishedComparison(
        source=source.source,
        label=label,
        metric=row.metric,
        published=row.value,
        sampling=wilson(round(row.value * row.n), row.n) if share and row.n else None,
        ours=ours,
        low=low,
        high=high,
        verdict=_verdict(row.value, ours, low, high),
        note=row.note,
    )


def _verdict(published: float, ours: Estimate | None, low: float | None, high: float | None) -> PublishedVerdict:
    if ours is None:
        return "no counterpart"
    if low is None or high is None:
        return "one repeat"
    if published < low:
        return "ours higher"
    return "ours lower" if published > high else "consistent"


def implied_numbers(study_published: Sequence[Published]) -> tuple[ImpliedN, ...]:
    """Return the sources whose shares without a stated n, metric by metric, look like fractions of few images."""
    found: list[ImpliedN] = []
    for source in study_published:
        for metric in dict.fromkeys(row.metric for row in source.rows):
            if metric.rpartition(".")[2] in SHARES:
                rows = [row for row in source.rows if row.metric == metric and row.n is None]
                values = [row.value for row in rows if 0 < row.value < 1]
                implied = implied_n(values)
                if implied is not None:
                    n, chance = implied
                    found.append(_implied(source.source, metric, n, chance, values))
    return tuple(found)


def _implied(source: str, metric: str, n: int, chance: float, values: Sequence[float]) -> ImpliedN:
    fractions = tuple(f"{round(value * n)}/{n}" for value in values)
    return ImpliedN(source=source, metric=metric, n=n, values=tuple(values), fractions=fractions, chance=chance)


def implied_n(values: Sequence[float]) -> tuple[int, float] | None:
    """Return the smallest n for which every value is some k/n to its printed digits, and the chance of that.

    0.9167 and 0.8333 are 11/12 and 10/12. The chance that m random values with d digits agree with some n' <= n is
    at most the sum over n' of Π (n' + 1) / 10^d; None when it is above `CHANCE`, or when no n up to `MOST_IMAGES` fits.
    """
    if not values:
        return None
    digits = [_digits(value) for value in values]
    chance = 0.0
    for n in range(1, MOST_IMAGES + 1):
        chance += math.prod(min(1.0, (n + 1) / 10**d) for d in digits)
        if chance > CHANCE:
            return None
        if all(_is_fraction(value, n, d) for value, d in zip(values, digits, strict=True)):
            return n, chance
    return None


def _digits(value: float) -> int:
    """Return how many decimals a number was written with, at most 12: beyond that floats differ by rounding."""
    exponent = Decimal(repr(value)).as_tuple().exponent
    return min(12, max(0, -exponent)) if isinstance(exponent, int) else 0


def _is_fraction(value: float, n: int, digits: int) -> bool:
    nearest = Fraction(round(value * n), n)
    return abs(float(nearest) - value) <= 0.5000001 * 10.0**-digits


def micro_mismatches(study_published: Sequence[Published]) -> tuple[MicroMismatch, ...]:
    """Return the published micro F1 that differ from the accuracy of the same split and condition."""
    found: list[MicroMismatch] = []
    for source in study_published:
        accuracies = {(_when(r), r.metric.partition(".")[0]): r for r in source.rows if r.metric.endswith(".accuracy")}
        for row in source.rows:
            beside = accuracies.get((_when(row), row.metric.partition(".")[0]))
            if row.metric.endswith(".micro_f1") and beside and not _same_share(row.value, beside.value):
                found.append(
                    MicroMismatch(source=source.source, label=_when(row), accuracy=beside.value, micro_f1=row.value)
                )
    return tuple(found)


def _same_share(first: float, second: float) -> bool:
    digits = min(_digits(first), _digits(second))
    return abs(first - second) <= 1.01 * 10.0**-digits
