"""A study's record as runs that a tracker keeps: a run for each trial, and one for each condition."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields

from benchkit.analysis.estimates import estimate_of
from benchkit.analysis.summary import dotted_settings, setting_text
from benchkit.plan import Condition
from benchkit.report.page_text import private_results
from benchkit.results import FINISHED, EpochRecord, StudyResults, Trial
from benchkit.tracking import TrackedRow, TrackedRun

UNFINISHED = ("running", "stale")
OF_EPOCH = tuple(one.name for one in fields(EpochRecord) if one.name not in ("epoch", "observed", "device", "node"))
UNMEASURED = ("energy", "peak_memory")
"""Where these are 0, nothing was measured."""
OF_COST = ("seconds", "images_per_second", "peak_memory", "energy", "parameters", "flops")


def runs_of(results: StudyResults) -> Iterator[TrackedRun]:
    """Yield the trials of a study that have begun, in the order of their beginning, then its conditions with n > 0.

    Names and passwords are left out as in a report. A trial whose files are not here as they were is left out.
    """
    results = private_results(results)
    trials = [one for one in (*results.trials, *results.earlier) if one.state in FINISHED or one.state in UNFINISHED]
    for trial in sorted(trials, key=lambda one: one.started):
        yield _trial_run(results, trial)
    for condition in results.conditions:
        if condition.kind != "search":
            yield from _condition_run(results, condition)


def _id(*told: object) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]


def _trial_run(results: StudyResults, trial: Trial) -> TrackedRun:
    condition, outcome = trial.condition, trial.outcome
    state = trial.state if trial.state in FINISHED else "running"
    word = "trial" if trial.phase == "search" else "repeat"
    name = f"{condition.display_label}, {word} {trial.index}" + (f", attempt {trial.attempt}" if trial.attempt else "")
    environment = outcome.environment if outcome else {}
    given = {
        "phase": trial.phase,
        word: str(trial.index),
        "attempt": str(trial.attempt),
        "reason": trial.reason,
        "precision": outcome.cost.precision if outcome and outcome.cost else "",
        "device": ", ".join(dict.fromkeys(one.device for one in trial.devices)),
        "git": str(environment.get("git") or ""),
    }
    return TrackedRun(
        id=_id(results.study.name, condition.key, trial.phase, trial.index, trial.attempt, trial.started),
        kind="trial",
        study=results.study.name,
        name=name,
        state=state,
        started=trial.started,
        finished=trial.finished if state != "running" else 0.0,
        parameters={**_settings(condition), **{path: setting_text(value) for path, value in trial.params.items()}},
        tags=_tags(condition) | {key: value for key, value in given.items() if value},
        rows=tuple(_rows(trial)),
        scores=_scores(trial),
    )


def _rows(trial: Trial) -> Iterator[TrackedRow]:
    """Yield the epochs. The record has no moments of them: each ends its seconds after the one before."""
    at = trial.started
    for record in trial.history:
        at += record.seconds
        measured = {name: float(getattr(record, name)) for name in OF_EPOCH}
        values = {name: value for name, value in measured.items() if value or name not in UNMEASURED}
        yield TrackedRow(step=record.epoch, time=at, values=values | dict(record.observed))


def _scores(trial: Trial) -> dict[str, float]:
    if trial.outcome is None:
        return {}
    found: dict[str, float] = {}
    for split, scored in trial.outcome.metrics.items():
        names = ("loss", "accuracy", "micro_f1", "macro_f1", "calibration_error", *scored.more)
        values = {name: scored.value(name) for name in names}
        found |= {f"{split}.{name}": value for name, value in values.items() if value is not None}
    cost = {name: trial.value(f"cost.{name}") for name in OF_COST}
    return found | {f"cost.{name}": value for name, value in cost.items() if value}


def _condition_run(results: StudyResults, condition: Condition) -> Iterator[TrackedRun]:
    metric = results.study.report.metric
    found = estimate_of(results, condition, metric)
    if found is None:
        return
    told = {"n": float(found.n), "mean": found.mean, "low": found.low, "high": found.high, "std": found.std}
    of_it = [one for one in results.trials if one.condition.key == condition.key]
    started = min(one.started for one in of_it if one.started)
    finished = max(one.finished for one in of_it)
    values = {f"{metric}.{name}": value for name, value in told.items() if value is not None}
    yield TrackedRun(
        id=_id(results.study.name, condition.key, "condition", started),
        kind="condition",
        study=results.study.name,
        name=condition.display_label,
        state="done",
        started=started,
        finished=finished,
        parameters=_settings(condition),
        tags=_tags(condition),
        rows=(TrackedRow(step=found.n, time=finished, values=values),),
    )


def _settings(condition: Condition) -> dict[str, str]:
    return dict(dotted_settings(condition.settings))


def _tags(condition: Condition) -> dict[str, str]:
    return {"condition": condition.display_label, "fingerprint": condition.key, **condition.levels}
