"""What was planned and what came of it: done, pruned, diverged, failed, stale, running, waiting and missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchkit.analysis.estimates import Scores, compared, done_trials, planned_trials, repeats_of, searched_conditions
from benchkit.analysis.wording import (
    Finding,
    count,
    listing,
    measured,
    names,
    quoted,
)
from benchkit.results import State, StudyResults, Trial

STATES: tuple[State, ...] = (
    "done", "pruned", "diverged", "failed", "missing files", "changed files", "files elsewhere",
    "stale", "running", "waiting",
)  # fmt: skip
BAD: tuple[State, ...] = ("diverged", "failed", "stale", "missing files", "changed files", "files elsewhere")


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """One condition's trials by state, each repeat counted once; `missing` are planned but not in the ledger."""

    key: str
    label: str
    stage: str
    planned: int
    states: Mapping[str, int]
    missing: int

    @property
    def done(self) -> int:
        """Return the number of done trials."""
        return self.states.get("done", 0)

    @property
    def settled(self) -> int:
        """Return how many trials have a result that counts: a repeat must be done, a search may also prune or fail."""
        return self.done if self.stage != "search" else sum(self.states.get(state, 0) for state in STATES[:4])

    @property
    def complete(self) -> bool:
        """Return whether every planned trial has a result that counts."""
        return self.missing == 0 and self.settled >= self.planned


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTrial:
    """A trial that did not end as done or pruned: what became of it, after how many epochs and seconds."""

    label: str
    stage: str
    index: int
    attempt: int
    state: State
    epochs: int
    seconds: float
    reason: str
    retried: bool

    @property
    def words(self) -> str:
        """Return which trial it is, in words."""
        which = f"trial {self.index + 1}" if self.stage == "search" else f"repeat {self.index}"
        return f"{quoted(self.label)}, {which}{f', attempt {self.attempt}' if self.attempt else ''}"


def coverage(results: StudyResults) -> tuple[Coverage, ...]:
    """Return the coverage of every condition, searches first as they ran first."""
    rows: list[Coverage] = []
    for condition in searched_conditions(results):
        counts = Counter[str](trial.state for trial in results.searched(condition))
        rows.append(_row(condition.key, condition.label, "search", planned_trials(results, condition), counts))
    for condition in compared(results):
        counts = Counter[str](trial.state for trial in repeats_of(results, condition).values())
        stage = "grid" if condition.kind == "grid" else "confirm"
        rows.append(_row(condition.key, condition.label, stage, planned_trials(results, condition), counts))
    return tuple(rows)


def _row(key: str, label: str, stage: str, planned: int, states: Mapping[str, int]) -> Coverage:
    missing = max(0, planned - sum(states.values()))
    return Coverage(key=key, label=label, stage=stage, planned=planned, states=dict(states), missing=missing)


def failed_trials(results: StudyResults) -> tuple[FailedTrial, ...]:
    """Return every trial that diverged, failed, went stale or lost its files, in the order they were started.

    Earlier attempts are among them, whatever came of the later ones.
    """
    counting = {
        (condition.key, index): trial
        for condition in compared(results)
        for index, trial in repeats_of(results, condition).items()
    }
    earlier = {(trial.condition.key, trial.number) for trial in results.earlier}
    bad = [trial for trial in (*results.trials, *results.earlier) if trial.state in BAD]
    return tuple(
        _failed_trial(
            trial,
            counting.get((trial.condition.key, trial.index)),
            earlier=(trial.condition.key, trial.number) in earlier,
        )
        for trial in sorted(bad, key=lambda trial: (trial.started, trial.number))
    )


def _failed_trial(trial: Trial, counting: Trial | None, *, earlier: bool) -> FailedTrial:
    overtaken = trial.phase != "search" and counting is not None and counting.attempt != trial.attempt
    return FailedTrial(
        label=trial.condition.label,
        stage=trial.phase,
        index=trial.index,
        attempt=trial.attempt,
        state=trial.state,
        epochs=len(trial.history),
        seconds=sum(record.seconds for record in trial.history),
        reason=trial.reason,
        retried=earlier or overtaken,
    )


def coverage_words(rows: Sequence[Coverage]) -> str:
    """Return how many planned trials have a result: `6 of 12 planned trials have a result`, or one `that counts`."""
    planned, settled = sum(row.planned for row in rows), sum(row.settled for row in rows)
    counts = " that counts" if sum(row.states.get(state, 0) for row in rows for state in STATES[:4]) > settled else ""
    return f"{settled} of {count(planned, 'planned trial')} {'has' if settled == 1 else 'have'} a result{counts}"


def smoke_findings(smoke: bool) -> list[Finding]:
    """Say that a smoke run's numbers answer nothing."""
    if not smoke:
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


def missing_findings(coverage: Sequence[Coverage]) -> list[Finding]:
    """Say what was planned and has no result."""
    rows = [row for row in coverage if not row.complete]
    if not rows:
        return []
    parts = [f"{quoted(row.label)} {_states(row.states, row.missing)}" for row in rows]
    return [
        Finding(
            rule="unfinished",
            tone="warning",
            sentence=f"The study is not complete: {coverage_words(coverage)}, and "
            f"{names([row.label for row in rows])} {'lacks' if len(rows) == 1 else 'lack'} some.",
            evidence=f"{listing(parts, most=10)}. Means are over the repeats that are done.",
            about=tuple(row.label for row in rows),
        )
    ]


