"""The tables of trials: test images, classes, cost, coverage, troubles, and every trial by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter

from benchkit.analysis.comparisons import ImageComparison
from benchkit.analysis.costs import ConditionCost
from benchkit.analysis.devices import device_names, several_nodes, where_trained
from benchkit.analysis.estimates import Proportion, value_of
from benchkit.analysis.trained_models import ClassReport, ModelAccuracy, ModelPair
from benchkit.analysis.trials import STATES, Coverage, FailedTrial
from benchkit.analysis.wording import (
    bare,
    bracket,
    difference,
    engineering,
    metric_unit,
    metric_words,
    number,
    p_value,
    setting,
)
from benchkit.duration import duration
from benchkit.report.tables.table import Cell, Column, Table, TableOf, label
from benchkit.results import Trial


def models_table(models: Sequence[ModelAccuracy]) -> Table:
    """Return each trained model's test accuracy with its Wilson interval."""
    table = TableOf(models)
    table.text("condition", "Condition", lambda model: model.label)
    table.number("repeat", "Repeat", lambda model: model.repeat)
    table.number("epoch", "Epoch scored", lambda model: model.selected_epoch)
    table.add(Column(key="right", heading="Right", unit="of n", parts=("n",)), lambda model: _right(model.accuracy))
    parts = ("wilson_low", "wilson_high")
    table.add(Column(key="accuracy", heading="test accuracy", unit="%", parts=parts), lambda m: _share(m.accuracy))
    return table.made()


def _right(share: Proportion) -> Cell:
    return Cell(text=f"{share.successes:,} of {share.n:,}", value=share.successes, parts=(share.n,))


def _share(share: Proportion) -> Cell:
    detail = bracket("accuracy", share.low, share.high)
    return Cell(text=bare("accuracy", share.share), detail=detail, value=share.share, parts=(share.low, share.high))


def model_pairs_table(pairs: Sequence[ModelPair]) -> Table:
    """Return the best condition's model against the others on the same test images."""
    table = TableOf(pairs)
    table.text("first", "Model of", lambda pair: pair.first)
    table.text("second", "Against", lambda pair: pair.second)
    table.number("repeat", "Repeat", lambda pair: pair.repeat)
    table.number("only_first", "Only first right", lambda pair: pair.comparison.only_first, _grouped)
    table.number("only_second", "Only second right", lambda pair: pair.comparison.only_second, _grouped)
    column = Column(key="difference", heading="Difference", unit="points", parts=("low", "high", "n"))
    table.add(column, lambda pair: _image_difference(pair.comparison))
    table.number("p_holm", "p (Holm)", lambda pair: pair.p_adjusted, p_value)
    return table.made()


def _image_difference(comparison: ImageComparison) -> Cell:
    return Cell(
        text=difference("accuracy", comparison.difference),
        detail=bracket("accuracy", comparison.low, comparison.high),
        value=comparison.difference,
        parts=(comparison.low, comparison.high, comparison.n),
    )


def _grouped(count: int) -> str:
    return f"{count:,}"


def confusions_table(report: ClassReport) -> Table:
    """Return the most frequent confusions of the best condition."""
    table = TableOf(confusion for confusion in report.confusions if confusion.of)
    table.text("true", "True class", lambda confusion: confusion.true)
    table.text("called", "Taken for", lambda confusion: confusion.called)
    table.number("count", "Times", lambda confusion: confusion.count, _grouped)
    table.number("of", "Images of the class", lambda confusion: confusion.of, _grouped)
    table.number("share", "Share", lambda found: found.count / found.of, partial(bare, "accuracy"), unit="%")
    return table.made()


def cost_table(costs: Sequence[ConditionCost]) -> Table:
    """Return parameters, FLOPs, time, speed and memory of every condition, and what else of its cost is known."""
    table = TableOf(costs)
    table.text("condition", "Condition", lambda cost: cost.label)
    if len({cost.devices for cost in costs}) > 1:
        table.text("device", "Device", lambda cost: ", then ".join(cost.devices))
    table.number("repeats", "Repeats", lambda cost: cost.seconds.n)
    table.number("parameters", "Parameters", lambda cost: cost.parameters, engineering)
    table.number("flops", "FLOPs", lambda cost: cost.flops, engineering, unit="per image")
    table.number("epochs", "Epochs", lambda cost: cost.epochs, lambda mean: number(mean, 3), unit="mean")
    table.estimate("seconds", "Training time", "cost.seconds", lambda cost: cost.seconds, unit="s")
    speed = "cost.images_per_second"
    table.estimate("images_per_second", "Speed", speed, lambda cost: cost.images_per_second, unit="images/s")
    table.estimate("peak_memory", "Peak memory", "cost.peak_memory", lambda cost: cost.peak_memory, unit="MiB")
    return table.made()


