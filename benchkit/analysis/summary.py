"""A study's summary: every number that a report states, the sentences made from them, and the record for later reports.

A later report compares itself with the record: what a study was made with, its scores and costs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from benchkit.analysis import (
    candidates,
    estimates,
    inconsistencies,
    published,
    ranking,
    search,
    source,
    trained_models,
    training,
    trials,
)
from benchkit.analysis.candidates import StudyLooks
from benchkit.analysis.estimates import (
    ClassBalance,
    LevelEffect,
    Scores,
    Sensitivity,
    compared,
    done_trials,
    values_by_repeat,
)
from benchkit.analysis.inconsistencies import ClassCount, Inconsistency
from benchkit.analysis.published import ImpliedN, PublishedComparison, PublishedTie
from benchkit.analysis.ranking import BalancedRanking, BehindElsewhere, Ranking
from benchkit.analysis.search import SearchSummary
from benchkit.analysis.source import ClaimVerdict, ProtocolSetting
from benchkit.analysis.trained_models import (
    ClassReport,
    DeadFilters,
    IdenticalConditions,
    ModelAccuracy,
    ModelPair,
    OneClass,
    Uncertainty,
)
from benchkit.analysis.training import ConditionCost, Gap, OverfittingOnset, TimeToAccuracy, TrainedOn
from benchkit.analysis.trials import ChangedPlugin, Coverage, FailedTrial, TestReads
from benchkit.analysis.wording import Finding, setting
from benchkit.errors import BenchkitError
from benchkit.metrics import score_metrics
from benchkit.plan import typed_settings
from benchkit.results import StudyResults
from benchkit.storage import decode, encode
from benchkit.study import Study
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
    changed_plugins: tuple[ChangedPlugin, ...] = ()


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
        answer=ranking.short_answer(
            results, numbers.ranking, numbers.reads, findings, ranking.balanced_words(numbers.balanced, numbers.ranking)
        ),
        basis=ranking.basis(numbers.ranking, numbers.coverage),
        training_seconds=training.training_seconds(results),
        trials=len(results.trials),
        done=len(done_trials(results)),
    )


def find(numbers: StudyStatistics) -> tuple[Finding, ...]:
    """Return what can be said of a study's numbers, in the order in which a report states it."""
    return (
        *trials.smoke_findings(numbers.smoke),
        ranking.winner_finding(numbers.ranking, numbers.coverage),
        *ranking.behind_elsewhere_findings(numbers.elsewhere, numbers.metric),
        *candidates.look_findings(numbers.looks),
        *trials.missing_findings(numbers.coverage),
        *trials.trouble_findings(numbers.troubles),
        *trained_models.identical_findings(numbers.identical),
        *trained_models.one_class_findings(numbers.one_class),
        *estimates.balance_findings(numbers.balance),
        *ranking.balanced_findings(numbers.balanced, numbers.ranking),
        *trials.repeated_findings(numbers.repeated),
        *trials.changed_plugin_findings(numbers.changed_plugins),
        *trained_models.test_image_findings(numbers.ranking, numbers.models, numbers.model_pairs),
        *(search.search_findings(numbers.searches) if numbers.searches else ()),
        *estimates.sensitivity_findings(numbers.sensitivities, numbers.metric, numbers.ranking.told_apart),
        *ranking.unstable_findings(numbers.ranking),
        *training.overfitting_findings(numbers.onsets),
        *training.gap_findings(numbers.gaps),
        *training.fastest_findings(numbers.race, numbers.costs),
        *training.speed_findings(numbers.costs),
        *training.device_findings(numbers.devices),
        *trained_models.weak_class_findings(numbers.classes),
        *trained_models.dead_filter_findings(numbers.filters),
        *(_published_findings(numbers) if numbers.published or numbers.class_counts else ()),
        *(source.claim_findings(numbers.claims) if numbers.claims else ()),
        *trials.micro_f1_findings(numbers.scores),
        *trials.test_read_findings(numbers.reads),
        *trials.left_out_findings(numbers.left_out),
        *trials.note_findings(numbers.notes),
    )


def _published_findings(numbers: StudyStatistics) -> tuple[Finding, ...]:
    return (
        *published.agreement_findings(numbers.published),
        *published.implied_findings(numbers.implied),
        *inconsistencies.inconsistency_findings(numbers.doubts),
        *inconsistencies.class_count_findings(numbers.class_counts),
        *published.tie_findings(numbers.ties),
    )


