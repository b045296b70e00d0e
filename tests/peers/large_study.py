"""A workspace with a large study in it, to measure what a report costs: numbers from a generator, nothing trained.

The ledger is a real one: Optuna's SQLite storage with every reported epoch of the searches, and for each trial its
history, outcome and (where a sweep stores them) its logits. The report of it says on its cover that its numbers are
synthetic.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from safetensors.numpy import save_file

from benchkit.ledger import Ledger
from benchkit.ledger.readback import confirm_conditions
from benchkit.ledger.samplers import distribution
from benchkit.plan import Condition, Plan, make_plan
from benchkit.results import Cost, EpochRecord, Outcome, SplitMetrics
from benchkit.study import Study
from benchkit.study.studyfile import parse_study

STUDY = """
title = "Synthetic: what a report of {total} trials costs"
question = "How long does the report of a large study take?"
description = "Every number is from a random generator, to measure the report itself. Nothing here was trained."
seed = 7
[data]
name = "cifar10"
val_size = 5000
[model]
name = "resnet"
n = 2
[train]
epochs = {epochs}
[factors]
"model.norm" = [{levels}]
[search]
trials = {slots}
goal = "val.loss"
space."train.optimizer.lr" = {{ low = 0.001, high = 0.3, log = true }}
space."train.batch_size" = {{ low = 16, high = 256 }}
[confirm]
n = {confirm}
[repeats]
n = {repeats}
[report]
figures = [{figures}]
"""
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BEGIN = datetime.datetime(2026, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the study is: conditions x (repeats + search trials + confirming repeats), epochs, and test images."""

    conditions: int = 20
    repeats: int = 5
    slots: int = 42
    confirm: int = 3
    epochs: int = 100
    images: int = 10_000
    figures: tuple[str, ...] = ("class-accuracy", "confusion-difference", "loss-gap")

    @property
    def trials(self) -> int:
        """Return the number of trials."""
        return self.conditions * (self.repeats + self.slots + self.confirm)


def build(workspace: Path, size: Size) -> Study:
    """Write the ledger and the trials' files under `workspace`, and return the study."""
    study = _study(size)
    plan = make_plan(study)
    ledger = Ledger(workspace)
    data = {"name": "cifar10", "synthetic": True, "fingerprint": "0" * 64, "test": size.images, "class_names": CLASSES}
    ledger.register(plan, {**data, "train": 45_000, "val": 5_000}, f"benchkit sweep {study.name}")
    truth = np.random.default_rng(1).integers(0, 10, size.images)
    for condition in plan.conditions:
        _fill(ledger, plan, condition, size, truth)
    for condition in confirm_conditions(ledger, plan):
        _fill(ledger, plan, condition, size, truth)
    return study


def _study(size: Size) -> Study:
    levels = ", ".join(
        f'{{ label = "variant {n}", value = {{ name = "gn", groups = {n} }} }}' for n in range(1, size.conditions + 1)
    )
    text = STUDY.format(
        total=f"{size.trials:,}",
        levels=levels,
        epochs=size.epochs,
        slots=size.slots,
        confirm=size.confirm,
        repeats=size.repeats,
        figures=", ".join(f'"{name}"' for name in size.figures),
    )
    return parse_study(text, name=f"synthetic-{size.trials}-trials")


def _fill(ledger: Ledger, plan: Plan, condition: Condition, size: Size, truth: np.ndarray) -> None:
    """Record every trial of a condition as done."""
    handle = ledger.open(plan.study, condition)
    for index in range(plan.count(condition)):
        rng = np.random.default_rng([int(condition.key, 16), index])
        params = dict(_params(rng)) if condition.kind == "search" else {}
        level = _level(condition, params, rng)
        history = tuple(_epochs(level, size.epochs, rng))
        folder = ledger.folder(plan.study, condition, index)
        folder.write_history(history)
        splits = ("train", "val") if condition.kind == "search" else ("train", "val", "test")
        counts = {"train": 5_000, "val": 5_000, "test": size.images}
        logits = {split: _logits(truth, counts[split], level, rng) for split in splits}
        metrics = {split: _scored(found, _labels(truth, counts[split])) for split, found in logits.items()}
        if condition.kind != "search":
            labels = {f"{split}_labels": _labels(truth, counts[split]) for split in ("val", "test")}
            save_file({**{split: logits[split] for split in ("val", "test")}, **labels}, folder.predictions)
        folder.write_outcome(_outcome(metrics, history, index))
        handle.add_trial(_frozen(plan.study, condition, index, params, history))


