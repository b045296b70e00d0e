"""Published numbers that cannot be what they claim to be: what follows from a number and those that stand beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchkit.analysis.fractions import digits_of, is_fraction
from benchkit.metrics import metric_of
from benchkit.results import StudyResults
from benchkit.study import Published, PublishedRow

MOST_OFF = 0.02
"""By how many nats a loss may miss the one of a doubled softmax; probabilities are never quite 0 and 1."""

TOO_HIGH = 1.5
"""How many times the loss of a calibrated model counts as too high for the accuracy beside it."""

Kind = Literal["softmax-twice", "loss-bound", "micro-f1", "no-fraction"]

WHY: Mapping[Kind, str] = {
    "softmax-twice": "a softmax stood before its cross-entropy",
    "loss-bound": "no mean loss can be so low at the accuracy beside it",
    "micro-f1": "with one label an image it equals the accuracy, and here it does not",
    "no-fraction": "it is no fraction of the images it is said to rest on",
}
"""Why a number in doubt cannot be compared with ours, by the kind of doubt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A published number that cannot be: `table` and `row` are its places in the study, from 0.

    `beside` is the accuracy of the same condition and split, None for a share that is no fraction. `bound` is the loss
    of a doubled softmax at that accuracy, or the least loss at it. `n` are the images or, for a doubled softmax, the
    classes. `times` is the loss multiplied by the batch size where that lifts it above the bound. `exchanged` says that
    the macro F1 equals the accuracy instead, so that two columns look exchanged.
    """

    kind: Kind
    table: int
    row: int
    source: str
    label: str
    metric: str
    value: float
    beside: float | None = None
    bound: float | None = None
    times: float | None = None
    batch_size: int | None = None
    n: int | None = None
    exchanged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCount:
    """A source that states another number of classes than the data set has."""

    source: str
    stated: int
    ours: int

    @property
    def chance_loss(self) -> float:
        """Return the loss in nats of a model that knows nothing, with the data set's classes: ln K."""
        return math.log(self.ours)

    @property
    def stated_loss(self) -> float:
        """Return the same with the stated number of classes."""
        return math.log(self.stated)


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


def published_doubts(results: StudyResults) -> tuple[Doubt, ...]:
    """Return every published number that cannot be what it claims to be, in the study's order."""
    classes = len(results.class_names)
    found: list[Doubt] = []
    for table, source in enumerate(results.study.published):
        for row, one in enumerate(source.rows):
            place, beside = (table, row), _beside(source, one, "accuracy")
            if one.metric.endswith(".loss") and beside is not None:
                found += _low_loss(_doubt("loss-bound", place, source, one), beside.value, _batch_size(results, one))
                found += _doubled(_doubt("softmax-twice", place, source, one), beside.value, classes)
            if one.metric.endswith(".micro_f1") and beside is not None and not same_share(one.value, beside.value):
                found.append(_micro(_doubt("micro-f1", place, source, one), source, one, beside))
            elif _no_fraction(one):
                found.append(_doubt("no-fraction", place, source, one))
    return tuple(found)


def _doubt(kind: Kind, place: tuple[int, int], source: Published, one: PublishedRow) -> Doubt:
    return Doubt(
        kind=kind,
        table=place[0],
        row=place[1],
        source=source.source,
        label=condition_words(one),
        metric=one.metric,
        value=one.value,
        n=one.n,
    )


def condition_words(row: PublishedRow) -> str:
    """Return the levels that a published row belongs to as a phrase, or `the study` for none."""
    return ", ".join(row.when.values()) or "the study"


def _beside(source: Published, row: PublishedRow, name: str) -> PublishedRow | None:
    """Return the row of the same condition and split with another metric, or None."""
    wanted = f"{row.metric.partition('.')[0]}.{name}"
    return next((other for other in source.rows if other.metric == wanted and other.when == row.when), None)


def _batch_size(results: StudyResults, row: PublishedRow) -> int | None:
    own = results.study.settings.get("train", {}).get("batch_size")
    stated = row.when.get("train.batch_size", own)
    return int(stated) if str(stated).isdigit() else None


def _low_loss(doubt: Doubt, accuracy: float, batch_size: int | None) -> Iterator[Doubt]:
    least = least_loss(accuracy)
    if doubt.value < least - 10.0 ** -digits_of(doubt.value):
        times = doubt.value * batch_size if batch_size else None
        fits = times if times is not None and times >= least else None
        yield replace(doubt, beside=accuracy, bound=least, times=fits, batch_size=batch_size)


