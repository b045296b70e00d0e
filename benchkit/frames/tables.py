"""The tables of a study: their columns, the same for every study, and their rows.

What was not measured is null; so are the scores of a trial that diverged, failed or still runs, and its state says
which it was. No table holds NaN. Times are UTC, to the microsecond. Imports no table library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from benchkit.analysis.estimates import Estimate, estimate_of
from benchkit.analysis.summary import dotted_settings
from benchkit.metrics import SCORES
from benchkit.plan import Condition
from benchkit.results import SPLITS, EpochRecord, SplitName, StudyResults

VERSION = "1"
"""Of the columns: it grows when one changes its meaning or goes."""

Kind = Literal["text", "whole", "number", "yes-no", "time", "texts", "numbers"]
"""texts and numbers are maps from names to text or numbers."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameColumn:
    """A column's name, kind of value, and meaning."""

    name: str
    kind: Kind
    meaning: str


def _scores(*splits: SplitName) -> tuple[FrameColumn, ...]:
    return tuple(
        FrameColumn(name=f"{split}_{one.name}", kind="number", meaning=f"{one.words} on {split}, as stored")
        for split in splits
        for one in SCORES
    )


_WHICH = (
    FrameColumn(name="study", kind="text", meaning="the study's name"),
    FrameColumn(name="condition", kind="text", meaning="the condition's label"),
    FrameColumn(name="condition_key", kind="text", meaning="the digest of the condition's settings"),
)

TRIALS = (
    *_WHICH,
    FrameColumn(name="phase", kind="text", meaning="grid, search or confirm"),
    FrameColumn(name="repeat", kind="whole", meaning="the repeat, or the number within a search, from 0"),
    FrameColumn(name="attempt", kind="whole", meaning="how often it was begun anew before"),
    FrameColumn(name="number", kind="whole", meaning="the trial's number in the ledger, within its condition"),
    FrameColumn(name="counts", kind="yes-no", meaning="whether it counts: not an attempt that a later one replaced"),
    FrameColumn(name="state", kind="text", meaning="done, pruned, diverged, failed, running, ..."),
    FrameColumn(name="reason", kind="text", meaning="why it did not end as done"),
    FrameColumn(name="started", kind="time", meaning="when it was first begun, UTC"),
    FrameColumn(name="finished", kind="time", meaning="when it ended, UTC"),
    FrameColumn(name="epochs", kind="whole", meaning="epochs that it trained"),
    *_scores("val", "test"),
    FrameColumn(name="other_scores", kind="numbers", meaning="scores by metrics of plugins, by split.name"),
    FrameColumn(name="seconds", kind="number", meaning="training time, validation included"),
    FrameColumn(name="images_per_second", kind="number", meaning="training images over training time"),
    FrameColumn(name="peak_memory_mib", kind="number", meaning="peak memory of training"),
    FrameColumn(name="energy_joules", kind="number", meaning="what the whole device used"),
    FrameColumn(name="parameters", kind="whole", meaning="parameters of the model"),
    FrameColumn(name="flops", kind="whole", meaning="operations of one image's forward pass"),
    FrameColumn(name="device", kind="text", meaning="the model of the device"),
    FrameColumn(name="precision", kind="text", meaning="the precision that it was trained in"),
    FrameColumn(name="params", kind="texts", meaning="what a search chose, by setting"),
    FrameColumn(name="settings", kind="texts", meaning="the condition's settings, by dotted path"),
    FrameColumn(name="selected_epoch", kind="whole", meaning="the epoch, from 1, whose weights were scored"),
    *_scores("train"),
)

EPOCHS = (
    *_WHICH,
    FrameColumn(name="repeat", kind="whole", meaning="the trial's repeat, or number within a search, from 0"),
    FrameColumn(name="number", kind="whole", meaning="the trial's number in the ledger, within its condition"),
    FrameColumn(name="epoch", kind="whole", meaning="the epoch, from 1"),
    *(
        FrameColumn(name=name, kind="number", meaning=meaning)
        for name, meaning in (
            ("train_loss", "the loss that was optimised, nats"),
            ("train_accuracy", "share of the training images as they were augmented"),
            ("val_loss", "mean cross-entropy on val, nats"),
            ("val_accuracy", "share of val"),
            ("learning_rate", "rate of the epoch's last step"),
            ("gradient_norm", "mean global L2 norm before clipping"),
            ("seconds", "seconds of the epoch"),
            ("images_per_second", "training images over training time"),
            ("peak_memory", "MiB"),
            ("energy", "joules of the whole device"),
        )
    ),
    FrameColumn(name="device", kind="text", meaning="the model of the device"),
    FrameColumn(name="node", kind="text", meaning="the machine"),
    FrameColumn(name="observed", kind="numbers", meaning="what figures and metrics noted of the epoch"),
)

