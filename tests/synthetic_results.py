"""Synthetic study results for the tests of analysis and report: numbers from a seeded generator, no training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchkit.plan import Condition, confirm_condition, make_plan
from benchkit.results import Cost, EpochRecord, Outcome, SplitMetrics, State, StudyResults, Trial
from benchkit.study import Study
from benchkit.study.studyfile import parse_study

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STRENGTH = {"bn": 0.80, "gn": 0.79, "ln": 0.74, "none": 0.66}
STUDY = """
title = "Normalisation layers (synthetic numbers)"
question = "Which normalisation layer trains this small network best?"
description = "Numbers from a random generator, made to try out the report. Nothing here was trained."
seed = 7
[data]
name = "digits"
val_size = 300
[model]
name = "resnet"
n = 2
[train]
epochs = {epochs}
batch_size = 64
optimizer = {{ name = "sgd", lr = 0.1, momentum = 0.9 }}
{factors}
{extra}
[repeats]
n = {repeats}
"""
SEARCH = """
[search]
trials = 40
goal = "val.loss"
space."train.optimizer.lr" = { low = 0.001, high = 0.3, log = true }
space."train.batch_size" = { low = 16, high = 256 }
[confirm]
n = 3
"""
PUBLISHED = """
[[published]]
source = "Example et al. (2019), table 2"
url = "https://example.org/paper"
note = "They train 200 epochs on images of 32 pixels; this study trains fewer."
rows = [
  { when = { "model.norm" = "bn" }, metric = "test.accuracy", value = 0.9167 },
  { when = { "model.norm" = "gn" }, metric = "test.accuracy", value = 0.8333 },
  { when = { "model.norm" = "gn" }, metric = "test.micro_f1", value = 0.75 },
  { when = { "model.norm" = "ln" }, metric = "test.accuracy", value = 0.7401, n = 10000 },
]
[report]
authors = ["A. Researcher"]
"""


def study_of(
    labels: Sequence[str] = ("bn", "gn", "ln", "none"), *, extra: str = "", repeats: int = 3, epochs: int = 30
) -> Study:
    """Return a study with one factor, `model.norm`, whose levels carry the given labels."""
    levels = ", ".join(_level(place, label) for place, label in enumerate(labels, 1))
    factors = f'[factors]\n"model.norm" = [{levels}]' if labels else ""
    text = STUDY.format(factors=factors, extra=extra, repeats=repeats, epochs=epochs)
    return parse_study(text, name="synthetic-norms")


def _level(place: int, label: str) -> str:
    if label in STRENGTH:
        return _quoted(label)
    return f'{{ label = {_quoted(label)}, value = {{ name = "gn", groups = {place} }} }}'


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def complete(
    folder: Path,
    labels: Sequence[str] = ("bn", "gn", "ln", "none"),
    *,
    repeats: int = 3,
    extra: str = "",
    epochs: int = 30,
    spread: float = 0.004,
) -> StudyResults:
    """Return a complete grid: every repeat done, predictions on disk under `folder`."""
    study = study_of(labels, repeats=repeats, extra=extra, epochs=epochs)
    conditions = make_plan(study).conditions
    truth = _labels()
    trials = [
        _done(condition, index, strength(condition.label, place), folder, truth, spread)
        for index in range(repeats)
        for place, condition in enumerate(c for c in conditions if c.kind == "grid")
    ]
    return _results(study, conditions, [replace(t, number=n) for n, t in enumerate(trials)], truth)


def with_search(folder: Path, *, confirmed: bool = True) -> StudyResults:
    """Return a grid of one condition, a search of 40 trials with some pruned, and its confirmation."""
    base = complete(folder, ("gn",), extra=SEARCH)
    frame = next(c for c in base.conditions if c.kind == "search")
    rng = np.random.default_rng(11)
    trials = list(base.trials)
    for slot in range(40):
        trials.append(_search_trial(frame, slot, len(trials), rng, folder))
    conditions = base.conditions
    if confirmed:
        done = [t for t in trials if t.phase == "search" and t.state == "done"]
        best = min(done, key=lambda t: t.score("val.loss"))
        chosen = confirm_condition(base.study, frame, best.params)
        conditions = (*conditions, chosen)
        for index in range(3):
            trial = _done(chosen, index, 0.83, folder, _labels(), 0.004)
            trials.append(replace(trial, number=len(trials), phase="confirm"))
    return replace(base, conditions=conditions, trials=tuple(trials))


def unfinished(folder: Path) -> StudyResults:
    """Return a grid in which trials failed, diverged, went stale, run, wait or are missing."""
    base = complete(folder)
    states: dict[tuple[str, int], State] = {
        ("none", 0): "diverged",
        ("none", 1): "failed",
        ("none", 2): "stale",
        ("ln", 2): "running",
        ("gn", 2): "waiting",
    }
    trials = []
    for trial in base.trials:
        state = states.get((trial.condition.label, trial.index), "done")
        if (trial.condition.label, trial.index) != ("bn", 2):
            trials.append(trial if state == "done" else _ended(trial, state))
    return replace(base, trials=tuple(trials), left_out=("2 trials of an earlier version (epochs = 5) are left out.",))


def empty() -> StudyResults:
    """Return a study of which nothing has been trained."""
    study = study_of(extra=PUBLISHED)
    return _results(study, make_plan(study).conditions, [], _labels())


def rescored(results: StudyResults, scores: Mapping[str, Sequence[float]], metric: str = "accuracy") -> StudyResults:
    """Return the results with these scores on test, by condition label and repeat."""
    trials = []
    for trial in results.trials:
        values = scores.get(trial.condition.label)
        if values is not None and trial.outcome is not None and trial.phase != "search":
            names = (metric, "micro_f1") if metric == "accuracy" else (metric,)
            score = replace(trial.outcome.metrics["test"], **dict.fromkeys(names, values[trial.index]))
            outcome = replace(trial.outcome, metrics={**trial.outcome.metrics, "test": score})
            trial = replace(trial, outcome=outcome)
        trials.append(trial)
    return replace(results, trials=tuple(trials))


def strength(label: str, place: int) -> float:
    """Return the accuracy around which a condition's repeats lie."""
    return STRENGTH.get(label, 0.70 + 0.007 * (place % 13))


