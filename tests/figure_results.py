"""Small synthetic study results for the figures: seeded, plain, with whatever is to be missing."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchkit.plan import Condition
from benchkit.results import Cost, EpochRecord, Outcome, SplitMetrics, State, StudyResults, Trial
from benchkit.study import Goal, ReportSettings, Search, SearchRange, Study

NORMS = ("torch-bn", "bn", "in", "bin", "ln", "gn", "none")
SPACE = (
    SearchRange(path="train.optimizer.lr", low=0.001, high=0.3, log=True),
    SearchRange(path="train.batch_size", low=32, high=256, step=32, integer=True),
    SearchRange(path="regularizers.weight-decay.value", low=1e-6, high=1e-2, log=True),
    SearchRange(path="train.schedule.name", choices=("step", "cosine", "one-cycle")),
)


def condition(label: str, kind: Any = "grid", parent: str = "") -> Condition:
    return Condition(
        key=f"key-{label}", label=label, levels={"model.norm": label}, settings={}, kind=kind, parent=parent, chosen={}
    )


def record(epoch: int, values: Sequence[float], seconds: float = 2.0) -> EpochRecord:
    """Return an epoch with train loss, train accuracy, val loss and val accuracy as given."""
    return EpochRecord(
        epoch=epoch,
        train_loss=values[0],
        train_accuracy=values[1],
        val_loss=values[2],
        val_accuracy=values[3],
        learning_rate=0.1,
        gradient_norm=1.0,
        seconds=seconds,
        images_per_second=1000.0,
        peak_memory=100.0,
    )


def metrics(
    accuracy: float, loss: float = 0.5, confusion: tuple[tuple[int, ...], ...] = ((9, 1), (2, 8))
) -> SplitMetrics:
    return SplitMetrics(
        n=sum(map(sum, confusion)),
        loss=loss,
        accuracy=accuracy,
        micro_f1=accuracy,
        macro_f1=accuracy - 0.01,
        calibration_error=0.05,
        class_accuracy=tuple(row[i] / max(1, sum(row)) for i, row in enumerate(confusion)),
        confusion=confusion,
    )


def cost(seconds: float = 100.0, rate: float = 5000.0, memory: float = 512.0) -> Cost:
    return Cost(
        parameters=175_000,
        flops=27_000_000,
        seconds=seconds,
        images_per_second=rate,
        peak_memory=memory,
        device="cpu",
        precision="float32",
    )


def trial(
    of: Condition,
    index: int = 0,
    *,
    state: State = "done",
    history: Sequence[EpochRecord] = (),
    outcome: Outcome | None = None,
    phase: Any = "grid",
    number: int = 0,
    params: Mapping[str, Any] | None = None,
) -> Trial:
    return Trial(
        condition=of,
        phase=phase,
        index=index,
        attempt=0,
        number=number,
        state=state,
        params=params or {},
        history=tuple(history),
        outcome=outcome or Outcome(state=state),
        folder=Path("absent"),
    )


def study(search: Search | None = None, repeats: int = 3, metric: str = "test.accuracy") -> Study:
    return Study(
        name="synthetic",
        title="Synthetic",
        question="?",
        settings={},
        search=search,
        repeats=repeats,
        report=ReportSettings(metric=metric),
    )


def results(
    conditions: Sequence[Condition], trials: Sequence[Trial], classes: int = 2, search: Search | None = None
) -> StudyResults:
    return StudyResults(
        study=study(search),
        conditions=tuple(conditions),
        trials=tuple(trials),
        class_names=tuple(f"class {i}" for i in range(classes)),
    )


def learned(
    labels: Sequence[str], repeats: int = 3, epochs: int = 30, classes: int = 10, early: bool = False
) -> StudyResults:
    """Return a grid of conditions with plausible curves, scores, costs and confusions; the last repeat may diverge."""
    random_ = random.Random(7)
    conditions = [condition(label) for label in labels]
    trials = []
    for place, one in enumerate(conditions):
        best, speed = 0.75 + 0.17 * random_.random(), 0.08 + 0.15 * random_.random()
        for index in range(repeats):
            stop = epochs - (random_.randrange(epochs // 2) if early else 0)
            history = _curve(random_, best + random_.gauss(0, 0.008), speed, stop)
            scored = min(history, key=lambda r: r.val_loss)
            split = metrics(scored.val_accuracy, scored.val_loss, confusion(random_, classes, scored.val_accuracy))
            seconds = (60 + 9 * place) * stop / epochs + random_.random()
            outcome = Outcome(
                state="done",
                selected_epoch=scored.epoch,
                metrics={"val": split, "test": metrics(scored.val_accuracy - 0.01, scored.val_loss, split.confusion)},
                cost=cost(seconds, 9000 - 300 * place, 400 + 20 * place),
            )
            trials.append(trial(one, index, history=history, outcome=outcome, number=len(trials)))
    return results(conditions, trials, classes)


def _curve(random_: random.Random, best: float, speed: float, epochs: int) -> list[EpochRecord]:
    history = []
    for epoch in range(1, epochs + 1):
        share = 1 - math.exp(-speed * epoch)
        train = 0.1 + (best + 0.06 - 0.1) * share + random_.gauss(0, 0.004)
        val = 0.1 + (best - 0.1) * share + random_.gauss(0, 0.012)
        over = 0.006 * max(0, epoch - 12)
        history.append(record(epoch, (2.3 * (1.05 - train) + 0.02, train, 2.3 * (1.03 - val) + over, val)))
    return history


def confusion(random_: random.Random, classes: int, accuracy: float) -> tuple[tuple[int, ...], ...]:
    """Return counts of 100 images per class, errors mostly with the neighbouring class."""
    rows = []
    for true in range(classes):
        row = [0] * classes
        for _ in range(100):
            wrong = (true + random_.choice((1, 1, 1, 2, 3, classes // 2))) % classes
            row[true if random_.random() < accuracy else wrong] += 1
        rows.append(tuple(row))
    return tuple(rows)


def searched(
    labels: Sequence[str] = ("bn",), n: int = 40, metric: str = "val.loss", direction: Any = "minimize"
) -> StudyResults:
    """Return searches in which the learning rate matters most; some trials are pruned, one in fifteen fails."""
    random_ = random.Random(3)
    conditions = [condition(label, "search") for label in labels]
    trials = []
    for place, one in enumerate(conditions):
        for index in range(n):
            trials.append(_searched_trial(random_, one, place, index, len(trials)))
    search = Search(trials=n, goals=(Goal(metric=metric, direction=direction),), space=SPACE)
    return results(conditions, trials, search=search)


def _searched_trial(random_: random.Random, one: Condition, place: int, index: int, number: int) -> Trial:
    lr, decay = 10 ** random_.uniform(-3, math.log10(0.3)), 10 ** random_.uniform(-6, -2)
    schedule, batch = random_.choice(("step", "cosine", "one-cycle")), 32 * random_.randrange(1, 9)
    loss = 0.45 + 0.25 * (math.log10(lr) + 1.3) ** 2 + 0.06 * (schedule == "step") + 0.05 * place
    loss += random_.gauss(0, 0.02) + 0.2 * batch / 2560
    params = {
        "train.optimizer.lr": lr,
        "train.batch_size": batch,
        "regularizers.weight-decay.value": decay,
        "train.schedule.name": schedule,
    }
    state: State = "failed" if index % 15 == 14 else "pruned" if loss > 0.8 and index > 5 else "done"
    history = [record(e, (1.0, 0.5, loss + 1 / e, 1 - loss / 2)) for e in range(1, 6)] if state != "failed" else []
    scores = {"val": metrics(1 - loss / 2, loss)} if state == "done" else {}
    outcome = Outcome(state=state, reason="out of memory" if state == "failed" else "", metrics=scores, cost=cost())
    return trial(
        one, index, state=state, history=history, outcome=outcome, phase="search", number=number, params=params
    )
