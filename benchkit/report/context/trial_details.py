"""What the page's panel shows of every trial: settings, outcome, seeds, thinned history and the end of its log."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchkit.analysis.wording import bare, measured, metric_unit, metric_words, setting
from benchkit.duration import duration
from benchkit.ledger.trialfolder import TrialFolder
from benchkit.metrics import SPLITS, metric_names
from benchkit.plan import Condition
from benchkit.report.privacy import private_text
from benchkit.results import EpochRecord, StudyResults, Trial
from benchkit.study.seeds import PURPOSES, trial_seeds

MOST_EPOCHS = 40
"""A longer history is thinned evenly to at most about this many epochs, the first and the last among them."""

LOG_BYTES, LOG_LINES = 4000, 25
"""The end of a log is at most this long."""

MOST_LOGS = 300
"""Beyond this many trials only those that did not end as done show the end of their log."""

SERIES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\t\n\x20-\x7e\x85\xa0-\U0010ffff]")


def trial_details(results: StudyResults) -> list[dict[str, Any]]:
    """Return for every condition in report order its settings and its trials, numbers as the report words them.

    Trials are numbered as in the table of every trial. Values are plain JSON without NaN.
    """
    ordered = sorted(results.trials, key=lambda trial: (trial.started or math.inf, trial.number))
    numbers = {id(trial): place for place, trial in enumerate(ordered, 1)}
    with_logs = len(ordered) <= MOST_LOGS
    found: dict[str, list[dict[str, Any]]] = {condition.key: [] for condition in results.conditions}
    for trial in ordered:
        if trial.condition.key in found:
            logged = with_logs or trial.state != "done"
            found[trial.condition.key].append(_trial(trial, numbers[id(trial)], results, logged=logged))
    return [{"settings": _settings(condition), "trials": found[condition.key]} for condition in results.conditions]


def _settings(condition: Condition) -> list[list[str]]:
    chosen = [[path, setting(value)] for path, value in condition.chosen.items()]
    return [*([path, str(label)] for path, label in condition.levels.items()), *chosen]


def _trial(trial: Trial, number: int, results: StudyResults, *, logged: bool) -> dict[str, Any]:
    outcome = trial.outcome
    facts = [
        ["stage", trial.phase],
        ["slot of the search" if trial.phase == "search" else "repeat", str(trial.index)],
        ["attempt", str(trial.attempt)] if trial.attempt else [],
        ["reason", trial.reason],
        ["epochs trained", str(len(trial.history))],
        ["epoch scored", str(outcome.selected_epoch) if outcome and outcome.selected_epoch else ""],
        ["training time", duration(sum(record.seconds for record in trial.history)) if trial.history else ""],
        ["device", outcome.cost.device if outcome and outcome.cost else ""],
        ["precision", outcome.cost.precision if outcome and outcome.cost else ""],
        ["test images read", f"{outcome.test_reads} times" if outcome and outcome.test_reads > 1 else ""],
        ["notes", "; ".join(outcome.notes) if outcome else ""],
    ]
    return {
        "number": number,
        "state": trial.state,
        "main": _score(trial, results.study.report.metric),
        "facts": [fact for fact in facts if fact and fact[1]],
        "params": [[path, setting(value)] for path, value in trial.params.items()],
        "seeds": _seeds(trial, results.study.seed),
        "scores": _scores(trial),
        "history": _history(trial.history),
        "log": log_end(TrialFolder(trial.folder).log) if logged else "",
    }


def _score(trial: Trial, metric: str) -> str:
    try:
        return measured(metric, trial.score(metric))
    except KeyError:
        return ""


def _scores(trial: Trial) -> list[list[str]]:
    """Return a row for each metric: its name, then its value on every split of `SPLITS`, as text."""
    scored: Mapping[Any, Any] = trial.outcome.metrics if trial.outcome else {}
    if not scored:
        return []
    rows = []
    for name in metric_names():
        values = [scored[split].value(name) if split in scored else None for split in SPLITS]
        if any(value is not None for value in values):
            texts = ["" if value is None else bare(name, value) for value in values]
            rows.append([f"{metric_words(name)} ({metric_unit(name)})", *texts])
    return rows


def _seeds(trial: Trial, seed: int) -> list[list[str]]:
    """Return the seeds that the trial's random numbers came from, as text: they exceed what JavaScript counts to."""
    derived = trial_seeds(seed, trial.phase, trial.index)
    return [["study", str(seed)], *([PURPOSES[purpose], str(value)] for purpose, value in derived.items())]


def _history(records: Sequence[EpochRecord]) -> dict[str, list[float | None]]:
    if not records:
        return {}
    stride = math.ceil(len(records) / MOST_EPOCHS)
    kept = [record for place, record in enumerate(records) if place % stride == 0 or place == len(records) - 1]
    series: dict[str, list[float | None]] = {"epoch": [record.epoch for record in kept]}
    for name in SERIES:
        series[name] = [_short(getattr(record, name)) for record in kept]
    return series


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def log_end(path: Path) -> str:
    """Return the last lines of a log as plain text without terminal codes and home folders, or nothing."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_BYTES))
        text = file.read().decode(errors="replace")
    lines = _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).splitlines()
    whole = lines[1:] if size > LOG_BYTES else lines
    return private_text("\n".join(whole[-LOG_LINES:]).strip("\n"))
