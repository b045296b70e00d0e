"""The tables of results: ranking, metrics, pairs, effects, models, confusions, costs, searches and trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter

from benchkit.analysis.comparisons import ImageComparison, PairedComparison
from benchkit.analysis.estimates import Estimate, LevelEffect, Proportion, Scores, value_of
from benchkit.analysis.ranking import Pair, RankedCondition, Verdict, better_first
from benchkit.analysis.search import SearchSummary
from benchkit.analysis.summary import StudyStatistics
from benchkit.analysis.trained_models import ClassReport, ModelAccuracy, ModelPair, Uncertainty
from benchkit.analysis.training import ConditionCost, device_names, several_nodes, where_trained
from benchkit.analysis.trials import STATES, Coverage, FailedTrial
from benchkit.analysis.wording import (
    NONE,
    bare,
    bracket,
    difference,
    difference_unit,
    duration,
    engineering,
    lower_is_better,
    metric_unit,
    metric_words,
    number,
    p_value,
    p_words,
    setting,
    within_range,
)
from benchkit.metrics import metric_names
from benchkit.report.tables.table import (
    ESTIMATE_PARTS,
    Cell,
    Column,
    Scalar,
    Table,
    TableOf,
    estimate_cell,
    label,
    number_cell,
)
from benchkit.results import Trial
from benchkit.study import Goal, Search, SearchRange

VERDICTS: dict[Verdict, str] = {
    "best": "best mean",
    "may be best": "may be best",
    "worse": "clearly worse",
    "untested": "not tested",
    "one class": "names one class",
}
MOST_PAIRS = 45
"""Beyond this many pairs the page shows only those with the best condition; CSV has all."""


def ranking_table(numbers: StudyStatistics) -> Table:
    """Return the conditions by their main metric, best first, with the paired comparison to the best one."""
    metric = numbers.metric
    planned = {row.key: row.planned for row in numbers.coverage}
    keys = {scores.label: scores.key for scores in numbers.scores}
    columns = (
        Column(key="rank", heading="Rank"),
        Column(key="condition", heading="Condition", align="left"),
        Column(key="repeats", heading="Repeats", unit="done / planned", parts=("planned",)),
        Column(key="mean", heading=metric_words(metric), unit=metric_unit(metric), parts=ESTIMATE_PARTS),
        *_balanced_column(numbers),
        Column(key="behind", heading="From the best", unit=difference_unit(metric), parts=("low", "high", "pairs")),
        Column(key="superiority", heading="P(best better)"),
        Column(key="p_worse_holm", heading="p (worse)"),
        Column(key="verdict", heading="Verdict", align="left"),
    )
    reasons = {scores.key: scores.undefined.get(metric, "") for scores in numbers.scores}
    ranked = [_ranked(metric, row, planned.get(row.key, 0), reasons.get(row.key, "")) for row in numbers.ranking.rows]
    unranked = [
        _unranked(name, planned.get(key, 0), reasons.get(key, ""))
        for name, key in ((name, keys.get(name, "")) for name in numbers.ranking.without)
    ]
    if numbers.balanced:
        beside = [numbers.balanced.estimates.get(row.key) for row in numbers.ranking.rows]
        ranked = [
            (*row[:4], estimate_cell(numbers.balanced.metric, one), *row[4:])
            for row, one in zip(ranked, beside, strict=True)
        ]
        unranked = [(*row[:4], estimate_cell(numbers.balanced.metric, None), *row[4:]) for row in unranked]
    return Table(columns=columns, rows=(*ranked, *unranked))


def _balanced_column(numbers: StudyStatistics) -> tuple[Column, ...]:
    """Return the column of the balanced accuracy where it stands beside the accuracy."""
    if numbers.balanced is None:
        return ()
    metric = numbers.balanced.metric
    return (Column(key="balanced", heading=metric_words(metric), unit=metric_unit(metric), parts=ESTIMATE_PARTS),)


def _ranked(metric: str, row: RankedCondition, planned: int, reason: str) -> tuple[Cell, ...]:
    best = row.verdict == "best"
    p = row.candidate.p if row.candidate and not best else None
    return (
        number_cell(str(row.rank), row.rank),
        label(row.label, "best" if best else "", strong=best),
        Cell(text=f"{row.estimate.n} / {planned}", value=row.estimate.n, parts=(planned,)),
        estimate_cell(metric, row.estimate, strong=best, reason=reason),
        _behind(metric, row.pair),
        _share_of_pairs(row.pair),
        number_cell(p_value(p), p),
        label(VERDICTS[row.verdict]),
    )


def _share_of_pairs(pair: Pair | None) -> Cell:
    share = pair.superiority if pair else None
    return number_cell("" if share is None else f"{share:.2f}", share)


def _behind(metric: str, pair: Pair | None) -> Cell:
    """Return the paired difference of this condition from the best: negative where less, as a reader expects it."""
    if pair is None:
        return Cell(text=NONE, parts=(None, None, None))
    gap = pair.comparison.difference
    low, high = (None, None) if gap.low is None or gap.high is None else (-gap.high, -gap.low)
    return Cell(
        text=difference(metric, -gap.mean), detail=bracket(metric, low, high), value=-gap.mean, parts=(low, high, gap.n)
    )


def _unranked(name: str, planned: int, reason: str) -> tuple[Cell, ...]:
    nothing = Cell(text=NONE)
    return (
        nothing,
        label(name),
        Cell(text=f"0 / {planned}", value=0, parts=(planned,)),
        Cell(text=NONE, parts=(None, None, 0), reason=reason),
        Cell(text=NONE, parts=(None, None, None)),
        nothing,
        nothing,
        label("undefined" if reason else "no result"),
    )


FEWEST_TOP5_CLASSES = 20
"""From this many classes on, tables show the top-5 accuracy."""


def split_table(numbers: StudyStatistics, split: str) -> Table | None:
    """Return every metric of a split for every condition, or None when no condition has one."""
    every = [f"{split}.{name}" for name in metric_names()]
    known = [metric for metric in every if any(metric in {*s.metrics, *s.undefined} for s in numbers.scores)]
    metrics = [metric for metric in known if not says_little(numbers, metric)]
    if not metrics:
        return None
    table = TableOf(scores for scores in numbers.scores if _repeats(scores, metrics))
    table.text("condition", "Condition", lambda scores: scores.label)
    table.number("repeats", "Repeats", lambda scores: _repeats(scores, metrics))
    for metric in metrics:
        heading = metric_words(metric).removeprefix(f"{split} ")
        column = Column(key=metric.partition(".")[2], heading=heading, unit=metric_unit(metric), parts=ESTIMATE_PARTS)
        table.add(column, partial(_score, metric=metric, best=_best(numbers, metric)))
    return table.made()


def says_little(numbers: StudyStatistics, metric: str) -> bool:
    """Return whether tables and choices leave a metric out that is not the study's own.

    Micro F1 is the accuracy under another name where each image has one label; of fewer than 20 classes nearly every
    image's is among the first five.
    """
    split, _, name = metric.partition(".")
    if metric == numbers.metric:
        return False
    if name == "top5_accuracy":
        return numbers.classes is not None and len(numbers.classes.names) < FEWEST_TOP5_CLASSES
    if name != "micro_f1":
        return False
    pairs = [(scores.metrics.get(metric), scores.metrics.get(f"{split}.accuracy")) for scores in numbers.scores]
    return all(one is None or (other is not None and one.values == other.values) for one, other in pairs)


def _repeats(scores: Scores, metrics: Sequence[str]) -> int:
    return max((scores.metrics[metric].n for metric in metrics if metric in scores.metrics), default=0)


def _score(scores: Scores, metric: str, best: str) -> Cell:
    reason = scores.undefined.get(metric, "")
    return estimate_cell(metric, scores.metrics.get(metric), strong=scores.key == best, reason=reason)


def _best(numbers: StudyStatistics, metric: str) -> str:
    """Return the key of the condition with the best mean, or nothing when there is no other to be better than."""
    known = [(scores.metrics[metric].mean, scores.key) for scores in numbers.scores if metric in scores.metrics]
    if len(known) < 2:
        return ""
    return (min if lower_is_better(metric) else max)(known)[1]


def pairs_table(numbers: StudyStatistics) -> tuple[Table, Table]:
    """Return all pairs of ranked conditions, for the page (shortened when there are many) and for CSV."""
    pairs, best = numbers.ranking.pairs, numbers.ranking.best
    full = _pairs(numbers, pairs)
    if len(pairs) <= MOST_PAIRS or best is None:
        return full, full
    return _pairs(numbers, [pair for pair in pairs if best.key in (pair.first, pair.second)]), full


MOST_SQUARE = 10
"""So many conditions fit beside each other into a matrix of their pairs."""


def pairs_matrix(numbers: StudyStatistics) -> Table | None:
    """Return the differences of all pairs with their corrected p, each once: the row's condition minus the column's.

    None for more conditions than a page is wide enough for, and for fewer than three, whose pair is in the ranking.
    """
    rows = numbers.ranking.rows
    if not 2 < len(rows) <= MOST_SQUARE:
        return None
    pairs = {(pair.first, pair.second): pair for pair in numbers.ranking.pairs}
    table = TableOf(rows[:-1])
    table.number("rank", "Rank", lambda row: row.rank)
    table.text("condition", "Condition", lambda row: row.label)
    for column in rows[1:]:
        heading = Column(key=f"minus_{column.rank}", heading=f"minus {column.rank}", parts=("p_holm",))
        table.add(heading, partial(_pair_cell, numbers.metric, pairs, second=column.key))
    return table.made()


def _pair_cell(metric: str, pairs: Mapping[tuple[str, str], Pair], row: RankedCondition, second: str) -> Cell:
    pair = pairs.get((row.key, second))
    if pair is None:
        return Cell(text="", parts=(None,))
    gap = pair.comparison.difference.mean
    p = f"p {p_words(pair.p_adjusted)}" if pair.p_adjusted is not None else ""
    return Cell(text=difference(metric, gap), detail=p, value=gap, parts=(pair.p_adjusted,), strong=pair.decided)


def _pairs(numbers: StudyStatistics, pairs: Sequence[Pair]) -> Table:
    metric, unit = numbers.metric, difference_unit(numbers.metric)
    labels = {row.key: row.label for row in numbers.ranking.rows}
    table = TableOf(better_first(pair, metric) for pair in pairs)
    better = Column(key="first", heading="Better", align="left")
    table.add(better, lambda pair: label(labels[pair.first], strong=pair.decided))
    table.text("second", "Than", lambda pair: labels[pair.second])
    table.number("pairs", "Pairs", lambda pair: pair.comparison.n)
    gap = Column(key="difference", heading="Difference", unit=unit, parts=("low", "high"))
    table.add(gap, lambda pair: _amount(metric, pair.comparison.difference))
    table.number("p", "p", lambda pair: pair.comparison.p, p_value)
    corrected = Column(key="p_holm", heading="p (Holm)")
    table.add(corrected, lambda pair: number_cell(p_value(pair.p_adjusted), pair.p_adjusted, strong=pair.decided))
    table.number("effect_size", "d_z", lambda pair: pair.comparison.effect_size, lambda size: number(size, 3))
    within = partial(within_range, metric)
    table.number("detectable", "Detectable", lambda pair: pair.detectable, within, unit=unit)
    table.add(Column(key="superiority", heading="P(A > B)"), _share_of_pairs)
    return table.made()


def _amount(metric: str, gap: Estimate) -> Cell:
    return Cell(
        text=bare(metric, abs(gap.mean)),
        detail=_absolute(metric, gap.low, gap.high, gap.mean),
        value=gap.mean,
        parts=(gap.low, gap.high),
    )


def _absolute(metric: str, low: float | None, high: float | None, mean: float) -> str:
    """Return the interval of a difference that is shown as an amount, turned where less is better."""
    if low is None or high is None:
        return ""
    return bracket(metric, low, high) if mean >= 0 else bracket(metric, -high, -low)


def uncertainty_table(numbers: StudyStatistics) -> Table:
    """Return each condition's test accuracy with its intervals over seeds, over images, and over both together."""
    table = TableOf(numbers.uncertainty)
    table.text("condition", "Condition", lambda row: row.label)
    table.number("repeats", "Repeats", lambda row: row.interval.repeats)
    table.number("images", "Images", lambda row: row.interval.images, "{:,}".format)
    table.number("mean", "Accuracy", lambda row: row.interval.mean, partial(bare, "accuracy"), unit="%")
    for key, heading in (("seeds", "Other seeds"), ("images_only", "Other images"), ("both", "Both")):
        column = Column(key=key, heading=heading, unit="%", parts=("high",))
        table.add(column, partial(_interval, key=key))
    return table.made()


