"""Published numbers beside ours: difference, verdict, and what their digits say of the images behind them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchkit.analysis.estimates import Estimate, Proportion, compared, estimate_of, prediction_interval, wilson
from benchkit.analysis.inconsistencies import WHY, Inconsistency, condition_words, digits_of, is_fraction
from benchkit.analysis.wording import (
    Finding,
    amount,
    count,
    listing,
    measured,
    metric_words,
    names,
    number,
    quoted,
    span,
)
from benchkit.metrics import metric_of
from benchkit.results import StudyResults
from benchkit.study import Published, PublishedRow
from benchkit.study.origin import departures

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


PublishedVerdict = Literal[
    "consistent",
    "ours higher",
    "ours lower",
    "few images",
    "in doubt",
    "other protocol",
    "one repeat",
    "no counterpart",
]
"""consistent: where one more repeat of ours could fall; ours higher or lower: not consistent; the rest says why the two
cannot be compared: too few published images to tell, a number that cannot be, settings of ours that differ from the
source's or that --set changed, one repeat of ours, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedComparison:
    """One published number beside ours.

    `low` and `high` bound where one more repeat of ours would fall (95 % prediction interval): a published number is
    taken as one run. `sampling` is the published share's own Wilson interval over its n images, where n is stated.
    `printed` is how the source prints it. `difference` is ours minus published. `doubt` says why the published number
    cannot be what it claims to be, `departs` how the settings of our condition differ from those that the source
    states.
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
    printed: str = ""
    doubt: str = ""
    departs: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        """Return ours minus published, or None when we have no such number."""
        return None if self.ours is None else self.ours.mean - self.published


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpliedN:
    """A published source whose shares look like fractions of few images: the smallest n that gives them all.

    `stated` is the n that the study file gives for them, if any.
    `chance` is how often as many random numbers with these digits would agree with an n this small.
    """

    source: str
    metric: str
    n: int
    values: tuple[float, ...]
    fractions: tuple[str, ...]
    chance: float
    stated: int | None = None


def compare_published(results: StudyResults, doubts: Sequence[Inconsistency]) -> tuple[PublishedComparison, ...]:
    """Return every published row beside each of our conditions that has its levels, in the study's order."""
    comparisons: list[PublishedComparison] = []
    changed, origin = results.study.changed_protocol, results.study.origin
    departing = {c.key: departures(origin, c.settings) if origin else () for c in compared(results)}
    why = {(doubt.table, doubt.row): WHY[doubt.kind] for doubt in reversed(doubts)}
    for table, source in enumerate(results.study.published):
        for row_index, row in enumerate(source.rows):
            matching = [c for c in compared(results) if all(c.levels.get(k) == v for k, v in row.when.items())]
            pairs = [(c.label, estimate_of(results, c, row.metric), departing[c.key]) for c in matching]
            when = ", ".join(f"{path} = {value}" for path, value in row.when.items())
            images = _images(results, row.metric)
            for label, ours, departs in pairs or [(when, None, ())]:
                comparison = _comparison(source, row, label, ours, images)
                departs, doubt = departs or changed, why.get((table, row_index), "") if ours else ""
                verdict = comparison.verdict
                if ours and departs:
                    verdict = "other protocol"
                if doubt:
                    verdict = "in doubt"
                comparisons.append(replace(comparison, departs=departs, doubt=doubt, verdict=verdict))
    return tuple(comparisons)


def _images(results: StudyResults, metric: str) -> int:
    """Return how many images our own numbers of a metric rest on, 0 when there are none."""
    split = metric.partition(".")[0]
    scored = (trial.outcome.metrics for trial in results.trials if trial.outcome)
    return max((metrics[split].n for metrics in scored if split in metrics), default=0)  # type: ignore[index]


def _comparison(
    source: Published, row: PublishedRow, label: str, ours: Estimate | None, images: int
) -> PublishedComparison:
    interval = prediction_interval(ours, bounds=metric_of(row.metric).bounds) if ours else None
    low, high = interval or (None, None)
    is_share = metric_of(row.metric).of_images and 0 <= row.value <= 1
    sampling = wilson(round(row.value * row.n), row.n) if is_share and row.n else None
    return PublishedComparison(
        source=source.source,
        label=label,
        metric=row.metric,
        published=row.value,
        sampling=sampling,
        ours=ours,
        low=low,
        high=high,
        verdict=_verdict(row.value, ours, interval, sampling if row.n and row.n < images else None),
        printed=row.printed,
        note="; ".join(part for part in (row.derived and f"not printed: {row.derived}", row.note) if part),
    )