def gather(results: StudyResults) -> StudyStatistics:
    """Return every number that a report states of a study."""
    study, metric = results.study, results.study.report.metric
    ranked = ranking.rank(results, metric)
    best = next((one for one in compared(results) if ranked.best and one.key == ranked.best.key), None)
    balance = estimates.class_balance(results)
    doubts = inconsistencies.inconsistencies(results) if study.published else ()
    return StudyStatistics(
        metric=metric,
        smoke=study.smoke,
        ranking=ranked,
        looks=candidates.looks_of(results),
        scores=tuple(estimates.condition_scores(results, condition) for condition in compared(results)),
        effects=estimates.level_effects(results, metric),
        sensitivities=estimates.sensitivities(results, "train.batch_size", metric),
        models=trained_models.model_accuracies(results),
        model_pairs=trained_models.model_pairs(results, ranked),
        searches=search.search_summaries(results) if study.search else (),
        coverage=trials.coverage(results),
        troubles=trials.failed_trials(results),
        costs=training.condition_costs(results),
        devices=training.trained_on(results),
        onsets=tuple(
            onset for condition in compared(results) if (onset := training.overfitting_onset(results, condition))
        ),
        race=training.time_to_accuracy(results),
        gaps=tuple(wide for condition in compared(results) if (wide := training.train_val_gap(results, condition))),
        classes=trained_models.class_report(results, best) if best else None,
        filters=trained_models.dead_filters(results),
        published=published.compare_published(results, doubts) if study.published else (),
        implied=published.implied_numbers(study.published, doubts) if study.published else (),
        doubts=doubts,
        class_counts=inconsistencies.class_counts(results) if study.published else (),
        ties=published.published_ties(study.published) if study.published else (),
        protocol=source.protocol(results) if study.origin else (),
        claims=source.claim_verdicts(results) if study.origin else (),
        reads=trials.test_reads(results),
        left_out=results.left_out,
        notes=trials.trial_notes(results),
        one_class=trained_models.one_class_conditions(results),
        identical=trained_models.identical_conditions(results),
        elsewhere=ranking.behind_elsewhere(results, ranked),
        uncertainty=trained_models.uncertainties(results),
        balance=balance,
        balanced=ranking.balanced_ranking(results, ranked, balance),
        repeated=trials.repeated_in(results),
        changed_plugins=trials.changed_plugins(results),
    )


COSTS = ("cost.seconds", "cost.images_per_second", "cost.peak_memory")
"""The costs that a record holds beside the scores."""

TIMES = COSTS[:2]
"""Those that compare on one device alone."""

RECORD_VERSION = 1
"""The version of the record's layout; a report with another one is not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One metric of one condition: the repeats that have it, and its value in each."""

    metric: str
    repeats: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCondition:
    """A condition with its readings; equal `key`s mean that every setting was the same."""

    key: str
    label: str
    readings: tuple[Reading, ...]

    def reading(self, metric: str) -> dict[int, float]:
        """Return the values of a metric by repeat, empty when there are none."""
        recorded = next((reading for reading in self.readings if reading.metric == metric), None)
        return dict(zip(recorded.repeats, recorded.values, strict=True)) if recorded else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """Something that a study was made with: its `kind` (study, setting, version, plugin, data), name and value."""

    kind: str
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A study as a later report compares itself with it: seed, main metric, file, properties and readings."""

    version: int = RECORD_VERSION
    study: str
    metric: str
    seed: int
    smoke: bool
    dated: str
    source: str
    properties: tuple[Property, ...]
    conditions: tuple[RecordedCondition, ...]

    @property
    def folds(self) -> int:
        """Return how many folds the repeats test on, one each; 0 where all of them test on the same images."""
        known = (item.value for item in self.properties if (item.kind, item.name) == ("setting", "data.folds"))
        return next((int(folds) for folds in known if folds.isdecimal()), 0)

    @property
    def resampled(self) -> float:
        """Return the test images of a repeat over its other ones, as `StudyResults.resampled`."""
        return 1 / (self.folds - 1) if self.folds > 1 else 0.0


def last_finished(results: StudyResults) -> float:
    """Return when the last trial finished, in seconds since 1970, 0 before any."""
    return max((trial.finished for trial in results.trials), default=0.0)


def dated_of(results: StudyResults) -> str:
    """Return the day on which the last trial finished, such as 3 May 2026, or nothing."""
    last = last_finished(results)
    return f"{datetime.fromtimestamp(last, UTC):%d %B %Y}".lstrip("0") if last else ""


def record_of(results: StudyResults) -> Record:
    """Return the study's record: file, settings, versions, plugins, data, and every score of every repeat."""
    study = results.study
    properties = {
        "study": _study(study),
        "setting": _settings(study),
        "version": recorded_environment(results),
        "plugin": recorded_plugins(results),
        "data": recorded_data(results.data),
    }
    return Record(
        study=study.name,
        metric=study.report.metric,
        seed=study.seed,
        smoke=study.smoke,
        dated=dated_of(results),
        source=study.source,
        properties=tuple(
            Property(kind=kind, name=name, value=value) for kind, known in properties.items() for name, value in known
        ),
        conditions=recorded_conditions(results),
    )