def _interval(row: Uncertainty, key: str) -> Cell:
    low, high = getattr(row.interval, key)
    return Cell(text=bracket("accuracy", low, high), value=low, parts=(high,))


def effects_table(effects: tuple[LevelEffect, ...], metric: str) -> Table:
    """Return the marginal mean of every level of every factor."""
    table = TableOf(effects)
    table.text("factor", "Factor", lambda effect: effect.factor)
    table.text("level", "Level", lambda effect: effect.level)
    table.number("combinations", "Conditions", lambda effect: effect.combinations)
    table.estimate("mean", metric_words(metric), metric, lambda effect: effect.estimate, unit=metric_unit(metric))
    return table.made()


def named_metric(metric: str) -> str:
    """Return a metric in words, with its unit."""
    unit = metric_unit(metric)
    return f"{metric_words(metric)}{f' ({unit})' if unit else ''}"


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


def in_state(state: str) -> Callable[[Coverage | SearchSummary], int]:
    """Return what counts the trials of a condition or search that are in a state."""
    return lambda row: row.states.get(state, 0)


def search_budget_table(searches: Sequence[SearchSummary]) -> Table:
    """Return what every search was given and spent, so that unequal budgets show."""
    table = TableOf(searches)
    table.text("condition", "Search of", lambda search: search.label)
    table.number("planned", "Trials planned", lambda search: search.planned)
    table.number("started", "Started", lambda search: search.started)
    for state in ("done", "pruned", "diverged", "failed"):
        table.number(state, state.capitalize(), in_state(state))
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
    step = f", step {setting(space.step)}" if space.step else ""
    return f"{setting(space.low)} to {setting(space.high)}{step}{', log scale' if space.log else ''}"


