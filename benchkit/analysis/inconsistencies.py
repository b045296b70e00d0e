"""Published numbers that cannot be what they claim to be, by those that stand beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Literal

from benchkit.analysis.wording import Finding, count, listing, measured, metric_words, number, quoted
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
class Inconsistency:
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


def inconsistencies(results: StudyResults) -> tuple[Inconsistency, ...]:
    """Return every published number that cannot be what it claims to be, in the study's order."""
    return tuple(
        doubt
        for table, source in enumerate(results.study.published)
        for row, published in enumerate(source.rows)
        for doubt in _doubts(results, source, published, (table, row))
    )


def _doubts(
    results: StudyResults, source: Published, row: PublishedRow, at: tuple[int, int]
) -> Iterator[Inconsistency]:
    doubt = partial(
        Inconsistency,
        table=at[0],
        row=at[1],
        source=source.source,
        label=condition_words(row),
        metric=row.metric,
        value=row.value,
    )
    beside, name = _beside(source, row, "accuracy"), row.metric.rpartition(".")[2]
    if beside is not None and name == "loss":
        accuracy, classes = beside.value, len(results.class_names)
        least = least_loss(accuracy)
        if row.value < least - 10.0 ** -digits_of(row.value):
            batch_size = _batch_size(results, row)
            times = row.value * batch_size if batch_size else None
            fits = times if times is not None and times >= least else None
            yield doubt(kind="loss-bound", beside=accuracy, bound=least, times=fits, batch_size=batch_size, n=row.n)
        if classes > 1 and 0 < accuracy < 1:
            doubled = doubled_softmax_loss(accuracy, classes)
            high = TOO_HIGH * calibrated_loss(accuracy, classes)
            if abs(row.value - doubled) <= MOST_OFF and row.value > high:
                yield doubt(kind="softmax-twice", beside=accuracy, bound=doubled, n=classes)
    if beside is not None and name == "micro_f1" and not same_share(row.value, beside.value):
        macro = _beside(source, row, "macro_f1")
        exchanged = macro is not None and same_share(macro.value, beside.value)
        yield doubt(kind="micro-f1", beside=beside.value, exchanged=exchanged, n=row.n)
    elif _no_fraction(row):
        yield doubt(kind="no-fraction", n=row.n)


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


def same_share(first: float, second: float) -> bool:
    """Return whether two shares agree in the digits that both were written with."""
    digits = min(digits_of(first), digits_of(second))
    return abs(first - second) <= 1.01 * 10.0**-digits


def _no_fraction(row: PublishedRow) -> bool:
    """Return whether a share of n images is no k/n, where its digits are fine enough to tell."""
    if row.n is None or not metric_of(row.metric).of_images or not 0 <= row.value <= 1:
        return False
    return row.n < 10 ** digits_of(row.value) / 2 and not is_fraction(row.value, row.n)


def class_counts(results: StudyResults) -> tuple[ClassCount, ...]:
    """Return the sources that state a number of classes which the data set does not have."""
    ours = len(results.class_names)
    return tuple(
        ClassCount(source=source.source, stated=source.classes, ours=ours)
        for source in results.study.published
        if source.classes is not None and ours and source.classes != ours
    )


def inconsistency_findings(doubts: Sequence[Inconsistency]) -> list[Finding]:
    """Say which numbers cannot be: shares that are no fractions, micro F1 beside accuracy, impossible losses."""
    rules = (no_fraction_findings, micro_f1_findings, loss_bound_findings, doubled_softmax_findings)
    return [finding for rule in rules for finding in rule(doubts)]


def micro_f1_findings(doubts: Sequence[Inconsistency]) -> list[Finding]:
    """Say when a published micro F1 differs from the accuracy beside it, and whether two columns look exchanged."""
    return [
        Finding(
            rule="micro-f1",
            tone="warning",
            sentence=f"{row.source}: the {metric_words(row.metric)} of {quoted(row.label)}, "
            f"{measured('micro_f1', row.value)}, differs from its accuracy, {measured('accuracy', row.beside or 0.0)}. "
            f"With one label an image the two are equal{EXCHANGED if row.exchanged else ''}.",
            evidence="Micro F1 counts every wrong image once as false positive and once as false negative.",
            about=(row.label,),
        )
        for row in doubts
        if row.kind == "micro-f1"
    ]


EXCHANGED = "; here macro F1 is the one that equals it, so the two columns look exchanged"