def _verdict(
    published: float, ours: Estimate | None, expected: tuple[float, float] | None, few: Proportion | None
) -> PublishedVerdict:
    """Return the verdict; `few` is the sampling interval of a published share that rests on fewer images than ours.

    On as many images as ours the two are taken for the same images, whose sampling error both share.
    """
    if ours is None:
        return "no counterpart"
    if expected is None:
        return "one repeat"
    low, high = expected
    if low <= published <= high:
        return "consistent"
    if few is not None and few.low <= high and few.high >= low:
        return "few images"
    return "ours higher" if published < low else "ours lower"


def implied_numbers(study_published: Sequence[Published], doubts: Sequence[Inconsistency] = ()) -> tuple[ImpliedN, ...]:
    """Return the sources whose shares, metric by metric, look like fractions of few images.

    A stated n of more than `MOST_IMAGES` is believed; F1 averaged over classes is no fraction of images. Rows of which
    another rule `doubts` that they are what they claim to be do not count.
    """
    found: list[ImpliedN] = []
    doubted = {(doubt.table, doubt.row) for doubt in doubts if doubt.kind != "no-fraction"}
    for table, source in enumerate(study_published):
        for metric in dict.fromkeys(row.metric for row in source.rows if metric_of(row.metric).of_images):
            rows = [
                row
                for at, row in enumerate(source.rows)
                if row.metric == metric and (row.n or 0) <= MOST_IMAGES and (table, at) not in doubted
            ]
            values = tuple(row.value for row in rows if 0 < row.value < 1)
            if implied := implied_n(values):
                n, chance = implied
                found.append(
                    ImpliedN(
                        source=source.source,
                        metric=metric,
                        n=n,
                        values=values,
                        fractions=tuple(f"{round(value * n)}/{n}" for value in values),
                        chance=chance,
                        stated=rows[0].n,
                    )
                )
    return tuple(found)


def agreement_findings(rows_of_all: Sequence[PublishedComparison]) -> Iterator[Finding]:
    """Say, source by source, which published numbers agree with ours."""
    for source in dict.fromkeys(row.source for row in rows_of_all):
        rows = [row for row in rows_of_all if row.source == source and row.ours is not None]
        if rows:
            yield _beside(source, rows)
        else:
            yield Finding(
                rule="published",
                sentence=f"No number of {source} has a counterpart among our results yet.",
                evidence="None of its conditions has a done repeat here.",
            )


UNJUDGED: tuple[tuple[PublishedVerdict, str, str], ...] = (
    (
        "one repeat",
        "stands beside a single repeat of ours, too few to judge",
        "stand beside a single repeat of ours, too few to judge",
    ),
    ("few images", "rests on too few images to judge", "rest on too few images to judge"),
    ("other protocol", "stands beside other settings of ours", "stand beside other settings of ours"),
    ("in doubt", "cannot be what it claims to be", "cannot be what they claim to be"),
)
"""What is said of one number, and of several, that cannot be held against ours."""


def _beside(source: str, rows: Sequence[PublishedComparison]) -> Finding:
    off = [row for row in rows if row.verdict in ("ours higher", "ours lower")]
    verdicts = Counter(row.verdict for row in rows)
    total, about = count(len(rows), "published number"), tuple(dict.fromkeys(row.label for row in rows))
    worst = f"Largest difference: {_worst_words(max(rows, key=lambda row: abs(row.difference or 0.0)))}"
    if verdicts["other protocol"] == len(rows):
        departed = listing(sorted({departure for row in rows for departure in row.departs}), most=4)
        return Finding(
            rule="published",
            sentence=f"{source}: none of {total} can be judged by ours, which were trained by another protocol.",
            evidence=f"{departed}. {worst}",
            about=about,
        )
    sentence = f"{source}: {verdicts['consistent']} of {total} lie where one more repeat of ours could fall"
    if off:
        sentence += f"; {listing([_off_words(row) for row in off], most=4)}"
    for verdict, one, several in UNJUDGED:
        if n := verdicts[verdict]:
            sentence += f"; {count(n, 'number')} {one if n == 1 else several}"
    return Finding(
        rule="published", tone="warning" if off else "note", sentence=f"{sentence}.", evidence=worst, about=about
    )