def _chosen(space: SearchRange, summary: SearchSummary) -> Cell:
    value = summary.best_params.get(space.path)
    return Cell(text=NONE if value is None else setting(value), value=_scalar(value))


def front_table(search: Search, searches: Sequence[SearchSummary], trials: Sequence[Trial]) -> Table:
    """Return the trials of each search that no other equals or beats in every goal, by the first goal."""
    found = {(trial.condition.key, trial.index + 1): trial for trial in trials if trial.phase == "search"}
    rows = [(summary, found[summary.key, place]) for summary in searches for place in summary.front]
    table = TableOf(sorted(rows, key=lambda row: (searches.index(row[0]), _sorted_by(row[1], search.goals[0]))))
    table.text("condition", "Search of", lambda row: row[0].label)
    table.number("trial", "Trial", lambda row: row[1].index + 1)
    for goal in (one.metric for one in search.goals):
        score = partial(lambda row, goal: value_of(row[1], goal), goal=goal)
        name, unit = goal.replace(".", "_"), metric_unit(goal)
        table.number(name, metric_words(goal), score, partial(bare, goal), unit=unit)
    table.text("params", "Chosen settings", lambda row: _params(row[1]))
    return table.made()


def _sorted_by(trial: Trial, goal: Goal) -> float:
    return goal.sign * (value_of(trial, goal.metric) or 0.0)


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