def _doubled(doubt: Doubt, accuracy: float, classes: int) -> Iterator[Doubt]:
    if classes > 1 and 0 < accuracy < 1:
        doubled = doubled_softmax_loss(accuracy, classes)
        high = TOO_HIGH * calibrated_loss(accuracy, classes)
        if abs(doubt.value - doubled) <= MOST_OFF and doubt.value > high:
            yield replace(doubt, beside=accuracy, bound=doubled, n=classes)


def least_loss(accuracy: float) -> float:
    """Return the least mean cross-entropy in nats at an accuracy: (1 - accuracy) ln 2.

    A wrongly named image has a class more probable than its own, so its own has at most one half: at least ln 2.
    """
    return (1 - accuracy) * math.log(2)


def doubled_softmax_loss(accuracy: float, classes: int) -> float:
    """Return the cross-entropy of sure predictions when a softmax stands before it: ln(e + K - 1) - accuracy.

    Probabilities 1 and 0 are then taken for logits: a right image costs ln(e + K - 1) - 1, a wrong one ln(e + K - 1).
    """
    return math.log(math.e + classes - 1) - accuracy


def calibrated_loss(accuracy: float, classes: int) -> float:
    """Return the greatest mean loss of a calibrated model of this accuracy, by Fano's inequality (Fano 1961).

    -a ln a - (1 - a) ln((1 - a) / (K - 1)): errors spread evenly over the other classes.
    """
    wrong = 1 - accuracy
    return -accuracy * math.log(accuracy) - wrong * math.log(wrong / (classes - 1))


def _micro(doubt: Doubt, source: Published, one: PublishedRow, beside: PublishedRow) -> Doubt:
    macro = _beside(source, one, "macro_f1")
    exchanged = macro is not None and same_share(macro.value, beside.value)
    return replace(doubt, beside=beside.value, exchanged=exchanged)


def same_share(first: float, second: float) -> bool:
    """Return whether two shares agree in the digits that both were written with."""
    digits = min(digits_of(first), digits_of(second))
    return abs(first - second) <= 1.01 * 10.0**-digits


def _no_fraction(one: PublishedRow) -> bool:
    """Return whether a share of n images is no k/n, where its digits are fine enough to tell."""
    if one.n is None or not metric_of(one.metric).of_images or not 0 <= one.value <= 1:
        return False
    return one.n < 10 ** digits_of(one.value) / 2 and not is_fraction(one.value, one.n)


def class_counts(results: StudyResults) -> tuple[ClassCount, ...]:
    """Return the sources that state a number of classes which the data set does not have."""
    ours = len(results.class_names)
    return tuple(
        ClassCount(source=source.source, stated=source.classes, ours=ours)
        for source in results.study.published
        if source.classes is not None and ours and source.classes != ours
    )


def published_ties(published: Sequence[Published]) -> tuple[PublishedTie, ...]:
    """Return, for each source and metric with a stated n, the best value and those not told from it by n images."""
    found: list[PublishedTie] = []
    for source in published:
        for metric in dict.fromkeys(row.metric for row in source.rows if row.metric.endswith(".accuracy")):
            rows = [row for row in source.rows if row.metric == metric and row.n and 0 <= row.value <= 1]
            if len(rows) > 1 and len({row.n for row in rows}) == 1:
                found += _tie(source.source, metric, rows)
    return tuple(found)


def _tie(source: str, metric: str, rows: Sequence[PublishedRow]) -> Iterator[PublishedTie]:
    best = max(rows, key=lambda row: row.value)
    bounds = [(row, _margin(best, row)) for row in rows if row is not best]
    tied = [(row, bound) for row, bound in bounds if best.value - row.value <= bound]
    if tied:
        yield PublishedTie(
            source=source,
            metric=metric,
            n=best.n or 0,
            best=condition_words(best),
            tied=tuple(condition_words(row) for row, _ in tied),
            margin=max(bound for _, bound in tied),
        )


def _margin(first: PublishedRow, second: PublishedRow) -> float:
    spread = first.value * (1 - first.value) + second.value * (1 - second.value)
    return 1.959964 * math.sqrt(spread / (first.n or 1))