def _states(states: Mapping[str, int], not_there: int) -> str:
    parts = [f"{n} {state}" for state, n in states.items() if n]
    return "(" + ", ".join([*parts, *([f"{not_there} not started"] if not_there else [])]) + ")"


def failure_findings(failures: Sequence[FailedTrial]) -> list[Finding]:
    """Say which trials failed or lost their worker, with the first reason."""
    found = [trial for trial in failures if trial.state in ("failed", "stale")]
    if not found:
        return []
    retried = sum(trial.retried for trial in found)
    parts = [f"{trial.words}: {trial.reason or 'its worker is gone'}" for trial in found]
    again = f"; {retried} of them ran again with success or are waiting to" if retried else ""
    return [
        Finding(
            rule="failed-trials",
            tone="warning",
            sentence=f"{count(len(found), 'trial')} failed or lost {'its' if len(found) == 1 else 'their'} "
            f"worker{again}.",
            evidence=f"{listing(parts, most=5)}.",
            about=tuple(dict.fromkeys(trial.label for trial in found)),
        )
    ]


def file_findings(failures: Sequence[FailedTrial]) -> list[Finding]:
    """Say whose files were lost or changed after the trial had ended, with the files."""
    broken = [trial for trial in failures if trial.state in ("missing files", "changed files")]
    if not broken:
        return _elsewhere_findings(failures)
    parts = [f"{trial.words}: {trial.reason}" for trial in broken]
    retried = sum(trial.retried for trial in broken)
    again = f"; {retried} of them ran again or are waiting to" if retried else ""
    return [
        Finding(
            rule="lost-files",
            tone="warning",
            sentence=f"Files of {count(len(broken), 'trial')} were lost or changed after the training: what they said "
            f"is in no number{again}.",
            evidence=f"{listing(parts, most=5)}.",
            about=tuple(dict.fromkeys(trial.label for trial in broken)),
        ),
        *_elsewhere_findings(failures),
    ]


def _elsewhere_findings(failures: Sequence[FailedTrial]) -> list[Finding]:
    """Say which trials have ended on a machine whose files are not here: the study is not finished without them."""
    elsewhere = [trial for trial in failures if trial.state == "files elsewhere"]
    if not elsewhere:
        return []
    have = "has" if len(elsewhere) == 1 else "have"
    return [
        Finding(
            rule="files-elsewhere",
            tone="warning",
            sentence=f"The study is not finished here: {count(len(elsewhere), 'trial')} {have} ended on another "
            "machine, whose files are not here, and what they say is in no number.",
            evidence=f"{listing([trial.words for trial in elsewhere], most=5)}. benchkit merge brings them.",
            about=tuple(dict.fromkeys(trial.label for trial in elsewhere)),
        )
    ]


def test_read_findings(reads: TestReads) -> list[Finding]:
    """Say when a trial read the test split more than once."""
    if not reads.repeated:
        return []
    return [
        Finding(
            rule="test-reads",
            tone="warning",
            sentence=f"{count(reads.repeated, 'trial')} read the test split more than once.",
            evidence=f"{reads.reads} reads by {count(reads.trials, 'done trial')}; one each was expected.",
        )
    ]


def left_out_findings(left_out: Sequence[str]) -> list[Finding]:
    """Say which trials of the ledger belong to another version of the study and are in no number."""
    if not left_out:
        return []
    return [
        Finding(
            rule="left-out",
            tone="note",
            sentence="Trials of another version of this study are in the ledger; they are in no number of this report.",
            evidence=" ".join(left_out),
        )
    ]


def micro_f1_findings(listed: Sequence[Scores]) -> list[Finding]:
    """Say when a micro F1 of ours differs from the accuracy, which would be a fault."""
    findings = []
    for scores in listed:
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


def note_findings(notes: Sequence[str]) -> list[Finding]:
    """Pass on what trials noted about themselves: fallbacks and oddities."""
    return [Finding(rule="trial-note", tone="note", sentence=note, evidence="Noted by trials.") for note in notes]


def divergence_findings(failures: Sequence[FailedTrial]) -> list[Finding]:
    """Say which trials ended in a non-finite loss."""
    found = [trial for trial in failures if trial.state == "diverged"]
    if not found:
        return []
    labels = list(dict.fromkeys(trial.label for trial in found))
    parts = [f"{trial.words}, after epoch {trial.epochs}" for trial in found]
    return [
        Finding(
            rule="divergence",
            tone="warning",
            sentence=f"{count(len(found), 'trial')} diverged: {names(labels)}.",
            evidence=f"The loss became non-finite: {listing(parts)}. Their scores are in no mean.",
            about=tuple(labels),
        )
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestReads:
    """How often test images were read to score models: `reads` by `trials` trials, `repeated` of them repeatedly."""

    reads: int
    trials: int
    repeated: int


def test_reads(results: StudyResults) -> TestReads:
    """Return how often the done trials read the test images."""
    reads = [t.outcome.test_reads for t in done_trials(results) if t.outcome and t.outcome.test_reads]
    return TestReads(reads=sum(reads), trials=len(reads), repeated=sum(times > 1 for times in reads))


def trial_notes(results: StudyResults) -> tuple[str, ...]:
    """Return what trials noted, each once, with how many noted it."""
    counts = Counter(note for trial in results.trials if trial.outcome for note in trial.outcome.notes)
    return tuple(f"{note} ({count(n, 'trial')})" for note, n in counts.items())