def coverage_table(rows: Sequence[Coverage]) -> Table:
    """Return planned trials and what became of them, states that never occur left out."""
    table = TableOf(rows)
    table.text("condition", "Condition", lambda row: row.label)
    table.text("stage", "Stage", lambda row: row.stage)
    table.number("planned", "Planned", lambda row: row.planned)
    for state in STATES:
        if state == "done" or any(row.states.get(state) for row in rows):
            table.number(state, state.capitalize(), in_state(state))
    table.number("missing", "Not started", lambda row: row.missing)
    table.text("complete", "Complete", lambda row: "yes" if row.complete else "no")
    return table.made()


REPEAT = Column(key="repeat", heading="Repeat or trial")


def _repeat(stage: str, index: int) -> Cell:
    """Return the index of a repeat; of a search's trial, the number by which sweep, findings and figures call it."""
    return Cell(text=f"trial {index + 1}" if stage == "search" else str(index), value=index)


def troubles_table(rows: Sequence[FailedTrial]) -> Table:
    """Return the trials that diverged, failed or lost their worker, with the reason."""
    table = TableOf(rows)
    table.text("condition", "Condition", lambda row: row.label)
    table.text("stage", "Stage", lambda row: row.stage)
    table.add(REPEAT, lambda row: _repeat(row.stage, row.index))
    table.number("attempt", "Attempt", lambda row: row.attempt)
    state = Column(key="state", heading="State", align="left")
    table.add(state, lambda row: label(row.state, "retried" if row.retried else ""))
    table.number("epochs", "Epochs", lambda row: row.epochs)
    table.number("seconds", "Training time", lambda row: row.seconds if row.epochs else None, duration)
    table.text("reason", "Reason", lambda row: row.reason or "its worker is gone")
    return table.made()