def no_fraction_findings(doubts: Sequence[Inconsistency]) -> list[Finding]:
    """Say which published shares are no k of n for the n that they are said to rest on."""
    return [
        Finding(
            rule="no-fraction",
            tone="warning",
            sentence=f"{source}: {listing([_share(row) for row in rows])} {'is' if len(rows) == 1 else 'are'} no "
            "fraction of the images stated.",
            evidence="A share of n images is some k/n to the digits it is printed with, rounded or cut off.",
            about=tuple(dict.fromkeys(row.label for row in rows)),
        )
        for source, rows in _by_source(doubts, "no-fraction")
    ]


def _share(row: Inconsistency) -> str:
    return f"the {metric_words(row.metric)} of {quoted(row.label)} ({measured(row.metric, row.value)}, n = {row.n:,})"


def loss_bound_findings(doubts: Sequence[Inconsistency]) -> list[Finding]:
    """Say which published losses are lower than any mean loss at the accuracy beside them."""
    findings = []
    for source, rows in _by_source(doubts, "loss-bound"):
        divided = [row for row in rows if row.times is not None]
        products = [f"{number(row.value)} x {row.batch_size} = {number(row.times)}" for row in divided]
        again = f" Times the batch size they could be: {listing(products)}." if divided else ""
        why = "; they look divided by the batch size once too often" if len(divided) == len(rows) else ""
        findings.append(
            Finding(
                rule="loss-bound",
                tone="warning",
                sentence=f"{source}: {count(len(rows), 'loss', 'losses')} cannot be a mean over images at the accuracy "
                f"beside {'it' if len(rows) == 1 else 'them'}{why}.",
                evidence="A wrongly named image costs at least ln 2 nats, so the mean is at least (1 - accuracy) ln 2: "
                f"{listing([f'{_beside_words(row, 4)}, bound {number(row.bound)}' for row in rows])}.{again}",
                about=tuple(dict.fromkeys(row.label for row in rows)),
            )
        )
    return findings


def _beside_words(row: Inconsistency, digits: int) -> str:
    """Return a loss with the accuracy beside it, in words."""
    loss = f"{quoted(row.label)}, {metric_words(row.metric)} {number(row.value, digits)}"
    return f"{loss} at {measured('accuracy', row.beside or 0.0)}"


def doubled_softmax_findings(doubts: Sequence[Inconsistency]) -> list[Finding]:
    """Say which published losses are those of a cross-entropy with a softmax before it."""
    findings = []
    for source, rows in _by_source(doubts, "softmax-twice"):
        classes = rows[0].n or 0
        floor = number(doubled_softmax_loss(1.0, classes), 5)
        parts = [f"{_beside_words(row, 5)}, expected {number(row.bound, 5)}" for row in rows]
        findings.append(
            Finding(
                rule="softmax-twice",
                tone="warning",
                sentence=f"{source}: its losses look as if a softmax stood before the cross-entropy, which then cannot "
                f"fall below {floor} nats; they do not compare with ours.",
                evidence=f"With {classes} classes such a loss is at least ln(e + {classes - 1}) - 1 = {floor}, "
                f"and ln(e + {classes - 1}) - accuracy where the model is sure: {listing(parts)}.",
                about=tuple(dict.fromkeys(row.label for row in rows)),
            )
        )
    return findings


def _by_source(doubts: Sequence[Inconsistency], kind: Kind) -> list[tuple[str, list[Inconsistency]]]:
    rows = [row for row in doubts if row.kind == kind]
    return [(source, [row for row in rows if row.source == source]) for source in dict.fromkeys(r.source for r in rows)]


def class_count_findings(counts: Sequence[ClassCount]) -> list[Finding]:
    """Say which source states another number of classes than the data set has."""
    return [
        Finding(
            rule="class-count",
            tone="warning",
            sentence=f"{row.source}: it speaks of {row.stated:,} classes, and the data set has {row.ours:,}.",
            evidence=f"An untrained network's loss is near ln {row.ours:,} = {number(math.log(row.ours))} with "
            f"{row.ours:,} classes and near ln {row.stated:,} = {number(math.log(row.stated))} with {row.stated:,}.",
        )
        for row in counts
    ]


def digits_of(value: float) -> int:
    """Return how many decimals a number was written with, at most 12: beyond that floats differ by rounding."""
    exponent = Decimal(repr(value)).as_tuple().exponent
    return min(12, max(0, -exponent)) if isinstance(exponent, int) else 0


def is_fraction(value: float, n: int) -> bool:
    """Return whether a printed value is some k/n, rounded to its digits or cut off after them."""
    unit = 10.0 ** -digits_of(value)
    nearest = round(value * n)
    return any(-0.5000001 * unit <= k / n - value < 0.9999999 * unit for k in (nearest - 1, nearest, nearest + 1))