def efficiency_table(costs: Sequence[ConditionCost]) -> Table | None:
    """Return time to the best epoch, share of the matrix rate and energy, or None when no trial knows any of them."""
    table = TableOf(costs)
    table.text("condition", "Condition", lambda cost: cost.label)
    if len({cost.devices for cost in costs}) > 1:
        table.text("device", "Device", lambda cost: ", then ".join(cost.devices))
    known = [name for name in EFFICIENCIES if any(getattr(cost, name) is not None for cost in costs)]
    for name in known:
        heading, unit = EFFICIENCIES[name]
        table.estimate(name, heading, f"cost.{name}", attrgetter(name), unit=unit)
    return table.made() if known else None


EFFICIENCIES = {
    "best_seconds": ("Time to best epoch", "s"),
    "matrix_share": ("Of the matrix rate", "%"),
    "energy": ("Energy", "J"),
}
"""What is known of the cost of some trials alone: heading and unit."""


def coverage_table(rows: Sequence[Coverage]) -> Table:
    """Return planned trials and what became of them, states that never occur left out."""
    table = TableOf(rows)
    table.text("condition", "Condition", lambda row: row.label)
    table.text("stage", "Stage", lambda row: row.stage)
    table.number("planned", "Planned", lambda row: row.planned)
    for state in STATES:
        if state == "done" or any(row.states.get(state) for row in rows):
            table.number(state, state.capitalize(), _in_state(state))
    table.number("missing", "Not started", lambda row: row.missing)
    table.text("complete", "Complete", lambda row: "yes" if row.complete else "no")
    return table.made()


def _in_state(state: str) -> Callable[[Coverage], int]:
    return lambda row: row.states.get(state, 0)


def troubles_table(rows: Sequence[FailedTrial]) -> Table:
    """Return the trials that diverged, failed or lost their worker, with the reason."""
    table = TableOf(rows)
    table.text("condition", "Condition", lambda row: row.label)
    table.text("stage", "Stage", lambda row: row.stage)
    table.number("repeat", "Repeat or slot", lambda row: row.index)
    table.number("attempt", "Attempt", lambda row: row.attempt)
    state = Column(key="state", heading="State", align="left")
    table.add(state, lambda row: label(row.state, "retried" if row.retried else ""))
    table.number("epochs", "Epochs", lambda row: row.epochs)
    table.number("seconds", "Training time", lambda row: row.seconds if row.epochs else None, duration)
    table.text("reason", "Reason", lambda row: row.reason or "its worker is gone")
    return table.made()


def trials_table(trials: Sequence[Trial], metric: str) -> Table:
    """Return every trial of the study, in the order in which they were started."""
    table = TableOf(enumerate(sorted(trials, key=lambda trial: (trial.started or math.inf, trial.number)), 1))
    table.number("order", "No.", lambda item: item[0])
    table.text("condition", "Condition", lambda item: item[1].condition.label)
    table.text("stage", "Stage", lambda item: item[1].phase)
    table.number("repeat", "Repeat or slot", lambda item: item[1].index)
    table.text("state", "State", lambda item: item[1].state)
    table.number("epochs", "Epochs", lambda item: len(item[1].history))
    loss, score = partial(bare, "val.loss"), partial(bare, metric)
    table.number("val_loss", "val loss", lambda item: value_of(item[1], "val.loss"), loss, unit="nats")
    name = metric.replace(".", "_")
    table.number(name, metric_words(metric), lambda i: value_of(i[1], metric), score, unit=metric_unit(metric))
    table.number("seconds", "Training time", lambda item: sum(record.seconds for record in item[1].history), duration)
    nodes = several_nodes(trials)
    if nodes or len({device for trial in trials for device in device_names(trial)}) > 1:
        table.text("where", "Trained on", lambda item: where_trained(item[1], nodes=nodes))
    if any(trial.params for trial in trials):
        table.text("params", "Chosen settings", lambda item: _params(item[1]))
    return table.made()


def _params(trial: Trial) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} = {setting(value)}" for path, value in trial.params.items())
