"""What a trial that was trained again says of the report: identical, within what its repeats allow, or outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchkit.analysis.estimates import estimate_metric, prediction_interval, value_of, values_by_repeat
from benchkit.analysis.wording import bare, count, metric_unit, metric_words
from benchkit.capsule.archive import CapsuleTrial, to_text
from benchkit.capsule.making import sha256
from benchkit.metrics import metric_of
from benchkit.results import WAS_COMPILED, SplitMetrics, StudyResults, Trial
from benchkit.verify.check import ReportCheck
from benchkit.verify.retraining import SampledTrial

SAME = ("python", "system", "processor", "device", "versions")
"""Parts of two environments that must be equal for two trainings on a CPU to be bit-identical."""


def compare_retrained(sample: SampledTrial, again: Trial | None, results: StudyResults) -> ReportCheck:
    """Return what a trial trained again says; `results` are those that the capsule stands for.

    Identical metrics on every split hold. Others fail where the processor, versions, plugins and data are the same (on
    a CPU training is bit-identical, but for compiled models, whose bits hang on the C++ compiler, too); elsewhere the
    new value of the main metric is held against the 95 % prediction interval for one more repeat of the condition. With
    fewer than two repeats only identity can be judged.
    """
    name = f"retrained {sample.name}"
    if again is None:
        words = "not trained: the data set here has another fingerprint than the one it was trained on"
        return ReportCheck(name=name, state="unchecked", told=words)
    if again.state != "done" or again.outcome is None:
        return ReportCheck(name=name, state="fails", told=f"it ended as {again.state} here: {again.reason}")
    was, now = sample.trial.start_weights, again.outcome.start_weights
    if was and was != now:
        words = f"not comparable: it started from weights with the sha256 {was[:12]}, here from {now[:12] or 'none'}"
        return ReportCheck(name=name, state="unchecked", told=words)
    if identical(sample.trial, again):
        return ReportCheck(name=name, state="holds", told=_identical_words(sample, again))
    values = _values_words(sample, again, results)
    compiled = WAS_COMPILED in (*sample.trial.notes, *again.outcome.notes)
    if not compiled and equal_grounds(_environment(results, sample), again.outcome.environment):
        words = f"{values}; same processor and versions, where training is bit-identical"
        return ReportCheck(name=name, state="fails", told=words)
    return _against_repeats(name, values, sample, again, results)


def identical(trial: CapsuleTrial, again: Trial) -> bool:
    """Return whether every recorded metric of every split is the same to the last bit.

    Metrics of which one of the two knows nothing, because its version did not measure them, do not count.
    """
    was, now = dict(trial.metrics), dict(again.outcome.metrics if again.outcome else {})
    if was.keys() != now.keys():
        return False
    pairs = [(was[split], now[split]) for split in now]
    return all(to_text(_common(before, after)) == to_text(_common(after, before)) for before, after in pairs)


def _common(scored: SplitMetrics, other: SplitMetrics) -> SplitMetrics:
    """Return metrics without those that the other lacks."""
    return replace(scored, more={name: value for name, value in sorted(scored.more.items()) if name in other.more})


def equal_grounds(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether two environments are those of bit-identical trainings: same processor (no card), same code."""
    on_processor = str(was.get("device", "")).startswith(str(was.get("processor", "?")))
    same = all(name in was and was[name] == now.get(name) for name in SAME)
    return on_processor and same and _sources(was) == _sources(now)


def _sources(environment: Mapping[str, Any]) -> dict[str, Any]:
    sources = environment.get("sources")
    tables = sources.items() if isinstance(sources, Mapping) else ()
    return {where: source.get("source") for where, source in tables if isinstance(source, Mapping)}


def _environment(results: StudyResults, sample: SampledTrial) -> Mapping[str, Any]:
    for trial in results.trials:
        if trial.number == sample.trial.number and trial.condition.key == sample.condition.key and trial.outcome:
            return trial.outcome.environment
    return {}


def _identical_words(sample: SampledTrial, again: Trial) -> str:
    splits = ", ".join(sample.trial.metrics)
    path = again.folder / "predictions.safetensors"
    if sample.trial.predictions and path.exists() and sha256(path.read_bytes()) == sample.trial.predictions:
        return f"identical: every metric on {splits}, and every logit, to the last bit"
    return f"identical: every metric on {splits} to the last bit"


def _metric(sample: SampledTrial, results: StudyResults) -> str:
    """Return the metric by which a trial is held against others: the main one, or the search's goal."""
    search = results.study.search
    if sample.trial.phase != "search" or search is None:
        return results.study.report.metric
    goal = search.goals[0].metric
    return goal if goal.startswith("val.") else "val.loss"


def _shown(metric: str, value: float | None) -> str:
    unit = metric_unit(metric)
    return f"{bare(metric, value)}{f' {unit}' if unit else ''}"


def _values_words(sample: SampledTrial, again: Trial, results: StudyResults) -> str:
    metric = _metric(sample, results)
    split, _, name = metric.partition(".")
    scored = sample.trial.metrics.get(split)
    was = scored.value(name) if scored else None
    now = value_of(again, metric)
    return f"{metric_words(metric)} {_shown(metric, now)}, the report has {_shown(metric, was)}: not identical"


def _against_repeats(name: str, values: str, sample: SampledTrial, again: Trial, results: StudyResults) -> ReportCheck:
    metric, now = _metric(sample, results), value_of(again, _metric(sample, results))
    repeats = list(values_by_repeat(results, sample.condition, metric).values())
    mean = estimate_metric(metric, repeats) if repeats else None
    interval = prediction_interval(mean, bounds=metric_of(metric).bounds) if mean else None
    if interval is None or now is None:
        words = f"{values}; with {count(len(repeats), 'repeat')} of its condition only identity could be judged"
        return ReportCheck(name=name, state="unchecked", told=words)
    low, high = interval
    inside = low <= now <= high
    words = (
        f"{values}, and {'inside' if inside else 'outside'} the 95 % prediction interval of its condition's repeats, "
        f"{_shown(metric, low)} to {_shown(metric, high)} (n = {len(repeats)})"
    )
    return ReportCheck(name=name, state="holds" if inside else "fails", told=words)
