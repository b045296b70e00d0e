"""A study's summary: every number that a report states, and the sentences made from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchkit.analysis import (
    doubt_rules,
    outcome_rules,
    published_rules,
    sampler_rules,
    search_rules,
    training_rules,
    trust_rules,
)
from benchkit.analysis.classes import class_report
from benchkit.analysis.costs import condition_costs, training_seconds
from benchkit.analysis.coverage import coverage, troubles
from benchkit.analysis.curves import onset, race
from benchkit.analysis.effects import level_effects, sensitivities
from benchkit.analysis.estimates import estimate
from benchkit.analysis.filters import dead_filters
from benchkit.analysis.findings import Evidence, Finding, Gap, Rule, Scores, TestReads, find
from benchkit.analysis.images import model_accuracies, model_pairs
from benchkit.analysis.published import compare_published, implied_numbers
from benchkit.analysis.published_doubts import class_counts, published_doubts, published_ties
from benchkit.analysis.ranking import Ranking, condition_named, rank
from benchkit.analysis.readings import compared, done_repeats, done_trials, estimate_of
from benchkit.analysis.search import search_summaries
from benchkit.analysis.wording import count
from benchkit.metrics import score_metrics
from benchkit.results import StudyResults

if TYPE_CHECKING:
    from benchkit.plan import Condition

RULES: tuple[Rule, ...] = (
    trust_rules.smoke,
    outcome_rules.winner,
    trust_rules.missing,
    trust_rules.failed,
    training_rules.divergence,
    outcome_rules.test_images,
    search_rules.search_gain,
    search_rules.winner_bias,
    sampler_rules.samplers,
    search_rules.unequal_budgets,
    outcome_rules.sensitivity,
    training_rules.unstable,
    training_rules.overfitting,
    training_rules.gap,
    training_rules.fastest,
    training_rules.cost_spread,
    training_rules.weak_classes,
    training_rules.dead_filters,
    published_rules.published,
    published_rules.implied_n,
    doubt_rules.no_fraction,
    doubt_rules.micro_f1,
    doubt_rules.loss_bound,
    doubt_rules.softmax_twice,
    doubt_rules.class_count,
    published_rules.published_ties,
    trust_rules.micro_f1,
    trust_rules.test_reads,
    trust_rules.left_out,
    trust_rules.notes,
)
"""The rules that make findings, in the order in which a report states them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A study's numbers (`evidence`), its findings, and its short answer in at most three sentences."""

    evidence: Evidence
    findings: tuple[Finding, ...]
    answer: tuple[str, ...]
    training_seconds: float
    trials: int
    done: int

    @property
    def ranking(self) -> Ranking:
        """Return the ranking by the study's main metric."""
        return self.evidence.ranking


def summarize(results: StudyResults) -> Summary:
    """Return the summary of a study's results; it works on an empty or unfinished study too."""
    evidence = gather(results)
    findings = find(evidence, RULES)
    return Summary(
        evidence=evidence,
        findings=findings,
        answer=_answer(results, evidence, findings),
        training_seconds=training_seconds(results),
        trials=len(results.trials),
        done=len(done_trials(results)),
    )


def gather(results: StudyResults) -> Evidence:
    """Return everything that the rules may speak of."""
    study, metric = results.study, results.study.report.metric
    ranking = rank(results, metric)
    best = condition_named(results, ranking.best.key) if ranking.best else None
    doubts = published_doubts(results)
    return Evidence(
        metric=metric,
        smoke=study.smoke,
        ranking=ranking,
        scores=tuple(_scores(results, condition) for condition in compared(results)),
        effects=level_effects(results, metric),
        sensitivities=sensitivities(results, "train.batch_size", metric),
        models=model_accuracies(results),
        model_pairs=model_pairs(results, ranking),
        searches=search_summaries(results),
        coverage=coverage(results),
        troubles=troubles(results),
        costs=condition_costs(results),
        onsets=tuple(found for condition in compared(results) if (found := onset(results, condition))),
        race=race(results),
        gaps=tuple(wide for condition in compared(results) if (wide := _gap(results, condition))),
        classes=class_report(results, best) if best else None,
        filters=dead_filters(results),
        published=compare_published(results, doubts),
        implied=implied_numbers(study.published),
        doubts=doubts,
        class_counts=class_counts(results),
        ties=published_ties(study.published),
        reads=_reads(results),
        left_out=results.left_out,
        notes=_notes(results),
    )


def _scores(results: StudyResults, condition: Condition) -> Scores:
    found = {
        metric: known for metric in score_metrics() if (known := estimate_of(results, condition, metric)) is not None
    }
    return Scores(key=condition.key, label=condition.label, metrics=found)


def _gap(results: StudyResults, condition: Condition) -> Gap | None:
    differences = [
        trial.score("train.accuracy") - trial.score("val.accuracy")
        for trial in done_repeats(results, condition).values()
        if trial.outcome and {"train", "val"} <= trial.outcome.metrics.keys()
    ]
    return Gap(key=condition.key, label=condition.label, difference=estimate(differences)) if differences else None


def _reads(results: StudyResults) -> TestReads:
    reads = [t.outcome.test_reads for t in done_trials(results) if t.outcome and t.outcome.test_reads]
    return TestReads(reads=sum(reads), trials=len(reads), repeated=sum(one > 1 for one in reads))


def _notes(results: StudyResults) -> tuple[str, ...]:
    """Return what trials noted, each once, with how many noted it."""
    counts = Counter(note for trial in results.trials if trial.outcome for note in trial.outcome.notes)
    return tuple(f"{note} ({count(n, 'trial')})" for note, n in counts.items())


def _answer(results: StudyResults, evidence: Evidence, findings: tuple[Finding, ...]) -> tuple[str, ...]:
    """Return the answer, what it rests on, and the first thing to distrust, else what a search gave, else its basis."""
    main = next(finding for finding in findings if finding.rule == "winner")
    warnings = [finding.sentence for finding in findings if finding.tone == "warning"]
    complete = f"Nothing planned is missing: {_basis(results, evidence)}."
    found = [finding.sentence for finding in findings if finding.rule in ("winner-bias", "search")]
    closing = (warnings or found[::-1] or [complete])[0]
    sentences = [main.sentence, outcome_rules.basis(evidence)]
    return (closing, *sentences) if evidence.smoke else (*sentences, closing)


def _basis(results: StudyResults, evidence: Evidence) -> str:
    states = Counter(trial.state for trial in results.trials)
    parts = [f"{states[state]} {state}" for state in ("done", "pruned", "diverged", "failed") if states[state]]
    words = f"{count(len(results.trials), 'trial')} ({', '.join(parts)})"
    if evidence.reads.trials and not evidence.reads.repeated:
        return f"{words}, and the test images were read once by each of {count(evidence.reads.trials, 'scored model')}"
    return words
