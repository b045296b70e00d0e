"""What was planned and what came of it: done, pruned, diverged, failed, stale, running, waiting and missing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchkit.analysis.estimates import (
    Scores,
    compared,
    done_repeats,
    done_trials,
    planned_trials,
    searched_conditions,
)
from benchkit.analysis.wording import Finding, count, listing, measured, names, quoted
from benchkit.plan import Condition
from benchkit.registry.kinds import KINDS, kind_word
from benchkit.registry.registry import is_own, recorded_origin
from benchkit.results import FINISHED, SPLITS, STOPPED, State, StudyResults, Trial, sources_of

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
    def settled(self) -> int:
        """Return how many trials have a result that counts: a repeat must be done, a search may also prune or fail."""
        return _finished(self.states) if self.stage == "search" else self.states.get("done", 0)

    @property
    def ended(self) -> bool:
        """Return whether every planned trial has ended, whatever came of it."""
        return _finished(self.states) >= self.planned

    @property
    def complete(self) -> bool:
        """Return whether no planned trial is left to train: each has a result that counts, or diverged, for good."""
        diverged = 0 if self.stage == "search" else self.states.get("diverged", 0)
        return self.missing == 0 and self.settled + diverged >= self.planned


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
    searches = [_coverage(results, one, "search", results.searched(one)) for one in searched_conditions(results)]
    repeats = [
        _coverage(results, one, "grid" if one.kind == "grid" else "confirm", results.repeats(one).values())
        for one in compared(results)
    ]
    return (*searches, *repeats)


def _coverage(results: StudyResults, condition: Condition, stage: str, trials: Collection[Trial]) -> Coverage:
    planned = planned_trials(results, condition)
    return Coverage(
        key=condition.key,
        label=condition.label,
        stage=stage,
        planned=planned,
        states=dict(Counter(trial.state for trial in trials)),
        missing=max(0, planned - len(trials)),
    )


def _finished(states: Mapping[str, int]) -> int:
    return sum(states.get(state, 0) for state in FINISHED)


def failed_trials(results: StudyResults) -> tuple[FailedTrial, ...]:
    """Return every trial that diverged, failed, went stale or lost its files, in the order they were started.

    Earlier attempts are among them, whatever came of the later ones.
    """
    counting = {
        (condition.key, index): trial.attempt
        for condition in compared(results)
        for index, trial in results.repeats(condition).items()
    }
    trials = [*((trial, False) for trial in results.trials), *((trial, True) for trial in results.earlier)]
    return tuple(
        FailedTrial(
            label=trial.condition.label,
            stage=trial.phase,
            index=trial.index,
            attempt=trial.attempt,
            state=trial.state,
            epochs=len(trial.history),
            seconds=sum(record.seconds for record in trial.history),
            reason=trial.reason,
            retried=earlier
            or (
                trial.phase != "search"
                and counting.get((trial.condition.key, trial.index), trial.attempt) != trial.attempt
            ),
        )
        for trial, earlier in sorted(trials, key=lambda each: (each[0].started, each[0].number))
        if trial.state in BAD
    )


def coverage_words(rows: Sequence[Coverage]) -> str:
    """Return how many planned trials have a result: `6 of 12 planned trials have a result`, or one `that counts`."""
    planned, settled = sum(row.planned for row in rows), sum(row.settled for row in rows)
    counts = " that counts" if sum(_finished(row.states) for row in rows) > settled else ""
    return f"{settled} of {count(planned, 'planned trial')} {'has' if settled == 1 else 'have'} a result{counts}"


def smoke_findings(smoke: bool) -> Iterator[Finding]:
    """Say that a smoke run's numbers answer nothing."""
    if smoke:
        yield Finding(
            rule="smoke",
            tone="warning",
            sentence="This is a smoke run: a tiny version of the study on other data, made to try the machinery out. "
            "Its numbers answer nothing.",
            evidence="The study was run with --smoke.",
        )


def missing_findings(coverage: Sequence[Coverage]) -> Iterator[Finding]:
    """Say what was planned and has no result."""
    rows = [row for row in coverage if not row.complete]
    if not rows:
        return
    parts = [f"{quoted(row.label)} {_states(row.states, row.missing)}" for row in rows]
    labels, means = names([row.label for row in rows]), "Means are over the repeats that are done."
    sentence = f"The study is not complete: {coverage_words(coverage)}, and {labels} "
    sentence += "lacks some." if len(rows) == 1 else "lack some."
    if all(row.ended for row in rows):
        planned = count(sum(row.planned for row in coverage), "planned trial")
        sentence = f"{sum(row.planned - row.settled for row in rows)} of {planned} ended without a score: {labels}."
        means = "Means are over the others, so that a condition seems better by what fails or diverges in it."
    yield Finding(
        rule="unfinished",
        tone="warning",
        sentence=sentence,
        evidence=f"{listing(parts, most=10)}. {means}",
        about=tuple(row.label for row in rows),
    )