def _study(study: Study) -> Iterable[tuple[str, str]]:
    """Yield what the file says beside the settings: seed, repeats, factors and search."""
    yield "name", study.name
    yield "seed", str(study.seed)
    yield "repeats", str(study.repeats)
    yield "confirm", str(study.confirm)
    yield "smoke", setting(study.smoke)
    yield "metric", study.report.metric
    yield "overrides", ", ".join(study.overrides)
    for factor in study.factors:
        yield f"factor {factor.path}", ", ".join(level.label for level in factor.levels)
    if study.search:
        search = encode(study.search)
        search["sampler"] = search.pop("samplers") or search["sampler"]
        for searched in search.pop("space"):
            yield (
                f"search {searched.pop('path')}",
                ", ".join(f"{key} = {setting_text(value)}" for key, value in searched.items()),
            )
        yield from dotted_settings(search, "search")


def _settings(study: Study) -> Iterable[tuple[str, str]]:
    """Yield the base settings by dotted path, defaults filled in where the base can stand without a factor's levels."""
    try:
        tree = encode(typed_settings(study.settings, study.seed))
    except BenchkitError:
        tree = encode(study.settings)
    return dotted_settings(tree)


UNSHOWN = ("plugins", "sources", "metrics", "distributions")
"""Parts of a trial's environment that have a list of their own, or that the capsule alone holds."""


def recorded_environment(results: StudyResults) -> Iterable[tuple[str, str]]:
    """Return every property of the machines on which finished trials ran, all values where they differ."""
    return _collected(
        {name: value for name, value in trial.outcome.environment.items() if name not in UNSHOWN}
        for trial in results.trials
        if trial.outcome
    )


def recorded_plugins(results: StudyResults) -> Iterable[tuple[str, str]]:
    """Return the plugins as the trials recorded them."""
    recorded = [trial.outcome.environment.get("plugins", {}) for trial in results.trials if trial.outcome]
    return _collected(table for table in recorded if isinstance(table, Mapping))


def _collected(tables: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    values: dict[str, dict[str, None]] = {}
    for table in tables:
        for name, value in _flat(table):
            values.setdefault(name, {})[value] = None
    return [(name, "; ".join(known)) for name, known in values.items()]


def recorded_data(table: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Return what is known of the data but pictures; a list of one data set only repeats it."""
    sets = [_without(one, "repeated_pairs") for one in table.get("sets", ())]
    shown = {**_without(table, "repeated_pairs", "sets"), **({"sets": sets} if len(sets) > 1 else {})}
    return _flat(shown)


def _without(table: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name not in names}


def _flat(table: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    for key, value in table.items():
        name = f"{above}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name} ")
        elif isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
            for number, item in enumerate(value, 1):
                yield from _flat(item, f"{name} {number} ")
        elif isinstance(value, list | tuple):
            if value:
                sentences = all(str(item).endswith(".") for item in value)
                yield name, (" " if sentences else ", ").join(setting(item) for item in value)
        elif value not in ("", None):
            yield name, setting(value)


def recorded_metrics() -> tuple[str, ...]:
    """Return the metrics that a record holds: every score of every split, and the costs."""
    return (*score_metrics(), *COSTS)


def recorded_conditions(results: StudyResults) -> tuple[RecordedCondition, ...]:
    """Return every compared condition with all that its done repeats scored and cost.

    Times on several models of devices do not compare and are left out.
    """
    devices = {device for trial in results.trials for device in training.device_names(trial)}
    kept = [metric for metric in recorded_metrics() if len(devices) < 2 or metric not in TIMES]
    return tuple(
        RecordedCondition(
            key=condition.key,
            label=condition.label,
            readings=tuple(
                Reading(metric=metric, repeats=tuple(values), values=tuple(values.values()))
                for metric in kept
                if (values := _finite(values_by_repeat(results, condition, metric)))
            ),
        )
        for condition in compared(results)
    )


def _finite(values: Mapping[int, float]) -> dict[int, float]:
    return {index: values[index] for index in sorted(values) if math.isfinite(values[index])}


def record_text(record: Record) -> str:
    """Return the record as JSON text."""
    return json.dumps(encode(record), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def record_from(content: Any) -> Record:
    """Return the record in parsed JSON; raise `ValueError` in words when it is none, or of another version."""
    if not isinstance(content, Mapping) or "conditions" not in content:
        raise ValueError("it holds no record of a study")
    if content.get("version") != RECORD_VERSION:
        raise ValueError(f"its record has version {content.get('version')!r}, and this benchkit reads {RECORD_VERSION}")
    try:
        record = decode(Record, content, "record")
    except BenchkitError as error:
        raise ValueError(f"its record is damaged ({error.what})") from error
    if not all(_is_sound(reading) for condition in record.conditions for reading in condition.readings):
        raise ValueError("its record is damaged: a repeat stands twice, or numbers are missing or not finite")
    return record


def _is_sound(reading: Reading) -> bool:
    return len(reading.values) == len(set(reading.repeats)) > 0 and all(map(math.isfinite, reading.values))