def _params(rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
    yield "train.optimizer.lr", float(10 ** rng.uniform(-3, math.log10(0.3)))
    yield "train.batch_size", int(rng.integers(16, 257))


def _level(condition: Condition, params: Mapping[str, Any], rng: np.random.Generator) -> float:
    chosen = params or condition.chosen
    lr = float(chosen.get("train.optimizer.lr", 0.1))  # type: ignore[arg-type]
    base = 0.74 + 0.005 * (int(condition.key[:3], 16) % 13)
    return base + 0.05 * math.exp(-((math.log10(lr) + 1.3) ** 2)) + float(rng.normal(0, 0.004))


def _epochs(level: float, epochs: int, rng: np.random.Generator) -> Iterator[EpochRecord]:
    for epoch in range(1, epochs + 1):
        done = 1 - math.exp(-4 * epoch / epochs)
        yield EpochRecord(
            epoch=epoch,
            train_loss=2.3 * math.exp(-3.5 * epoch / epochs) + float(rng.normal(0.05, 0.005)),
            train_accuracy=min(0.99, 0.1 + (level + 0.02) * done),
            val_loss=2.3 - (1.4 + level - 0.6) * done + float(rng.normal(0, 0.01)),
            val_accuracy=0.1 + (level - 0.1) * done + float(rng.normal(0, 0.005)),
            learning_rate=0.1 if epoch <= epochs // 2 else 0.01,
            gradient_norm=1.0 + float(rng.random()),
            seconds=1.5 + 0.2 * float(rng.random()),
            images_per_second=28_000 + 500 * float(rng.random()),
            peak_memory=120.0,
        )


def _labels(truth: np.ndarray, n: int) -> np.ndarray:
    return np.resize(truth, n)


def _logits(truth: np.ndarray, n: int, accuracy: float, rng: np.random.Generator) -> np.ndarray:
    """Return logits float32 (n, 10), right for about this share of images."""
    labels, rows = _labels(truth, n), np.arange(n)
    logits = rng.normal(0, 0.6, (n, 10)).astype(np.float32)
    right = rng.uniform(0, 1, n) < accuracy
    logits[rows, labels] += np.where(right, 4.0, 1.0)
    logits[rows, (labels + 1 + rng.integers(0, 3, n)) % 10] += np.where(right, 1.0, 4.0)
    return logits


def _scored(logits: np.ndarray, truth: np.ndarray) -> SplitMetrics:
    called = logits.argmax(axis=1)
    confusion = np.bincount(10 * truth + called, minlength=100).reshape(10, 10)
    right, accuracy = np.diag(confusion), float((called == truth).mean())
    f1 = 2 * right / np.maximum(1, confusion.sum(axis=1) + confusion.sum(axis=0))
    return SplitMetrics(
        n=len(truth),
        loss=2.3 - 2 * accuracy,
        accuracy=accuracy,
        micro_f1=accuracy,
        macro_f1=float(f1.mean()),
        calibration_error=0.04,
        class_accuracy=tuple((right / np.maximum(1, confusion.sum(axis=1))).tolist()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def _outcome(metrics: Mapping[Any, SplitMetrics], history: tuple[EpochRecord, ...], index: int) -> Outcome:
    seconds = sum(record.seconds for record in history)
    cost = Cost(
        parameters=175_258,
        flops=27_400_000,
        seconds=seconds,
        images_per_second=45_000 * len(history) / seconds,
        peak_memory=120.0 + index,
        device="synthetic processor",
        precision="float32",
    )
    return Outcome(
        state="done",
        selected_epoch=min(history, key=lambda record: record.val_loss).epoch,
        metrics=metrics,
        cost=cost,
        data_fingerprint="0" * 64,
        test_reads=int("test" in metrics),
        environment={"python": "3.11.7", "device": "synthetic processor", "versions": {"benchkit": "0.1.0"}},
    )


def _frozen(
    study: Study, condition: Condition, index: int, params: Mapping[str, Any], history: tuple[EpochRecord, ...]
) -> FrozenTrial:
    ranges = {one.path: distribution(one) for one in study.search.space} if study.search and params else {}
    reported = {record.epoch: record.val_loss for record in history} if condition.kind == "search" else {}
    start = BEGIN + datetime.timedelta(minutes=3 * index, seconds=int(condition.key[:4], 16) % 170)
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState.COMPLETE,
        value=min(record.val_loss for record in history),
        datetime_start=start,
        datetime_complete=start + datetime.timedelta(minutes=2.5),
        params=dict(params),
        distributions=ranges,
        user_attrs={"index": index, "attempt": 0},
        system_attrs={},
        intermediate_values=reported,
    )


optuna.logging.set_verbosity(optuna.logging.ERROR)