def _results(
    study: Study, conditions: tuple[Condition, ...], trials: Sequence[Trial], truth: np.ndarray
) -> StudyResults:
    return StudyResults(
        study=study,
        conditions=conditions,
        trials=tuple(trials),
        class_names=CLASSES,
        labels={"test": truth, "val": truth[:300]},
        data={"name": "digits", "synthetic": True, "fingerprint": "0" * 64, "train": 1200, "val": 300, "test": 1000},
        workspace="benchkit-runs",
        command="benchkit sweep synthetic-norms",
    )


def _labels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 10, 1000)


def _done(condition: Condition, index: int, accuracy: float, folder: Path, truth: np.ndarray, spread: float) -> Trial:
    rng = np.random.default_rng(int(condition.key, 16) + index)
    shared = np.random.default_rng(100 + index).normal(0, spread)
    level = accuracy + shared + rng.normal(0, spread)
    logits = {split: _logits(truth[:n], level, rng) for split, n in (("val", 300), ("test", 1000))}
    place = folder / f"{condition.key}-{condition.kind}-{index}"
    place.mkdir(parents=True, exist_ok=True)
    save_file(logits, place / "predictions.safetensors")
    epochs = int(condition.settings["train"]["epochs"])
    metrics = {split: scored(found, truth[: len(found)]) for split, found in logits.items()}
    metrics["train"] = scored(_logits(truth, min(0.99, level + 0.12), rng), truth)
    history = _history(level, epochs, rng, overfits=condition.label in ("bn", "none"))
    return Trial(
        condition=condition,
        phase="grid",
        index=index,
        attempt=0,
        number=0,
        state="done",
        params={},
        history=history,
        outcome=Outcome(
            state="done",
            selected_epoch=min(history, key=lambda r: r.val_loss).epoch,
            metrics=metrics,  # type: ignore[arg-type]
            cost=_cost(condition, history),
            data_fingerprint="0" * 64,
            test_reads=1,
            environment=ENVIRONMENT,
        ),
        folder=place,
        started=1.7e9 + 100 * index,
        finished=1.7e9 + 100 * index + 60,
    )


ENVIRONMENT: Mapping[str, Any] = {
    "python": "3.11.7",
    "system": "Linux x86_64",
    "device": "synthetic processor, 2 cores",
    "versions": {"benchkit": "0.1.0", "torch": "2.15.0", "optuna": "5.0.0"},
}


def _logits(truth: np.ndarray, accuracy: float, rng: np.random.Generator) -> np.ndarray:
    """Return logits float32 (n, 10), right for about this share of images; the same images are hard for all."""
    n = len(truth)
    difficulty = np.random.default_rng(2).uniform(0, 1, 1000)[:n] + rng.normal(0, 0.05, n)
    logits = rng.normal(0, 0.6, (n, 10))
    rival = np.where(truth == 3, 5, np.where(truth == 5, 3, (truth + 1) % 10))
    right = difficulty < accuracy
    rows = np.arange(n)
    logits[rows, truth] += np.where(right, 4.0, 1.0)
    logits[rows, rival] += np.where(right, 1.0, 4.0)
    return logits.astype(np.float32)