def _off_words(row: PublishedComparison) -> str:
    higher = "higher" if row.verdict == "ours higher" else "lower"
    return (
        f"our {metric_words(row.metric)} of {quoted(row.label)} is {amount(row.metric, row.difference or 0.0)} {higher}"
    )


def _worst_words(row: PublishedComparison) -> str:
    assert row.ours is not None
    words = f"{quoted(row.label)}, {metric_words(row.metric)}, published {measured(row.metric, row.published)}, ours "
    words += measured(row.metric, row.ours.mean)
    if row.low is None or row.high is None:
        return f"{words} from one repeat."
    return f"{words}; one more repeat of ours would fall within {span(row.metric, row.low, row.high)} (95 %)."


def implied_findings(implied: Sequence[ImpliedN]) -> list[Finding]:
    """Say when published shares look like fractions of a handful of images."""
    return [
        Finding(
            rule="implied-n",
            tone="warning",
            sentence=f"{row.source}: its values of {metric_words(row.metric)} look like fractions of only "
            f"{row.n} images.",
            evidence=f"{_fractions(row)}{_stated(row)}; random numbers with these digits would fit so small an n in "
            f"{100 * row.chance:.2g} % of cases at most. One image more or less moves such a share by "
            f"{amount('accuracy', 1 / row.n)}.",
        )
        for row in implied
    ]


def _stated(row: ImpliedN) -> str:
    if row.stated is None:
        return ""
    return " (as the study file notes)" if row.stated == row.n else f" (the study file notes {row.stated:,} images)"


def _fractions(row: ImpliedN) -> str:
    return listing([f"{number(value)} = {text}" for value, text in zip(row.values, row.fractions, strict=True)])


def tie_findings(ties: Sequence[PublishedTie]) -> list[Finding]:
    """Say which published conditions are not told apart by the images behind them."""
    return [
        Finding(
            rule="published-ties",
            sentence=f"{row.source}: {row.n:,} images do not tell {names(row.tied)} from the best "
            f"{metric_words(row.metric)}, that of {quoted(row.best)}.",
            evidence=f"Shares of {row.n:,} images each differ by chance by up to {amount('accuracy', row.margin)} "
            "(95 %, taken as separate samples; predictions of the same images tell more); random seeds add to it.",
            about=(row.best, *row.tied),
        )
        for row in ties
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTie:
    """The best published value of a metric over n images, and the conditions that so few images cannot tell from it.

    Two shares of n images are told apart when they differ by more than 1.96 standard errors of their difference,
    sqrt((p (1 - p) + q (1 - q)) / n); `margin` is the greatest such bound among the tied ones.
    """

    source: str
    metric: str
    n: int
    best: str
    tied: tuple[str, ...]
    margin: float


def published_ties(published: Sequence[Published]) -> tuple[PublishedTie, ...]:
    """Return, for each source and metric with a stated n, the best value and those not told from it by n images."""
    ties: list[PublishedTie] = []
    for source in published:
        for metric in dict.fromkeys(row.metric for row in source.rows if row.metric.endswith(".accuracy")):
            rows = [row for row in source.rows if row.metric == metric and row.n and 0 <= row.value <= 1]
            if len({row.n for row in rows}) == 1:
                best = max(rows, key=lambda row: row.value)
                bounds = [(row, sampling_margin(best, row)) for row in rows if row is not best]
                tied = [(row, bound) for row, bound in bounds if best.value - row.value <= bound]
                if tied:
                    ties.append(
                        PublishedTie(
                            source=source.source,
                            metric=metric,
                            n=best.n or 0,
                            best=condition_words(best),
                            tied=tuple(condition_words(row) for row, _ in tied),
                            margin=max(bound for _, bound in tied),
                        )
                    )
    return tuple(ties)


def sampling_margin(first: PublishedRow, second: PublishedRow) -> float:
    """Return 1.96 standard errors of the difference of two shares of n images, sqrt((p (1 - p) + q (1 - q)) / n)."""
    spread = first.value * (1 - first.value) + second.value * (1 - second.value)
    return 1.959964 * math.sqrt(spread / (first.n or 1))
