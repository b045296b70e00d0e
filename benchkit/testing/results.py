"""Made-up results of studies for the checks of figures: complete, large, with missing trials, a search, nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from benchkit.metrics import Predictions
from benchkit.plan import Condition, ConditionKind
from benchkit.results import Cost, EpochRecord, Outcome, SplitMetrics, State, StudyResults, Trial
from benchkit.study import Factor, Goal, Level, ReportSettings, Search, SearchRange, Study

CLASSES = ("cat", "dog", "fish", "owl")
IMAGES = 60
EPOCHS = 6
_LABELS = np.arange(IMAGES, dtype=np.int64) % len(CLASSES)
_SPACE = (
    SearchRange(path="train.optimizer.lr", low=0.001, high=0.3, log=True),
    SearchRange(path="train.batch_size", low=16, high=256, integer=True),
    SearchRange(path="train.schedule.name", choices=("step", "cosine")),
)


def results_of(folder: Path, count: int, *, repeats: int, search: bool = False, seed: int = 0) -> StudyResults:
    """Return results in which all repeats of `count` conditions are done, and a search where that is asked for."""
    labels = [f"norm-{rank}" for rank in range(1, count + 1)]
    conditions = [_condition(label) for label in labels]
    rng = np.random.default_rng(seed % 2**32)
    trials = [
        _done(condition, index, 0.55 + 0.35 * (rank + 1) / (count + 1) + 0.02 * rng.standard_normal(), folder)
        for rank, condition in enumerate(conditions)
        for index in range(repeats)
    ]
    if search:
        frame = _condition("norm-1, search", "search")
        conditions.append(frame)
        trials += [_searched(frame, slot, rng) for slot in range(16)]
    return StudyResults(
        study=_study(labels, repeats, search),
        conditions=tuple(conditions),
        trials=tuple(replace(trial, number=number) for number, trial in enumerate(trials)),
        class_names=CLASSES,
        labels={"val": _LABELS, "test": _LABELS},
        data={"name": "made-up", "class_names": list(CLASSES), "image_shape": [8, 8, 3], "fingerprint": "0" * 64},
        workspace="benchkit-runs",
        command="benchkit sweep made-up",
    )


def with_missing(whole: StudyResults) -> StudyResults:
    """Return results of which trials diverged, failed, went stale, run, wait or are not there at all.

    The last condition has no trial that is done, the one before it a single one.
    """
    states: Sequence[State | None] = ("diverged", "failed", None, "running", "stale", "waiting")
    last = [condition.key for condition in whole.conditions[-2:]]
    turn = itertools.cycle(states)
    trials = []
    for trial in whole.trials:
        spared = trial.condition.key == last[0] and trial.index == 0
        if trial.condition.key not in last or spared:
            trials.append(trial)
        elif state := next(turn):
            trials.append(_ended(trial, state))
    return replace(whole, trials=tuple(trials), left_out=("2 trials of an earlier version are left out.",))


def without_trials(whole: StudyResults) -> StudyResults:
    """Return results of a study of which nothing was trained."""
    return replace(whole, trials=(), labels={}, class_names=())


def scenarios(folder: Path, seed: int) -> Mapping[str, Callable[[], StudyResults]]:
    """Return the results that a figure must cope with, by name."""
    return {
        "one-condition": lambda: results_of(folder, 1, repeats=1, seed=seed),
        "three-conditions": lambda: results_of(folder, 3, repeats=3, seed=seed),
        "twenty-conditions": lambda: results_of(folder, 20, repeats=2, seed=seed),
        "missing-trials": lambda: with_missing(results_of(folder, 4, repeats=3, seed=seed)),
        "search": lambda: results_of(folder, 2, repeats=2, search=True, seed=seed),
        "nothing-trained": lambda: without_trials(results_of(folder, 2, repeats=2, seed=seed)),
    }


def _condition(label: str, kind: ConditionKind = "grid") -> Condition:
    level = label.partition(",")[0]
    settings = {"data": {"name": "made-up"}, "model": {"name": "made-up", "norm": level}}
    return Condition(key=f"key of {label}", label=label, levels={"model.norm": level}, settings=settings, kind=kind)


def _study(labels: Sequence[str], repeats: int, search: bool) -> Study:
    levels = tuple(Level(label=label, settings={"model.norm": label}) for label in labels)
    goal = Goal(metric="val.loss", direction="minimize")
    return Study(
        name="made-up",
        title="Made-up results",
        question="Does the figure cope?",
        settings={"data": {"name": "made-up"}, "model": {"name": "made-up"}, "train": {"epochs": EPOCHS}},
        factors=(Factor(path="model.norm", levels=levels),),
        search=Search(trials=16, goals=(goal,), space=_SPACE) if search else None,
        repeats=repeats,
        report=ReportSettings(metric="test.accuracy"),
    )


def _done(condition: Condition, index: int, accuracy: float, folder: Path) -> Trial:
    trial_folder = folder / f"{condition.label}-{index}"
    logits = _logits(accuracy, index)
    if not trial_folder.exists():
        trial_folder.mkdir(parents=True)
        save_file({"val": logits, "test": logits}, trial_folder / "predictions.safetensors")
    metrics = _metrics(logits)
    cost = Cost(
        parameters=175_000,
        flops=27_000_000,
        seconds=60.0 + index,
        images_per_second=5000.0,
        peak_memory=512.0,
        device="cpu",
        precision="float32",
    )
    return Trial(
        condition=condition,
        phase="grid",
        index=index,
        attempt=0,
        number=0,
        state="done",
        params={},
        history=_history(accuracy),
        outcome=Outcome(
            state="done",
            selected_epoch=EPOCHS,
            metrics={"train": metrics, "val": metrics, "test": metrics},
            cost=cost,
            data_fingerprint="0" * 64,
            test_reads=1,
        ),
        folder=trial_folder,
        started=1_700_000_000.0 + 100 * index,
        finished=1_700_000_060.0 + 100 * index,
    )


def _searched(frame: Condition, slot: int, rng: np.random.Generator) -> Trial:
    lr, size = 10 ** rng.uniform(-3, math.log10(0.3)), int(rng.integers(16, 257))
    accuracy = 0.85 - 0.1 * (math.log10(lr) + 1.5) ** 2 + 0.01 * rng.standard_normal()
    state: State = "failed" if slot % 8 == 7 else "pruned" if slot % 8 == 3 else "done"
    metrics = {"val": _metrics(_logits(accuracy, slot))} if state == "done" else {}
    schedule = ("step", "cosine")[slot % 2]
    return Trial(
        condition=frame,
        phase="search",
        index=slot,
        attempt=0,
        number=0,
        state=state,
        params={"train.optimizer.lr": lr, "train.batch_size": size, "train.schedule.name": schedule},
        history=_history(accuracy)[: None if state == "done" else 2],
        outcome=Outcome(state=state, reason=f"made to be {state}", metrics=metrics),  # type: ignore[arg-type]
        folder=Path("absent"),
    )


def _ended(trial: Trial, state: State) -> Trial:
    ended = state in ("diverged", "failed")
    outcome = Outcome(state=state, reason=f"made to be {state}") if ended else None
    epochs = 0 if state == "waiting" else 2
    return replace(trial, state=state, outcome=outcome, history=trial.history[:epochs], folder=Path("absent"))


def _history(accuracy: float) -> tuple[EpochRecord, ...]:
    records = []
    for epoch in range(1, EPOCHS + 1):
        reached = 0.25 + (accuracy - 0.25) * (1 - math.exp(-0.7 * epoch))
        records.append(
            EpochRecord(
                epoch=epoch,
                train_loss=1.4 * (1.05 - reached),
                train_accuracy=reached,
                val_loss=1.5 * (1.05 - reached) + 0.02 * max(0, epoch - 4),
                val_accuracy=reached - 0.02,
                learning_rate=0.1 / epoch,
                gradient_norm=1.0 / epoch,
                seconds=10.0,
                images_per_second=5000.0,
                peak_memory=512.0,
            )
        )
    return tuple(records)


def _logits(accuracy: float, index: int) -> np.ndarray:
    """Return logits float32 (n, K) of which about a share `accuracy` is right."""
    rng = np.random.default_rng(round(1000 * abs(accuracy)) + index)
    right = rng.random(IMAGES) < accuracy
    called = np.where(right, _LABELS, (_LABELS + 1) % len(CLASSES))
    logits: np.ndarray = rng.normal(0, 0.5, (IMAGES, len(CLASSES))).astype(np.float32)
    logits[np.arange(IMAGES), called] += 3.0
    return logits


def _metrics(logits: np.ndarray) -> SplitMetrics:
    from benchkit.train.evaluate import split_metrics

    return split_metrics(Predictions(logits, _LABELS))
