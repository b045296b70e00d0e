"""The tables of trials: test images, classes, cost, coverage, troubles, and every trial by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchkit.analysis.costs import ConditionCost
from benchkit.analysis.selectors import value_of
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
from benchkit.report.tables.table import ESTIMATE_PARTS, Cell, Column, Table, estimate_cell, label, number_cell
from benchkit.results import Trial


def models_table(models: Sequence[ModelAccuracy]) -> Table:
    """Return each trained model's test accuracy with its Wilson interval."""
    columns = (
        Column(key="condition", heading="Condition", align="left"),
        Column(key="repeat", heading="Repeat"),
        Column(key="epoch", heading="Epoch scored"),
        Column(key="right", heading="Right", unit="of n", parts=("n",)),
        Column(key="accuracy", heading="test accuracy", unit="%", parts=("wilson_low", "wilson_high")),
    )
    rows = tuple(
        (
            label(model.label),
            number_cell(str(model.repeat), model.repeat),
            number_cell(str(model.selected_epoch), model.selected_epoch),
            Cell(text=f"{share.successes:,} of {share.n:,}", value=share.successes, parts=(share.n,)),
            Cell(
                text=bare("accuracy", share.share),
                detail=bracket("accuracy", share.low, share.high),
                value=share.share,
                parts=(share.low, share.high),
            ),
        )
        for model in models
        for share in (model.accuracy,)
    )
    return Table(columns=columns, rows=rows)


def model_pairs_table(pairs: Sequence[ModelPair]) -> Table:
    """Return the best condition's model against the others on the same test images."""
    columns = (
        Column(key="first", heading="Model of", align="left"),
        Column(key="second", heading="Against", align="left"),
        Column(key="repeat", heading="Repeat"),
        Column(key="only_first", heading="Only first right"),
        Column(key="only_second", heading="Only second right"),
        Column(key="difference", heading="Difference", unit="points", parts=("low", "high", "n")),
        Column(key="p_holm", heading="p (Holm)"),
    )
    rows = tuple(
        (
            label(pair.first),
            label(pair.second),
            number_cell(str(pair.repeat), pair.repeat),
            number_cell(f"{found.only_first:,}", found.only_first),
            number_cell(f"{found.only_second:,}", found.only_second),
            Cell(
                text=difference("accuracy", found.difference),
                detail=bracket("accuracy", found.low, found.high),
                value=found.difference,
                parts=(found.low, found.high, found.n),
            ),
            number_cell(p_value(pair.p_adjusted), pair.p_adjusted),
        )
        for pair in pairs
        for found in (pair.comparison,)
    )
    return Table(columns=columns, rows=rows)


def confusions_table(report: ClassReport) -> Table:
    """Return the most frequent confusions of the best condition."""
    columns = (
        Column(key="true", heading="True class", align="left"),
        Column(key="called", heading="Taken for", align="left"),
        Column(key="count", heading="Times"),
        Column(key="of", heading="Images of the class"),
        Column(key="share", heading="Share", unit="%"),
    )
    rows = tuple(
        (
            label(one.true),
            label(one.called),
            number_cell(f"{one.count:,}", one.count),
            number_cell(f"{one.of:,}", one.of),
            number_cell(bare("accuracy", one.count / one.of), one.count / one.of),
        )
        for one in report.confusions
        if one.of
    )
    return Table(columns=columns, rows=rows)


def cost_table(costs: Sequence[ConditionCost]) -> Table:
    """Return parameters, FLOPs, time, speed and memory of every condition, and what else of its cost is known."""
    columns = (
        Column(key="condition", heading="Condition", align="left"),
        Column(key="repeats", heading="Repeats"),
        Column(key="parameters", heading="Parameters"),
        Column(key="flops", heading="FLOPs", unit="per image"),
        Column(key="epochs", heading="Epochs", unit="mean"),
        Column(key="seconds", heading="Training time", unit="s", parts=ESTIMATE_PARTS),
        Column(key="images_per_second", heading="Speed", unit="images/s", parts=ESTIMATE_PARTS),
        Column(key="peak_memory", heading="Peak memory", unit="MiB", parts=ESTIMATE_PARTS),
    )
    rows = tuple(
        (
            label(cost.label),
            number_cell(str(cost.seconds.n), cost.seconds.n),
            number_cell(engineering(cost.parameters), cost.parameters),
            number_cell(engineering(cost.flops), cost.flops),
            number_cell(number(cost.epochs, 3), cost.epochs),
            estimate_cell("cost.seconds", cost.seconds),
            estimate_cell("cost.images_per_second", cost.images_per_second),
            estimate_cell("cost.peak_memory", cost.peak_memory),
        )
        for cost in costs
    )
    return Table(columns=columns, rows=rows)