CONDITIONS = (
    *_WHICH,
    FrameColumn(name="kind", kind="text", meaning="grid, search or confirm"),
    FrameColumn(name="metric", kind="text", meaning="the study's main metric, of which mean and interval are"),
    FrameColumn(name="n", kind="whole", meaning="done repeats"),
    FrameColumn(name="mean", kind="number", meaning="mean over done repeats"),
    FrameColumn(name="low", kind="number", meaning="lower end of its interval, as the report has it"),
    FrameColumn(name="high", kind="number", meaning="upper end of its interval, as the report has it"),
    FrameColumn(name="confidence", kind="number", meaning="of the interval: 0.95, or more where looks are planned"),
    FrameColumn(name="std", kind="number", meaning="sample standard deviation"),
    FrameColumn(name="settings", kind="texts", meaning="the condition's settings, by dotted path"),
)


def trial_rows(results: StudyResults) -> Iterator[Row]:
    """Yield a row for each trial, those that count first."""
    counting = len(results.trials)
    for at, trial in enumerate((*results.trials, *results.earlier)):
        outcome = trial.outcome
        cost = outcome.cost if outcome else None
        row = _which(results, trial.condition) | {
            "phase": trial.phase,
            "repeat": trial.index,
            "attempt": trial.attempt,
            "number": trial.number,
            "counts": at < counting,
            "state": trial.state,
            "reason": trial.reason or None,
            "started": _moment(trial.started),
            "finished": _moment(trial.finished),
            "epochs": len(trial.history),
            "other_scores": {},
            "device": cost.device if cost else None,
            "precision": cost.precision if cost else None,
            "parameters": cost.parameters if cost else None,
            "flops": cost.flops if cost else None,
            "seconds": _number(cost.seconds) if cost else None,
            "images_per_second": _number(cost.images_per_second) if cost else None,
            "peak_memory_mib": _number(cost.peak_memory) or None if cost else None,
            "energy_joules": _number(cost.energy) or None if cost else None,
            "selected_epoch": (outcome.selected_epoch or None) if outcome else None,
            "params": {path: str(value) for path, value in trial.params.items()},
            "settings": _settings(trial.condition),
        }
        own = {one.name for one in SCORES}
        for split in SPLITS:
            scored = outcome.metrics.get(split) if outcome and trial.state == "done" else None
            for one in SCORES:
                value = scored.value(one.name) if scored else None
                row[f"{split}_{one.name}"] = None if value is None else _number(value)
            more = scored.more if scored else {}
            found = {f"{split}.{name}": _number(float(value)) for name, value in more.items() if name not in own}
            row["other_scores"] |= {name: value for name, value in found.items() if value is not None}
        yield row


def epoch_rows(results: StudyResults) -> Iterator[Row]:
    """Yield a row for each epoch of the trials that count."""
    names = [column.name for column in EPOCHS if column.kind == "number"]
    for trial in results.trials:
        for record in trial.history:
            yield _which(results, trial.condition) | {
                "repeat": trial.index,
                "number": trial.number,
                "epoch": record.epoch,
                **{name: _measured(record, name) for name in names},
                "device": record.device or None,
                "node": record.node or None,
                "observed": {name: float(value) for name, value in record.observed.items() if math.isfinite(value)},
            }


def condition_rows(results: StudyResults) -> Iterator[Row]:
    """Yield a row for each condition with what the report says of it by the study's main metric."""
    metric = results.study.report.metric
    for condition in results.conditions:
        found: Estimate | None = estimate_of(results, condition, metric) if condition.kind != "search" else None
        yield _which(results, condition) | {
            "kind": condition.kind,
            "metric": metric,
            "n": found.n if found else 0,
            "mean": found.mean if found else None,
            "low": found.low if found else None,
            "high": found.high if found else None,
            "confidence": found.confidence if found else None,
            "std": found.std if found else None,
            "settings": _settings(condition),
        }


TABLES: Mapping[str, tuple[tuple[FrameColumn, ...], Callable[[StudyResults], Iterator[Row]]]] = {
    "trials": (TRIALS, trial_rows),
    "conditions": (CONDITIONS, condition_rows),
    "epochs": (EPOCHS, epoch_rows),
}
"""Each table's columns and what yields its rows."""


def rows_of(results: StudyResults, table: str) -> list[Row]:
    """Return the rows of a table (`trials`, `conditions`, `epochs`), each with all columns in their order."""
    columns, rows = TABLES[table]
    return [{column.name: row[column.name] for column in columns} for row in rows(results)]


def _which(results: StudyResults, condition: Condition) -> Row:
    return {"study": results.study.name, "condition": condition.display_label, "condition_key": condition.key}


def _settings(condition: Condition) -> dict[str, str]:
    return dict(dotted_settings(condition.settings))


def _measured(record: EpochRecord, name: str) -> float | None:
    value = _number(getattr(record, name))
    return None if name in ("energy", "peak_memory") and value == 0 else value


def _number(value: float) -> float | None:
    """Return a number as tables hold it: null where it is none, as the loss of an epoch that diverged."""
    return float(value) if math.isfinite(value) else None


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None) if seconds else None
