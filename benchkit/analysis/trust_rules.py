"""Rules about trust: what is missing, what failed, how often test was read, and what published numbers cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchkit.analysis.coverage import coverage_words
from benchkit.analysis.findings import Evidence, Finding
from benchkit.analysis.published import ImpliedN, PublishedComparison
from benchkit.analysis.wording import amount, count, listing, measured, metric_words, names, number, quoted, span


def smoke(evidence: Evidence) -> Sequence[Finding]:
    """Say that a smoke run's numbers answer nothing."""
    if not evidence.smoke:
        return []
    return [
        Finding(
            rule="smoke",
            tone="warning",
            sentence="This is a smoke run: a tiny version of the study on other data, made to try the machinery "
            "out. Its "
            "numbers answer nothing.",
            evidence="The study was run with --smoke.",
        )
    ]


def missing(evidence: Evidence) -> Sequence[Finding]:
    """Say what was planned and has no result."""
    rows = [row for row in evidence.coverage if not row.complete]
    if not rows:
        return []
    parts = [f"{quoted(row.label)} {_states(row.states, row.missing)}" for row in rows]
    return [
        Finding(
            rule="unfinished",
            tone="warning",
            sentence=f"The study is not complete: {coverage_words(evidence.coverage)}, and "
            f"{names([row.label for row in rows])} {'lacks' if len(rows) == 1 else 'lack'} some.",
            evidence=f"{listing(parts, most=10)}. Means are over the repeats that are done.",
            about=tuple(row.label for row in rows),
        )
    ]


def _states(states: Mapping[str, int], not_there: int) -> str:
    parts = [f"{n} {state}" for state, n in states.items() if n]
    return "(" + ", ".join([*parts, *([f"{not_there} not started"] if not_there else [])]) + ")"


def failed(evidence: Evidence) -> Sequence[Finding]:
    """Say which trials failed or lost their worker, with the first reason."""
    found = [trouble for trouble in evidence.troubles if trouble.state in ("failed", "stale")]
    if not found:
        return []
    retried = sum(trouble.retried for trouble in found)
    parts = [f"{trouble.words}: {trouble.reason or 'its worker is gone'}" for trouble in found]
    again = f"; {retried} of them ran again with success or are waiting to" if retried else ""
    return [
        Finding(
            rule="failed-trials",
            tone="warning",
            sentence=f"{count(len(found), 'trial')} failed or lost {'its' if len(found) == 1 else 'their'} "
            f"worker{again}.",
            evidence=f"{listing(parts, most=5)}.",
            about=tuple(dict.fromkeys(trouble.label for trouble in found)),
        )
    ]


def test_reads(evidence: Evidence) -> Sequence[Finding]:
    """Say when a trial read the test split more than once."""
    if not evidence.reads.repeated:
        return []
    return [
        Finding(
            rule="test-reads",
            tone="warning",
            sentence=f"{count(evidence.reads.repeated, 'trial')} read the test split more than once.",
            evidence=f"{evidence.reads.reads} reads by {count(evidence.reads.trials, 'done trial')}; one each "
            f"was expected.",
        )
    ]


def left_out(evidence: Evidence) -> Sequence[Finding]:
    """Say which trials of the ledger belong to another version of the study and are in no number."""
    if not evidence.left_out:
        return []
    return [
        Finding(
            rule="left-out",
            tone="note",
            sentence="Trials of another version of this study are in the ledger; they are in no number of this report.",
            evidence=" ".join(evidence.left_out),
        )
    ]


def published(evidence: Evidence) -> Sequence[Finding]:
    """Say, source by source, which published numbers agree with ours."""
    findings = []
    for source in dict.fromkeys(row.source for row in evidence.published):
        rows = [row for row in evidence.published if row.source == source and row.ours is not None]
        if not rows:
            findings.append(_no_counterpart(source))
            continue
        off = [row for row in rows if row.verdict in ("ours higher", "ours lower")]
        single = [row for row in rows if row.verdict == "one repeat"]
        findings.append(_beside(source, rows, off, single))
    return findings


def _no_counterpart(source: str) -> Finding:
    return Finding(
        rule="published",
        tone="note",
        sentence=f"No number of {source} has a counterpart among our results yet.",
        evidence="None of its conditions has a done repeat here.",
    )


def _beside(
    source: str,
    rows: Sequence[PublishedComparison],
    off: Sequence[PublishedComparison],
    single: Sequence[PublishedComparison],
) -> Finding:
    agree = len(rows) - len(off) - len(single)
    sentence = (
        f"{source}: {agree} of {count(len(rows), 'published number')} lie where one more repeat of ours could fall"
    )
    if off:
        sentence += f"; {listing([_off_words(row) for row in off], most=4)}"
    if single:
        sentence += f"; {count(len(single), 'number')} stand beside a single repeat of ours, too few to judge"
    worst = max(rows, key=lambda row: abs(row.difference or 0.0))
    return Finding(
        rule="published",
        tone="warning" if off else "note",
        sentence=f"{sentence}.",
        evidence=f"Largest difference: {_worst_words(worst)}",
        about=tuple(dict.fromkeys(row.label for row in rows)),
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


def implied_n(evidence: Evidence) -> Sequence[Finding]:
    """Say when published shares look like fractions of a handful of images."""
    return [
        Finding(
            rule="implied-n",
            tone="warning",
            sentence=f"{row.source}: its values of {metric_words(row.metric)} look like fractions of only "
            f"{row.n} images.",
            evidence=f"{_fractions(row)}; random "
            f"numbers with these digits would fit so small an n in {100 * row.chance:.2g} % of cases at most. "
            f"One image "
            f"more or less moves such a share by {amount('accuracy', 1 / row.n)}.",
        )
        for row in evidence.implied
    ]


def _fractions(row: ImpliedN) -> str:
    return listing([f"{number(value)} = {text}" for value, text in zip(row.values, row.fractions, strict=True)])


def micro_f1(evidence: Evidence) -> Sequence[Finding]:
    """Say when a published micro F1 differs from the accuracy beside it, or one of ours does."""
    findings = [
        Finding(
            rule="micro-f1",
            tone="warning",
            sentence=f"{row.source}: the micro F1 of {row.label}, {measured('micro_f1', row.micro_f1)}, differs "
            f"from its "
            f"accuracy, {measured('accuracy', row.accuracy)}. With one label an image the two are equal.",
            evidence="Micro F1 counts every wrong image once as false positive and once as false negative.",
        )
        for row in evidence.micro
    ]
    for scores in evidence.scores:
        for split in ("train", "val", "test"):
            ours, beside = scores.metrics.get(f"{split}.micro_f1"), scores.metrics.get(f"{split}.accuracy")
            if ours and beside and abs(ours.mean - beside.mean) > 1e-6:
                findings.append(
                    Finding(
                        rule="micro-f1",
                        tone="warning",
                        sentence=f"{quoted(scores.label)}: the {split} micro F1 differs from the {split} accuracy, "
                        f"which cannot be.",
                        evidence=f"{measured('micro_f1', ours.mean)} against "
                        f"{measured('accuracy', beside.mean)}: a fault.",
                        about=(scores.label,),
                    )
                )
    return findings


def notes(evidence: Evidence) -> Sequence[Finding]:
    """Pass on what trials noted about themselves: fallbacks and oddities."""
    return [
        Finding(rule="trial-note", tone="note", sentence=note, evidence="Noted by trials.") for note in evidence.notes
    ]
