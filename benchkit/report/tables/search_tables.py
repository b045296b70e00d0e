"""The tables of searches: what each was given and spent, what it may choose and chose, what fresh repeats say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from benchkit.analysis.comparisons import PairedComparison
from benchkit.analysis.search import SearchSummary
from benchkit.analysis.wording import (
    NONE,
    bare,
    bracket,
    difference,
    difference_unit,
    metric_unit,
    metric_words,
    p_value,
    setting,
)
from benchkit.duration import duration
from benchkit.report.tables.table import Cell, Column, Scalar, Table, TableOf, label
from benchkit.study import Search, SearchRange


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


def _in_state(state: str) -> Callable[[SearchSummary], int]:
    return lambda search: search.states.get(state, 0)


MOST_BESIDE = 4
"""From more searches than these on, the best settings stand below each other: a page is not wide enough."""


def search_space_table(search: Search, searches: Sequence[SearchSummary]) -> Table:
    """Return the searched settings, their ranges, and what each search's best trial chose."""
    if len(searches) > MOST_BESIDE:
        return _long_space_table(search, searches)
    table = TableOf(search.space)
    table.text("setting", "Setting", lambda space: space.path)
    table.text("range", "Range", _allowed)
    for number, summary in enumerate(searches, 1):
        table.add(Column(key=f"best_{number}", heading=f"Best for {summary.label}"), partial(_chosen, summary=summary))
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
