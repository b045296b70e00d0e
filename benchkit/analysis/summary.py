"""A study's summary: every number that a report states, and the sentences made from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchkit.analysis.answer import (
    BalancedRanking,
    BehindElsewhere,
    balanced_findings,
    balanced_ranking,
    balanced_words,
    behind_elsewhere,
    behind_elsewhere_findings,
    short_answer,
)
from benchkit.analysis.candidates import Uncertainty, uncertainties
from benchkit.analysis.costs import (
    ConditionCost,
    TrainedOn,
    condition_costs,
    device_findings,
    speed_findings,
    trained_on,
    training_seconds,
)
from benchkit.analysis.degenerate import (
    ClassBalance,
    IdenticalConditions,
    OneClass,
    balance_findings,
    class_balance,
    identical_conditions,
    identical_findings,
    one_class_conditions,
    one_class_findings,
    repeated_findings,
    repeated_in,
)
from benchkit.analysis.estimates import (
    LevelEffect,
    Scores,
    Sensitivity,
    compared,
    condition_scores,
    done_trials,
    level_effects,
    sensitivities,
    sensitivity_findings,
)
from benchkit.analysis.inconsistencies import (
    ClassCount,
    Inconsistency,
    class_count_findings,
    class_counts,
    inconsistencies,
    inconsistency_findings,
)
from benchkit.analysis.published import (
    ImpliedN,
    PublishedComparison,
    PublishedTie,
    agreement_findings,
    compare_published,
    implied_findings,
    implied_numbers,
    published_ties,
    tie_findings,
)
from benchkit.analysis.ranking import (
    Ranking,
    basis,
    condition_named,
    rank,
    unstable_findings,
    winner_finding,
)
from benchkit.analysis.search import SearchSummary, search_summaries
from benchkit.analysis.search_findings import search_findings
from benchkit.analysis.sequential import StudyLooks, look_findings, looks_of
from benchkit.analysis.source import ClaimVerdict, ProtocolSetting, claim_findings, claim_verdicts, protocol
from benchkit.analysis.trained_models import (
    ClassReport,
    DeadFilters,
    ModelAccuracy,
    ModelPair,
    class_report,
    dead_filter_findings,
    dead_filters,
    model_accuracies,
    model_pairs,
    test_image_findings,
    weak_class_findings,
)
from benchkit.analysis.training import (
    Gap,
    OverfittingOnset,
    TimeToAccuracy,
    fastest_findings,
    gap_findings,
    overfitting_findings,
    overfitting_onset,
    time_to_accuracy,
    train_val_gap,
)
from benchkit.analysis.trials import (
    Coverage,
    FailedTrial,
    TestReads,
    coverage,
    divergence_findings,
    failed_trials,
    failure_findings,
    file_findings,
    left_out_findings,
    micro_f1_findings,
    missing_findings,
    note_findings,
    smoke_findings,
    test_read_findings,
    test_reads,
    trial_notes,
)
from benchkit.analysis.wording import Finding, setting
from benchkit.results import StudyResults
from benchkit.study.tree import identity


def dotted_settings(tree: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    """Yield every setting of a tree as dotted path and text; a regularizer is named by its id."""
    for key, value in tree.items():
        path = f"{above}.{key}" if above else key
        if isinstance(value, Mapping):
            yield from dotted_settings(value, path)
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for number, item in enumerate(value, 1):
                yield from dotted_settings(item, f"{path}.{identity(item) or number}")
        elif value is not None:
            yield path, setting_text(value)


def setting_text(value: Any) -> str:
    """Return a setting's value as text, numbers with all their digits."""
    if isinstance(value, list):
        return ", ".join(setting_text(item) for item in value)
    return repr(value) if isinstance(value, float) else setting(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyStatistics:
    """Every number that a report states; its fields are the keys of `numbers` in results.json.

    `troubles` are the trials that did not end as done or pruned, `race` is how fast conditions reach an accuracy,
    `doubts` are published numbers that cannot be.
    """

    metric: str
    smoke: bool
    ranking: Ranking
    scores: tuple[Scores, ...]
    effects: tuple[LevelEffect, ...]
    sensitivities: tuple[Sensitivity, ...]
    models: tuple[ModelAccuracy, ...]
    model_pairs: tuple[ModelPair, ...]
    searches: tuple[SearchSummary, ...]
    coverage: tuple[Coverage, ...]
    troubles: tuple[FailedTrial, ...]
    costs: tuple[ConditionCost, ...]
    onsets: tuple[OverfittingOnset, ...]
    race: TimeToAccuracy | None
    gaps: tuple[Gap, ...]
    classes: ClassReport | None
    filters: tuple[DeadFilters, ...]
    published: tuple[PublishedComparison, ...]
    implied: tuple[ImpliedN, ...]
    doubts: tuple[Inconsistency, ...]
    class_counts: tuple[ClassCount, ...]
    ties: tuple[PublishedTie, ...]
    protocol: tuple[ProtocolSetting, ...]
    claims: tuple[ClaimVerdict, ...]
    reads: TestReads
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    looks: StudyLooks = field(default_factory=StudyLooks)
    one_class: tuple[OneClass, ...] = ()
    identical: tuple[IdenticalConditions, ...] = ()
    elsewhere: tuple[BehindElsewhere, ...] = ()
    uncertainty: tuple[Uncertainty, ...] = ()
    devices: tuple[TrainedOn, ...] = ()
    balance: ClassBalance | None = None
    balanced: BalancedRanking | None = None
    repeated: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A study's numbers (`numbers`), its findings, and its short answer.

    `answer` has up to three sentences of who is best, and the first thing to distrust or what else was found; `basis`
    is the statistics that it rests on.
    """

    numbers: StudyStatistics
    findings: tuple[Finding, ...]
    answer: tuple[str, ...]
    basis: str
    training_seconds: float
    trials: int
    done: int

    @property
    def ranking(self) -> Ranking:
        """Return the ranking by the study's main metric."""
        return self.numbers.ranking


def summarize(results: StudyResults) -> Summary:
    """Return the summary of a study's results; it works on an empty or unfinished study too."""
    numbers = gather(results)
    findings = find(numbers)
    return Summary(
        numbers=numbers,
        findings=findings,
        answer=short_answer(
            results, numbers.ranking, numbers.reads, findings, balanced_words(numbers.balanced, numbers.ranking)
        ),
        basis=basis(numbers.ranking, numbers.coverage),
        training_seconds=training_seconds(results),
        trials=len(results.trials),
        done=len(done_trials(results)),
    )


def find(numbers: StudyStatistics) -> tuple[Finding, ...]:
    """Return what can be said of a study's numbers, in the order in which a report states it."""
    return (
        *smoke_findings(numbers.smoke),
        winner_finding(numbers.ranking, numbers.coverage),
        *behind_elsewhere_findings(numbers.elsewhere, numbers.metric),
        *look_findings(numbers.looks),
        *missing_findings(numbers.coverage),
        *identical_findings(numbers.identical),
        *one_class_findings(numbers.one_class),
        *balance_findings(numbers.balance),
        *balanced_findings(numbers.balanced, numbers.ranking),
        *repeated_findings(numbers.repeated),
        *failure_findings(numbers.troubles),
        *file_findings(numbers.troubles),
        *divergence_findings(numbers.troubles),
        *test_image_findings(numbers.ranking, numbers.models, numbers.model_pairs),
        *(search_findings(numbers.searches) if numbers.searches else ()),
        *sensitivity_findings(numbers.sensitivities, numbers.metric),
        *unstable_findings(numbers.ranking),
        *overfitting_findings(numbers.onsets),
        *gap_findings(numbers.gaps),
        *fastest_findings(numbers.race, numbers.costs),
        *speed_findings(numbers.costs),
        *device_findings(numbers.devices),
        *weak_class_findings(numbers.classes),
        *dead_filter_findings(numbers.filters),
        *(_published_findings(numbers) if numbers.published or numbers.class_counts else ()),
        *(claim_findings(numbers.claims) if numbers.claims else ()),
        *micro_f1_findings(numbers.scores),
        *test_read_findings(numbers.reads),
        *left_out_findings(numbers.left_out),
        *note_findings(numbers.notes),
    )


def _published_findings(numbers: StudyStatistics) -> tuple[Finding, ...]:
    return (
        *agreement_findings(numbers.published),
        *implied_findings(numbers.implied),
        *inconsistency_findings(numbers.doubts),
        *class_count_findings(numbers.class_counts),
        *tie_findings(numbers.ties),
    )


def gather(results: StudyResults) -> StudyStatistics:
    """Return every number that a report states of a study."""
    study, metric = results.study, results.study.report.metric
    ranking = rank(results, metric)
    best = condition_named(results, ranking.best.key) if ranking.best else None
    balance = class_balance(results)
    doubts = inconsistencies(results) if study.published else ()
    return StudyStatistics(
        metric=metric,
        smoke=study.smoke,
        ranking=ranking,
        looks=looks_of(results),
        scores=tuple(condition_scores(results, condition) for condition in compared(results)),
        effects=level_effects(results, metric),
        sensitivities=sensitivities(results, "train.batch_size", metric),
        models=model_accuracies(results),
        model_pairs=model_pairs(results, ranking),
        searches=search_summaries(results) if study.search else (),
        coverage=coverage(results),
        troubles=failed_trials(results),
        costs=condition_costs(results),
        devices=trained_on(results),
        onsets=tuple(onset for condition in compared(results) if (onset := overfitting_onset(results, condition))),
        race=time_to_accuracy(results),
        gaps=tuple(wide for condition in compared(results) if (wide := train_val_gap(results, condition))),
        classes=class_report(results, best) if best else None,
        filters=dead_filters(results),
        published=compare_published(results, doubts) if study.published else (),
        implied=implied_numbers(study.published, doubts) if study.published else (),
        doubts=doubts,
        class_counts=class_counts(results) if study.published else (),
        ties=published_ties(study.published) if study.published else (),
        protocol=protocol(results) if study.origin else (),
        claims=claim_verdicts(results) if study.origin else (),
        reads=test_reads(results),
        left_out=results.left_out,
        notes=trial_notes(results),
        one_class=one_class_conditions(results),
        identical=identical_conditions(results),
        elsewhere=behind_elsewhere(results, ranking),
        uncertainty=uncertainties(results),
        balance=balance,
        balanced=balanced_ranking(results, ranking, balance),
        repeated=repeated_in(results),
    )