def _states(states: Mapping[str, int], not_there: int) -> str:
    parts = [f"{n} {state}" for state, n in states.items() if n]
    return "(" + ", ".join([*parts, *([f"{not_there} not started"] if not_there else [])]) + ")"


def trouble_findings(troubles: Sequence[FailedTrial]) -> list[Finding]:
    """Say which trials failed, lost their worker or were stopped, whose files are not there, and which diverged."""
    stopped = [trial for trial in _in(troubles, "stale") if trial.reason == STOPPED]
    failed = [trial for trial in _in(troubles, "failed", "stale") if trial not in stopped]
    lost = _in(troubles, "missing files", "changed files")
    elsewhere, diverged = _in(troubles, "files elsewhere"), _in(troubles, "diverged")
    reasons = [f"{one.words}: {one.reason or 'its worker is gone'}" for one in failed]
    endings = [f"{one.words}, in epoch {one.epochs + 1}" for one in diverged]
    return [
        *_told(
            failed,
            rule="failed-trials",
            sentence=f"{count(len(failed), 'trial')} failed or lost {'its' if len(failed) == 1 else 'their'} "
            f"worker{_again(failed, 'ran again with success')}.",
            evidence=f"{listing(reasons, most=5)}.",
        ),
        *_told(
            stopped,
            rule="stopped-trials",
            sentence=f"{count(len(stopped), 'trial')} {'was' if len(stopped) == 1 else 'were'} under way when the "
            "sweep was stopped.",
            evidence=f"{listing([one.words for one in stopped], most=5)}. The same command goes on with them.",
        ),
        *_told(
            lost,
            rule="lost-files",
            sentence=f"Files of {count(len(lost), 'trial')} were lost or changed after the training: what they said is "
            f"in no number{_again(lost, 'ran again')}.",
            evidence=f"{listing([f'{one.words}: {one.reason}' for one in lost], most=5)}.",
        ),
        *_told(
            elsewhere,
            rule="files-elsewhere",
            sentence=f"The study is not finished here: {count(len(elsewhere), 'trial')} "
            f"{'has' if len(elsewhere) == 1 else 'have'} ended on another machine, whose files are not here, and what "
            "they say is in no number.",
            evidence=f"{listing([one.words for one in elsewhere], most=5)}. benchkit merge brings them.",
        ),
        *_told(
            diverged,
            rule="divergence",
            sentence=f"{count(len(diverged), 'trial')} diverged: {names(_labels(diverged))}.",
            evidence=f"The loss became non-finite: {listing(endings)}. Their scores are in no mean, which makes that "
            "of a condition's other repeats look better.",
        ),
    ]


def _in(troubles: Sequence[FailedTrial], *states: State) -> list[FailedTrial]:
    return [trial for trial in troubles if trial.state in states]


def _labels(trials: Sequence[FailedTrial]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(trial.label for trial in trials))


def _again(trials: Sequence[FailedTrial], ran: str) -> str:
    retried = sum(trial.retried for trial in trials)
    return f"; {retried} of them {ran} or are waiting to" if retried else ""


def _told(trials: Sequence[FailedTrial], *, rule: str, sentence: str, evidence: str) -> list[Finding]:
    """Return the caution about trials, or none where there are no such."""
    about = _labels(trials)
    return [Finding(rule=rule, tone="warning", sentence=sentence, evidence=evidence, about=about)] if trials else []


def test_read_findings(reads: TestReads) -> Iterator[Finding]:
    """Say when a trial read the test split more than once."""
    if reads.repeated:
        yield Finding(
            rule="test-reads",
            tone="warning",
            sentence=f"{count(reads.repeated, 'trial')} read the test split more than once.",
            evidence=f"{reads.reads} reads by {count(reads.trials, 'done trial')}; one each was expected.",
        )


def left_out_findings(left_out: Sequence[str]) -> Iterator[Finding]:
    """Say which trials of the ledger are in no number: of another version of the study, or beyond what counts."""
    if left_out:
        yield Finding(
            rule="left-out",
            sentence="The ledger holds finished trials of this study that are in no number of this report.",
            evidence=f"{'; '.join(left_out)}.",
        )


def micro_f1_findings(listed: Sequence[Scores]) -> list[Finding]:
    """Say when a micro F1 of ours differs from the accuracy, which would be a fault."""
    findings = []
    for scores in listed:
        for split in SPLITS:
            ours, beside = scores.metrics.get(f"{split}.micro_f1"), scores.metrics.get(f"{split}.accuracy")
            if ours and beside and abs(ours.mean - beside.mean) > 1e-6:
                findings.append(
                    Finding(
                        rule="micro-f1",
                        tone="warning",
                        sentence=f"{quoted(scores.label)}: the {split} micro F1 differs from the {split} accuracy, "
                        "which cannot be.",
                        evidence=f"{measured('micro_f1', ours.mean)} against {measured('accuracy', beside.mean)}: "
                        "a fault.",
                        about=(scores.label,),
                    )
                )
    return findings


def note_findings(notes: Sequence[str]) -> list[Finding]:
    """Pass on what trials noted about themselves: fallbacks and oddities."""
    return [Finding(rule="trial-note", sentence=note, evidence="Noted by trials.") for note in notes]


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