def efficiency_table(costs: Sequence[ConditionCost]) -> Table | None:
    """Return time to the best epoch, share of the matrix rate and energy, or None when no trial knows any of them."""
    headings = (
        Column(key="best_seconds", heading="Time to best epoch", unit="s", parts=ESTIMATE_PARTS),
        Column(key="matrix_share", heading="Of the matrix rate", unit="%", parts=ESTIMATE_PARTS),
        Column(key="energy", heading="Energy", unit="J", parts=ESTIMATE_PARTS),
    )
    columns = [one for one in headings if any(getattr(cost, one.key) is not None for cost in costs)]
    if not columns:
        return None
    rows = tuple(
        (label(cost.label), *(estimate_cell(f"cost.{one.key}", getattr(cost, one.key)) for one in columns))
        for cost in costs
    )
    return Table(columns=(Column(key="condition", heading="Condition", align="left"), *columns), rows=rows)


def coverage_table(rows: Sequence[Coverage]) -> Table:
    """Return planned trials and what became of them, states that never occur left out."""
    shown = [state for state in STATES if state == "done" or any(row.states.get(state) for row in rows)]
    columns = (
        Column(key="condition", heading="Condition", align="left"),
        Column(key="stage", heading="Stage", align="left"),
        Column(key="planned", heading="Planned"),
        *(Column(key=state, heading=state.capitalize()) for state in shown),
        Column(key="missing", heading="Not started"),
        Column(key="complete", heading="Complete", align="left"),
    )
    cells = tuple(
        (
            label(row.label),
            label(row.stage),
            number_cell(str(row.planned), row.planned),
            *(number_cell(str(row.states.get(state, 0)), row.states.get(state, 0)) for state in shown),
            number_cell(str(row.missing), row.missing),
            label("yes" if row.complete else "no"),
        )
        for row in rows
    )
    return Table(columns=columns, rows=cells)


def troubles_table(rows: Sequence[FailedTrial]) -> Table:
    """Return the trials that diverged, failed or lost their worker, with the reason."""
    columns = (
        Column(key="condition", heading="Condition", align="left"),
        Column(key="stage", heading="Stage", align="left"),
        Column(key="repeat", heading="Repeat or slot"),
        Column(key="attempt", heading="Attempt"),
        Column(key="state", heading="State", align="left"),
        Column(key="epochs", heading="Epochs"),
        Column(key="reason", heading="Reason", align="left"),
    )
    cells = tuple(
        (
            label(row.label),
            label(row.stage),
            number_cell(str(row.index), row.index),
            number_cell(str(row.attempt), row.attempt),
            label(row.state, "retried" if row.retried else ""),
            number_cell(str(row.epochs), row.epochs),
            label(row.reason or "its worker is gone"),
        )
        for row in rows
    )
    return Table(columns=columns, rows=cells)


def trials_table(trials: Sequence[Trial], metric: str) -> Table:
    """Return every trial of the study, in the order in which they were started."""
    columns = (
        Column(key="order", heading="No."),
        Column(key="condition", heading="Condition", align="left"),
        Column(key="stage", heading="Stage", align="left"),
        Column(key="repeat", heading="Repeat or slot"),
        Column(key="state", heading="State", align="left"),
        Column(key="epochs", heading="Epochs"),
        Column(key="val", heading="val loss", unit="nats"),
        Column(key="metric", heading=metric_words(metric), unit=metric_unit(metric)),
        Column(key="seconds", heading="Training time"),
        Column(key="params", heading="Chosen settings", align="left"),
    )
    searched = any(trial.params for trial in trials)
    ordered = sorted(trials, key=lambda trial: (trial.started or math.inf, trial.number))
    rows = [_trial(place, trial, metric) for place, trial in enumerate(ordered, 1)]
    kept = len(columns) if searched else len(columns) - 1
    return Table(columns=columns[:kept], rows=tuple(row[:kept] for row in rows))


def _trial(place: int, trial: Trial, metric: str) -> tuple[Cell, ...]:
    seconds = sum(record.seconds for record in trial.history)
    loss, score = value_of(trial, "val.loss"), value_of(trial, metric)
    params = ", ".join(f"{path.rpartition('.')[2]} = {setting(value)}" for path, value in trial.params.items())
    return (
        number_cell(str(place), place),
        label(trial.condition.label),
        label(trial.phase),
        number_cell(str(trial.index), trial.index),
        label(trial.state),
        number_cell(str(len(trial.history)), len(trial.history)),
        number_cell(bare("val.loss", loss), loss),
        number_cell(bare(metric, score), score),
        number_cell(duration(seconds), seconds),
        label(params),
    )