def scored(logits: np.ndarray, truth: np.ndarray) -> SplitMetrics:
    """Return the metrics of logits, computed in float64."""
    wide = logits.astype(np.float64)
    shares = np.exp(wide - wide.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    called = wide.argmax(axis=1)
    confusion = np.zeros((10, 10), dtype=int)
    np.add.at(confusion, (truth, called), 1)
    right = np.diag(confusion)
    recalls = right / np.maximum(1, confusion.sum(axis=1))
    f1 = 2 * right / np.maximum(1, confusion.sum(axis=1) + confusion.sum(axis=0))
    accuracy = float((called == truth).mean())
    return SplitMetrics(
        n=len(truth),
        loss=float(-np.log(shares[np.arange(len(truth)), truth]).mean()),
        accuracy=accuracy,
        micro_f1=accuracy,
        macro_f1=float(f1.mean()),
        calibration_error=float(abs(shares.max(axis=1).mean() - accuracy)),
        class_accuracy=tuple(float(value) for value in recalls),
        confusion=tuple(tuple(int(v) for v in row) for row in confusion),
    )


def _history(level: float, epochs: int, rng: np.random.Generator, *, overfits: bool) -> tuple[EpochRecord, ...]:
    records = []
    for epoch in range(1, epochs + 1):
        done = 1 - math.exp(-4 * epoch / epochs)
        late = max(0.0, epoch / epochs - 0.5) if overfits else 0.0
        records.append(
            EpochRecord(
                epoch=epoch,
                train_loss=2.3 * math.exp(-3.5 * epoch / epochs) + 0.05,
                train_accuracy=min(0.99, 0.1 + (level + 0.02) * done),
                val_loss=2.3 - (1.4 + level - 0.6) * done + 1.2 * late + float(rng.normal(0, 0.01)),
                val_accuracy=0.1 + (level - 0.1) * done + float(rng.normal(0, 0.005)),
                learning_rate=0.1 if epoch <= epochs // 2 else 0.01,
                gradient_norm=1.0 + float(rng.random()),
                seconds=1.5 + 0.2 * float(rng.random()),
                images_per_second=800.0,
                peak_memory=120.0,
            )
        )
    return tuple(records)


def _cost(condition: Condition, history: Sequence[EpochRecord]) -> Cost:
    slower = 1.0 + 0.15 * (int(condition.key[0], 16) % 5)
    seconds = slower * sum(record.seconds for record in history)
    return Cost(
        parameters=175_258,
        flops=27_400_000,
        seconds=seconds,
        images_per_second=1200 * len(history) / seconds,
        peak_memory=120.0 * slower,
        device="synthetic processor, 2 cores",
        precision="float32",
    )


def _search_trial(frame: Condition, slot: int, number: int, rng: np.random.Generator, folder: Path) -> Trial:
    lr = float(10 ** rng.uniform(-3, math.log10(0.3)))
    level = 0.78 + 0.05 * math.exp(-((math.log10(lr) + 1.3) ** 2)) + float(rng.normal(0, 0.005))
    state: State = "pruned" if slot % 3 == 2 else "failed" if slot == 7 else "done"
    epochs = 30 if state == "done" else 6
    history = _history(level, 30, rng, overfits=False)[:epochs]
    truth = _labels()[:300]
    score = replace(scored(_logits(truth, level, rng), truth), loss=min(record.val_loss for record in history))
    outcome = Outcome(
        state=state,
        reason={"failed": "RuntimeError: out of memory", "pruned": "median pruner, epoch 6"}.get(state, ""),
        selected_epoch=epochs,
        metrics={"val": score} if state == "done" else {},
        cost=_cost(frame, history),
        environment=ENVIRONMENT,
    )
    return Trial(
        condition=frame,
        phase="search",
        index=slot,
        attempt=0,
        number=number,
        state=state,
        params={"train.optimizer.lr": lr, "train.batch_size": int(rng.integers(16, 257))},
        history=history,
        outcome=outcome,
        folder=folder / f"search-{slot}",
        started=1.7e9 + 60 * slot,
        finished=1.7e9 + 60 * slot + 50,
    )


def _ended(trial: Trial, state: State) -> Trial:
    reasons = {"diverged": "the loss became non-finite in epoch 4", "failed": "RuntimeError: <b>shape</b> mismatch"}
    outcome = Outcome(state=state, reason=reasons.get(state, "")) if state in reasons else None
    epochs = {"diverged": 3, "failed": 5, "stale": 12, "running": 9}.get(state, 0)
    return replace(trial, state=state, outcome=outcome, history=trial.history[:epochs], finished=0.0)


FACTORIES: Mapping[str, Callable[[Path], StudyResults]] = {
    "complete": complete,
    "search": with_search,
    "published": lambda folder: complete(folder, extra=PUBLISHED),
    "unfinished": unfinished,
    "empty": lambda folder: empty(),
    "one": lambda folder: complete(folder, (), repeats=1),
    "twenty": lambda folder: complete(folder, [f"variant {i + 1}" for i in range(20)], repeats=2, epochs=8),
    "hostile": lambda folder: complete(folder, HOSTILE),
}
HOSTILE = ("<script>alert(1)</script>", "{{7*7}}", "50% & $x_1^2$ \\ #~", "[bold red]x[/]", "=SUM(A1)")