def numbered_trials(trials: Iterable[Trial]) -> list[tuple[int, Trial]]:
    """Return trials in the order in which they were started, with the number from 1 that a report gives each."""
    return list(enumerate(sorted(trials, key=lambda trial: (trial.started or math.inf, trial.number)), 1))


def trials_table(trials: Sequence[Trial], metric: str) -> Table:
    """Return every trial of the study, in the order in which they were started."""
    table = TableOf(numbered_trials(trials))
    table.number("order", "No.", lambda item: item[0])
    table.text("condition", "Condition", lambda item: item[1].condition.label)
    table.text("stage", "Stage", lambda item: item[1].phase)
    table.add(REPEAT, lambda item: _repeat(item[1].phase, item[1].index))
    table.text("state", "State", lambda item: item[1].state)
    table.number("epochs", "Epochs", lambda item: len(item[1].history))
    loss, score = partial(bare, "val.loss"), partial(bare, metric)
    table.number("val_loss", "val loss", lambda item: value_of(item[1], "val.loss"), loss, unit="nats")
    name = metric.replace(".", "_")
    table.number(name, metric_words(metric), lambda i: value_of(i[1], metric), score, unit=metric_unit(metric))
    table.number("seconds", "Training time", lambda item: _seconds(item[1]), duration)
    nodes = several_nodes(trials)
    if nodes or len({device for trial in trials for device in device_names(trial)}) > 1:
        table.text("where", "Trained on", lambda item: where_trained(item[1], nodes=nodes))
    if any(trial.params for trial in trials):
        table.text("params", "Chosen settings", lambda item: _params(item[1]))
    return table.made()


def _seconds(trial: Trial) -> float | None:
    """Return the seconds of a trial's epochs, None of one that ended before the end of its first."""
    return sum(record.seconds for record in trial.history) if trial.history else None


def _params(trial: Trial) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} = {setting(value)}" for path, value in trial.params.items())
