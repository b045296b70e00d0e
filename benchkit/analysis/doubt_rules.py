"""Rules about published numbers that cannot be what they claim to be."""

from __future__ import annotations

from collections.abc import Sequence

from benchkit.analysis.findings import Evidence, Finding
from benchkit.analysis.published_doubts import Doubt, Kind, doubled_softmax_loss
from benchkit.analysis.wording import count, listing, measured, metric_words, number, quoted


def micro_f1(evidence: Evidence) -> Sequence[Finding]:
    """Say when a published micro F1 differs from the accuracy beside it, and whether two columns look exchanged."""
    return [
        Finding(
            rule="micro-f1",
            tone="warning",
            sentence=f"{row.source}: the {metric_words(row.metric)} of {quoted(row.label)}, "
            f"{measured('micro_f1', row.value)}, differs from its accuracy, {measured('accuracy', row.beside or 0.0)}. "
            f"With one label an image the two are equal{_exchanged(row)}.",
            evidence="Micro F1 counts every wrong image once as false positive and once as false negative.",
            about=(row.label,),
        )
        for row in evidence.doubts
        if row.kind == "micro-f1"
    ]


def _exchanged(row: Doubt) -> str:
    return "; here macro F1 is the one that equals it, so the two columns look exchanged" if row.exchanged else ""


def no_fraction(evidence: Evidence) -> Sequence[Finding]:
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
        for source, rows in _by_source(evidence, "no-fraction")
    ]


def _share(row: Doubt) -> str:
    return f"the {metric_words(row.metric)} of {quoted(row.label)} ({measured(row.metric, row.value)}, n = {row.n:,})"


def loss_bound(evidence: Evidence) -> Sequence[Finding]:
    """Say which published losses are lower than any mean loss at the accuracy beside them."""
    findings = []
    for source, rows in _by_source(evidence, "loss-bound"):
        divided = [row for row in rows if row.times is not None]
        again = f" Times the batch size they could be: {listing([_times(row) for row in divided])}." if divided else ""
        why = "; they look divided by the batch size once too often" if len(divided) == len(rows) else ""
        findings.append(
            Finding(
                rule="loss-bound",
                tone="warning",
                sentence=f"{source}: {count(len(rows), 'loss', 'losses')} cannot be a mean over images at the accuracy "
                f"beside {'it' if len(rows) == 1 else 'them'}{why}.",
                evidence="A wrongly named image costs at least ln 2 nats, so the mean is at least (1 - accuracy) ln 2: "
                f"{listing([_bounded(row) for row in rows])}.{again}",
                about=tuple(dict.fromkeys(row.label for row in rows)),
            )
        )
    return findings


def _bounded(row: Doubt) -> str:
    return (
        f"{quoted(row.label)}, {metric_words(row.metric)} {number(row.value)} at "
        f"{measured('accuracy', row.beside or 0.0)}, bound {number(row.bound)}"
    )


def _times(row: Doubt) -> str:
    return f"{number(row.value)} x {row.batch_size} = {number(row.times)}"


def softmax_twice(evidence: Evidence) -> Sequence[Finding]:
    """Say which published losses are those of a cross-entropy with a softmax before it."""
    return [_softmax_twice(source, rows) for source, rows in _by_source(evidence, "softmax-twice")]


def _softmax_twice(source: str, rows: Sequence[Doubt]) -> Finding:
    classes = rows[0].n or 0
    floor = number(doubled_softmax_loss(1.0, classes), 5)
    parts = [
        f"{quoted(row.label)}, {metric_words(row.metric)} {number(row.value, 5)} at "
        f"{measured('accuracy', row.beside or 0.0)}, expected {number(row.bound, 5)}"
        for row in rows
    ]
    return Finding(
        rule="softmax-twice",
        tone="warning",
        sentence=f"{source}: its losses look as if a softmax stood before the cross-entropy, which then cannot "
        f"fall below {floor} nats; they do not compare with ours.",
        evidence=f"With {classes} classes such a loss is at least ln(e + {classes - 1}) - 1 = {floor}, "
        f"and ln(e + {classes - 1}) - accuracy where the model is sure: {listing(parts)}.",
        about=tuple(dict.fromkeys(row.label for row in rows)),
    )


def _by_source(evidence: Evidence, kind: Kind) -> list[tuple[str, list[Doubt]]]:
    rows = [row for row in evidence.doubts if row.kind == kind]
    return [(source, [row for row in rows if row.source == source]) for source in dict.fromkeys(r.source for r in rows)]


def class_count(evidence: Evidence) -> Sequence[Finding]:
    """Say which source states another number of classes than the data set has."""
    return [
        Finding(
            rule="class-count",
            tone="warning",
            sentence=f"{row.source}: it speaks of {row.stated:,} classes, and the data set has {row.ours:,}.",
            evidence=f"An untrained network's loss is near ln {row.ours:,} = {number(row.chance_loss)} with "
            f"{row.ours:,} classes and near ln {row.stated:,} = {number(row.stated_loss)} with {row.stated:,}.",
        )
        for row in evidence.class_counts
    ]