def repeated_in(results: StudyResults) -> dict[str, int]:
    """Return by data set how many images of val and test an earlier split has, too, where its preparation found any."""
    sets = results.data.get("sets") or (results.data,)
    return {str(one.get("name", "")): int(one["repeated"]) for one in sets if one.get("repeated")}


def repeated_findings(repeated: Mapping[str, int]) -> Sequence[Finding]:
    """Say of each data set how many images several of its splits have."""
    return [
        Finding(
            rule="repeated-images",
            tone="warning",
            sentence=f"{number:,} val or test {'image' if number == 1 else 'images'} of {quoted(name)} "
            f"{'is' if number == 1 else 'are'} also in an earlier split, pixel for pixel.",
            evidence="A model may know such an image by heart: its score there is none on new images.",
            about=(),
        )
        for name, number in repeated.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedPlugin:
    """A plugin that had several sources when trials were trained, or measured, that are put together.

    `own` says that it is benchkit's own, `together` that trials of one condition differ in it, else conditions do.
    `sources` counts the trials by what is known of the source, `labels` are the conditions.
    """

    kind: str
    name: str
    own: bool
    together: bool
    sources: Mapping[str, int]
    labels: tuple[str, ...]


def changed_plugins(results: StudyResults) -> tuple[ChangedPlugin, ...]:
    """Return each plugin whose source changed between trials of one condition, or of several but for benchkit's own.

    The trials of a search are those of one condition. Of trials of earlier versions, which did not record the sources
    of metrics, nothing is known.
    """
    groups: list[tuple[str, Iterable[Trial]]] = [
        *((one.label, done_repeats(results, one).values()) for one in compared(results)),
        *((one.label, results.searched(one)) for one in searched_conditions(results)),
    ]
    recorded = [
        (label, source)
        for label, trials in groups
        for outcome in (trial.outcome for trial in trials if trial.state in ("done", "pruned") and trial.outcome)
        for source in sources_of(outcome.environment).values()
        if source.get("source") and source.get("kind") in KINDS
    ]
    digests: dict[tuple[str, str], set[str]] = defaultdict(set)
    for _, source in recorded:
        digests[source["kind"], source.get("name", "")].add(source["source"])
    used: dict[tuple[str, str, bool], list[tuple[str, str, str]]] = {}
    for label, source in recorded:
        kind, name = source["kind"], source.get("name", "")
        if len(digests[kind, name]) > 1:
            own = is_own(source.get("distribution", ""), source.get("file"))
            used.setdefault((kind, name, own), []).append((label, source["source"], recorded_origin(source)))
    return tuple(changed for plugin, uses in used.items() if (changed := _changed(plugin, uses)))


def _changed(plugin: tuple[str, str, bool], uses: Sequence[tuple[str, str, str]]) -> ChangedPlugin | None:
    kind, name, own = plugin
    by_label: dict[str, set[str]] = defaultdict(set)
    for label, digest, _ in uses:
        by_label[label].add(digest)
    mixed = tuple(label for label, digests in by_label.items() if len(digests) > 1)
    if not mixed and (own or len(set.union(*by_label.values())) < 2):
        return None
    origins = {digest: origin for _, digest, origin in reversed(uses)}
    counts = Counter(digest for label, digest, _ in uses if not mixed or label in mixed)
    sources = {f"{digest} ({origins[digest]})": n for digest, n in counts.items()}
    return ChangedPlugin(
        kind=kind, name=name, own=own, together=bool(mixed), sources=sources, labels=mixed or tuple(by_label)
    )


def changed_plugin_findings(changed: Sequence[ChangedPlugin]) -> Iterator[Finding]:
    """Say which plugins had several sources, those of benchkit's own in one sentence: they change with its version."""
    for one in (one for one in changed if not one.own):
        put = "Trials that are averaged" if one.together else "Conditions that are compared"
        yield Finding(
            rule="changed-plugins",
            tone="warning",
            sentence=f"{put} were {'measured' if one.kind == 'metrics' else 'trained'} with {len(one.sources)} sources "
            f"of the {kind_word(one.kind)} {quoted(one.name)}: {names(one.labels)}.",
            evidence=f"{_sources_words(one)}. Numbers of several sources may be those of several plugins.",
            about=one.labels,
        )
    if own := [one for one in changed if one.own]:
        named = listing([f"the {kind_word(one.kind)} {quoted(one.name)}" for one in own])
        yield Finding(
            rule="changed-plugins",
            sentence=f"Trials that are averaged were made by several versions of benchkit, in which {named} may "
            "differ.",
            evidence=f"{_sources_words(own[0])}.",
            about=tuple(dict.fromkeys(label for one in own for label in one.labels)),
        )


def _sources_words(one: ChangedPlugin) -> str:
    parts = [f"{count(n, 'trial')} with source {source}" for source, n in one.sources.items()]
    return f"{kind_word(one.kind).capitalize()} {quoted(one.name)}: {listing(parts)}"
