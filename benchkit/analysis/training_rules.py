"""Rules about training: over-fitting, divergence, unstable seeds, speed, the gap between train and validation."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchkit.analysis.estimates import Estimate
from benchkit.analysis.findings import Evidence, Finding
from benchkit.analysis.wording import (
    amount,
    count,
    duration,
    listing,
    measured,
    metric_words,
    names,
    number,
    quoted,
    span,
)

UNSTABLE = 3.0
"""How many times the median spread of the other conditions counts as unstable."""

WIDE_GAP = 0.05
"""From this difference between train and validation accuracy on, the gap is worth a sentence."""


def overfitting(evidence: Evidence) -> Sequence[Finding]:
    """Say in which conditions validation loss rises while training loss falls, and from which epoch on."""
    found = sorted(evidence.onsets, key=lambda onset: -onset.rise)
    if not found:
        return []
    parts = [
        f"{quoted(onset.label)} from epoch {onset.epoch:g} of {onset.epochs:g} (validation loss "
        f"+{100 * onset.rise:.0f} % by the last epoch, {onset.repeats} of {count(onset.of, 'repeat')})"
        for onset in found
    ]
    first = min(found, key=lambda onset: onset.epoch / onset.epochs)
    earliest = "" if len(found) == 1 else f" in {quoted(first.label)}, the earliest"
    return [
        Finding(
            rule="over-fitting",
            tone="note",
            sentence=f"{names([onset.label for onset in found])} over-{'fits' if len(found) == 1 else 'fit'}: "
            f"validation loss rises after epoch {first.epoch:g}{earliest}.",
            evidence=f"Least validation loss: {listing(parts, most=8)}.",
            about=tuple(onset.label for onset in found),
        )
    ]


def divergence(evidence: Evidence) -> Sequence[Finding]:
    """Say which trials ended in a non-finite loss."""
    found = [trouble for trouble in evidence.troubles if trouble.state == "diverged"]
    if not found:
        return []
    labels = list(dict.fromkeys(trouble.label for trouble in found))
    parts = [f"{trouble.words}, after epoch {trouble.epochs}" for trouble in found]
    return [
        Finding(
            rule="divergence",
            tone="warning",
            sentence=f"{count(len(found), 'trial')} diverged: {names(labels)}.",
            evidence=f"The loss became non-finite: {listing(parts)}. Their scores are in no mean.",
            about=tuple(labels),
        )
    ]


def unstable(evidence: Evidence) -> Sequence[Finding]:
    """Say which conditions spread over repeats far more than the others do."""
    spreads = [(row.label, row.estimate) for row in evidence.ranking.rows if row.estimate.n >= 3 and row.estimate.std]
    findings = []
    for label, repeats in spreads:
        others = [other.std for name, other in spreads if name != label and other.std is not None]
        usual = median(others) if len(others) >= 2 else None
        if usual and repeats.std is not None and repeats.std > UNSTABLE * usual:
            findings.append(
                Finding(
                    rule="unstable-seeds",
                    tone="warning",
                    sentence=f"{quoted(label)} depends on the random seed: its repeats lie between "
                    f"{span(evidence.metric, min(repeats.values), max(repeats.values))}.",
                    evidence=f"Standard deviation over {count(repeats.n, 'repeat')}: "
                    f"{amount(evidence.metric, repeats.std)}, "
                    f"{number(repeats.std / usual, 2)} times the median of the other conditions.",
                    about=(label,),
                )
            )
    return findings


def fastest(evidence: Evidence) -> Sequence[Finding]:
    """Say which condition reaches a stated validation accuracy first, in seconds of training."""
    race = evidence.race
    if race is None:
        return []
    complete = [arrival for arrival in race.arrivals if arrival.seconds is not None and arrival.repeats == arrival.of]
    if len(race.arrivals) < 2 or not complete:
        return []
    first = complete[0]
    rest = [arrival for arrival in race.arrivals if arrival is not first]
    parts = [
        f"{quoted(arrival.label)} {duration(arrival.seconds)}"
        + ("" if arrival.repeats == arrival.of else " (not every repeat)")
        if arrival.seconds is not None
        else f"{quoted(arrival.label)} never"
        for arrival in rest
    ]
    assert first.seconds is not None and first.epochs is not None
    return [
        Finding(
            rule="fastest",
            tone="note",
            sentence=f"{quoted(first.label)} is the fastest to a validation accuracy of "
            f"{measured('val.accuracy', race.accuracy)}: "
            f"{duration(first.seconds)} of training, {_epochs(first.epochs)}.",
            evidence=f"Means over repeats that reach it; the others: {listing(parts, most=8)}. Times compare "
            f"only on one "
            "device.",
            about=(first.label,),
        )
    ]


def _epochs(mean: float) -> str:
    """Return a mean number of epochs: 1 epoch, 4.33 epochs."""
    return f"{number(mean, 3)} {'epoch' if mean == 1 else 'epochs'}"


def gap(evidence: Evidence) -> Sequence[Finding]:
    """Say which condition loses most between train and validation images."""
    rows = sorted(evidence.gaps, key=lambda row: -row.difference.mean)
    if not rows or rows[0].difference.mean < WIDE_GAP:
        return []
    widest, least = rows[0], rows[-1]
    other = (
        f"; the narrowest gap is {amount('val.accuracy', least.difference.mean)}, {quoted(least.label)}"
        if len(rows) > 1
        else ""
    )
    return [
        Finding(
            rule="train-val-gap",
            tone="note",
            sentence=f"{quoted(widest.label)} has the widest gap between train and validation accuracy, "
            f"{amount('val.accuracy', widest.difference.mean)}{other}.",
            evidence=f"Scored by the same weights without augmentation, mean over "
            f"{count(widest.difference.n, 'repeat')}.",
            about=(widest.label,),
        )
    ]


def weak_classes(evidence: Evidence) -> Sequence[Finding]:
    """Say which class the best condition finds hardest, and its most frequent confusion."""
    report = evidence.classes
    if report is None or report.weakest is None or len(report.names) < 3 or not report.confusions:
        return []
    name, recall = report.weakest
    worst = report.confusions[0]
    parts = [f"{quoted(c.true)} taken for {quoted(c.called)} {c.count} of {c.of} times" for c in report.confusions]
    return [
        Finding(
            rule="weak-classes",
            tone="note",
            sentence=f"{quoted(report.label)} finds {quoted(name)} hardest, {measured('accuracy', recall)} of "
            f"its images right; "
            f"its most frequent confusion is {quoted(worst.true)} taken for {quoted(worst.called)}.",
            evidence=f"{report.split.capitalize()} images, summed over {count(report.repeats, 'repeat')}: "
            f"{listing(parts)}.",
            about=(report.label,),
        )
    ]


def dead_filters(evidence: Evidence) -> Sequence[Finding]:
    """Say which condition has the greatest share of dead filters, and where they are."""
    rows = sorted(evidence.filters, key=lambda row: -row.share)
    if not rows or not rows[0].dead:
        return []
    most, least = rows[0], rows[-1]
    other = f"; the fewest has {quoted(least.label)}, {least.dead:,} of {least.filters:,}" if len(rows) > 1 else ""
    seen = "the inspected images" if most.images is None else count(most.images, "inspected test image")
    return [
        Finding(
            rule="dead-filters",
            tone="note",
            sentence=f"{quoted(most.label)} has the most dead filters, {most.dead:,} of {most.filters:,}{other}.",
            evidence=f"Zero at every pixel of {seen} after the nonlinearity, repeat {most.repeat} (n = 1); "
            f"the greatest share in {most.layer}, {most.layer_dead:,} of {most.layer_filters:,}. "
            "More images may wake some.",
            about=tuple(dict.fromkeys((most.label, least.label))),
        )
    ]


def cost_spread(evidence: Evidence) -> Sequence[Finding]:
    """Say how far training speed differs between conditions that ran on one device."""
    rows = sorted(evidence.costs, key=lambda row: -row.images_per_second.mean)
    devices = {device for row in rows for device in row.devices}
    if len(rows) < 2 or len(devices) != 1 or rows[-1].images_per_second.mean <= 0:
        return []
    fast, slow = rows[0].images_per_second, rows[-1].images_per_second
    ratio = fast.mean / slow.mean
    if ratio < 1.2:
        return []
    sentence = f"{quoted(rows[0].label)} trains {number(ratio, 2)} times as fast as {quoted(rows[-1].label)}."
    if fast.low is not None and slow.high is not None and fast.low <= slow.high:
        sentence = (
            "No condition can be called faster: training speed varies between repeats as much as between conditions, "
            "as on a machine that does other work too."
        )
    return [
        Finding(
            rule="speed",
            tone="note",
            sentence=sentence,
            evidence=f"{metric_words('cost.images_per_second').capitalize()}, mean over repeats on {devices.pop()}: "
            f"{_speed(rows[0].label, fast)}, {_speed(rows[-1].label, slow)}.",
            about=(rows[0].label, rows[-1].label),
        )
    ]


def _speed(label: str, speed: Estimate) -> str:
    words = f"{quoted(label)} {number(speed.mean)}"
    if speed.low is None or speed.high is None:
        return words
    return f"{words} (95 % t interval {number(speed.low)} to {number(speed.high)})"
