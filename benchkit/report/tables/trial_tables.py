"""Tables of trials, of searches, and of a study's source: costs, ends, pairs of models, best settings, claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter

from benchkit.analysis.comparisons import ImageComparison, PairedComparison
from benchkit.analysis.estimates import Proportion, value_of
from benchkit.analysis.search import SearchSummary
from benchkit.analysis.source import ClaimVerdict, ProtocolSetting
from benchkit.analysis.trained_models import ClassReport, ModelAccuracy, ModelPair
from benchkit.analysis.training import ConditionCost, device_names, several_nodes, where_trained
from benchkit.analysis.trials import STATES, Coverage, FailedTrial
from benchkit.analysis.wording import (
    NONE,
    bare,
    bracket,
    difference,
    difference_unit,
    engineering,
    metric_unit,
    metric_words,
    number,
    p_value,
    setting,
)
from benchkit.duration import duration
from benchkit.report.tables.table import Cell, Column, Scalar, Table, TableOf, label
from benchkit.results import Trial
from benchkit.study import Search, SearchRange


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


def _in_state(state: str) -> Callable[[Coverage | SearchSummary], int]:
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


def protocol_table(rows: Sequence[ProtocolSetting]) -> Table:
    """Return settings as the source has them beside ours, each with the words or the reason behind it."""
    columns = (
        Column(key="setting", heading="Setting", align="left"),
        Column(key="kind", heading="Kind", align="left"),
        Column(key="stated", heading="The source", align="left", parts=("words", "place")),
        Column(key="ours", heading="Ours", align="left"),
        Column(key="why", heading="Why", align="left"),
    )
    return Table(
        columns=columns,
        rows=tuple(
            (
                label(row.path),
                label(row.kind),
                Cell(
                    text=row.stated,
                    detail=_quotation(row.words, row.place),
                    value=row.stated,
                    parts=(row.words, row.place),
                ),
                label(row.ours),
                label(row.why),
            )
            for row in rows
        ),
    )


def claims_table(rows: Sequence[ClaimVerdict]) -> Table:
    """Return the claims with their verdicts by the source's own numbers and by ours."""
    columns = (
        Column(key="claim", heading="Claim", align="left", parts=("words", "place")),
        Column(key="printed", heading="By what it prints", align="left", parts=("why",)),
        Column(key="ours", heading="By our results", align="left", parts=("why",)),
    )
    return Table(
        columns=columns,
        rows=tuple(
            (
                Cell(
                    text=row.claim,
                    detail=_quotation(row.words, row.place),
                    value=row.claim,
                    parts=(row.words, row.place),
                ),
                Cell(text=row.printed, detail=row.printed_why, value=row.printed, parts=(row.printed_why,)),
                Cell(text=row.ours, detail=row.ours_why, value=row.ours, parts=(row.ours_why,)),
            )
            for row in rows
        ),
    )


def _quotation(words: str, place: str) -> str:
    return ", ".join(part for part in (f"\u201c{words}\u201d" if words else "", place) if part)


def search_budget_table(searches: Sequence[SearchSummary]) -> Table:
    """Return what every search was given and spent, so that unequal budgets show."""
    table = TableOf(searches)
    table.text("condition", "Search of", lambda search: search.label)
    table.number("planned", "Trials planned", lambda search: search.planned)
    table.number("started", "Started", lambda search: search.started)
    for state in ("done", "pruned", "diverged", "failed"):
        table.number(state, state.capitalize(), _in_state(state))
    share = partial(bare, "accuracy")
    table.number("pruned_share", "Pruned", lambda search: search.pruned_share, share, unit="% of finished")
    table.number("epochs", "Epochs", lambda search: search.epochs, lambda count: f"{count:,}")
    table.number("seconds", "Training time", lambda search: search.seconds, duration)
    return table.made()


MOST_BESIDE = 4
"""From more searches than these on, the best settings stand below each other: a page is not wide enough."""


def search_space_table(search: Search, searches: Sequence[SearchSummary]) -> Table:
    """Return the searched settings, their ranges, and what each search's best trial chose."""
    if len(searches) > MOST_BESIDE:
        return _long_space_table(search, searches)
    table = TableOf(search.space)
    table.text("setting", "Setting", lambda space: space.path)
    table.text("range", "Range", _allowed)
    for at, summary in enumerate(searches, 1):
        table.add(Column(key=f"best_{at}", heading=f"Best for {summary.label}"), partial(_chosen, summary=summary))
    return table.made()


def _long_space_table(search: Search, searches: Sequence[SearchSummary]) -> Table:
    table = TableOf((summary, space) for summary in searches for space in search.space)
    table.text("condition", "Search of", lambda pair: pair[0].label)
    table.text("setting", "Setting", lambda pair: pair[1].path)
    table.text("range", "Range", lambda pair: _allowed(pair[1]))
    table.add(Column(key="best", heading="Best"), lambda pair: _chosen(pair[1], pair[0]))
    return table.made()


def _allowed(space: SearchRange) -> str:
    if space.choices:
        return ", ".join(setting(choice) for choice in space.choices)
    return f"{setting(space.low)} to {setting(space.high)}{', log scale' if space.log else ''}"


def _chosen(space: SearchRange, summary: SearchSummary) -> Cell:
    value = summary.best_params.get(space.path)
    return Cell(text=NONE if value is None else setting(value), value=_scalar(value))


def confirmation_table(searches: Sequence[SearchSummary]) -> Table:
    """Return the searched score beside the fresh repeats of the chosen and of the study's own settings."""
    goal = searches[0].goal
    unit, gap = metric_unit(goal), difference_unit(goal)
    table = TableOf((search, search.confirmation) for search in searches)
    table.add(
        Column(key="condition", heading="Search of", align="left"),
        lambda item: label(item[0].label, "own settings won" if item[0].chose_default else _shared(item[0])),
    )
    table.number("trial", "Best trial", lambda item: item[0].best_place)
    words, signed = partial(bare, goal), partial(difference, goal)
    table.number("searched", f"Searched {metric_words(goal)}", lambda item: item[0].best_value, words, unit=unit)
    table.estimate("confirmed", "Fresh repeats", goal, lambda item: item[1].chosen if item[1] else None, unit=unit)
    table.number("optimism", "Promised too much", lambda item: item[1].optimism if item[1] else None, signed, unit=gap)
    own = "Study's own settings"
    table.estimate("default", own, goal, lambda item: item[1].default if item[1] else None, unit=unit)
    gain = Column(key="gain", heading="Chosen minus own", unit=gap, parts=("low", "high", "pairs"))
    table.add(gain, lambda item: _gain(goal, item[1].gain if item[1] else None))
    table.number("p", "p", lambda item: item[1].gain.p if item[1] and item[1].gain else None, p_value)
    return table.made()


def _gain(goal: str, gain: PairedComparison | None) -> Cell:
    if gain is None:
        return Cell(text=NONE, parts=(None, None, None))
    gap = gain.difference
    return Cell(
        text=difference(goal, gap.mean),
        detail=bracket(goal, gap.low, gap.high),
        value=gap.mean,
        parts=(gap.low, gap.high, gap.n),
    )


def _shared(search: SearchSummary) -> str:
    return f"same settings as by {search.same_as}" if search.same_as else ""


def _scalar(value: object) -> Scalar:
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
