"""Rules about trust: what is missing, what failed, how often test was read, what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchkit.analysis.coverage import coverage_words
from benchkit.analysis.findings import Evidence, Finding
from benchkit.analysis.wording import count, listing, measured, names, quoted


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


def micro_f1(evidence: Evidence) -> Sequence[Finding]:
    """Say when a micro F1 of ours differs from the accuracy, which would be a fault."""
    findings = []
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
