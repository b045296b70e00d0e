"""The tables of searches: what each was given and spent, what it may choose and chose, what fresh repeats say."""

from __future__ import annotations

from collections.abc import Sequence

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
from benchkit.report.tables.table import ESTIMATE_PARTS, Cell, Column, Scalar, Table, estimate_cell, label, number_cell
from benchkit.study import Search, SearchRange


def search_budget_table(searches: Sequence[SearchSummary]) -> Table:
    """Return what every search was given and spent, so that unequal budgets show."""
    columns = (
        Column(key="condition", heading="Search of", align="left"),
        Column(key="planned", heading="Trials planned"),
        Column(key="started", heading="Started"),
        *(Column(key=state, heading=state.capitalize()) for state in ("done", "pruned", "diverged", "failed")),
        Column(key="pruned_share", heading="Pruned", unit="% of finished"),
        Column(key="epochs", heading="Epochs"),
        Column(key="seconds", heading="Training time"),
    )
    rows = tuple(
        (
            label(search.label),
            number_cell(str(search.planned), search.planned),
            number_cell(str(search.started), search.started),
            *(
                number_cell(str(search.states.get(state, 0)), search.states.get(state, 0))
                for state in ("done", "pruned", "diverged", "failed")
            ),
            number_cell(bare("accuracy", search.pruned_share), search.pruned_share),
            number_cell(f"{search.epochs:,}", search.epochs),
            number_cell(duration(search.seconds), search.seconds),
        )
        for search in searches
    )
    return Table(columns=columns, rows=rows)


MOST_BESIDE = 4
"""From more searches than these on, the best settings stand below each other: a page is not wide enough."""


def search_space_table(search: Search, searches: Sequence[SearchSummary]) -> Table:
    """Return the searched settings, their ranges, and what each search's best trial chose."""
    if len(searches) > MOST_BESIDE:
        return _long_space_table(search, searches)
    columns = (
        Column(key="setting", heading="Setting", align="left"),
        Column(key="range", heading="Range", align="left"),
        *(
            Column(key=f"best_{place}", heading=f"Best for {one.label}", align="right")
            for place, one in enumerate(searches, 1)
        ),
    )
    rows = tuple(
        (label(space.path), label(_allowed(space)), *(_chosen(space, one) for one in searches))
        for space in search.space
    )
    return Table(columns=columns, rows=rows)


def _long_space_table(search: Search, searches: Sequence[SearchSummary]) -> Table:
    columns = (
        Column(key="condition", heading="Search of", align="left"),
        Column(key="setting", heading="Setting", align="left"),
        Column(key="range", heading="Range", align="left"),
        Column(key="best", heading="Best"),
    )
    rows = tuple(
        (label(one.label), label(space.path), label(_allowed(space)), _chosen(space, one))
        for one in searches
        for space in search.space
    )
    return Table(columns=columns, rows=rows)


def _allowed(space: SearchRange) -> str:
    if space.choices:
        return ", ".join(setting(choice) for choice in space.choices)
    return f"{setting(space.low)} to {setting(space.high)}{', log scale' if space.log else ''}"


def _chosen(space: SearchRange, found: SearchSummary) -> Cell:
    value = found.best_params.get(space.path)
    return Cell(text=NONE if value is None else setting(value), value=_scalar(value))


def confirmation_table(searches: Sequence[SearchSummary]) -> Table:
    """Return the searched score beside the fresh repeats of the chosen and of the study's own settings."""
    goal = searches[0].goal
    columns = (
        Column(key="condition", heading="Search of", align="left"),
        Column(key="trial", heading="Best trial"),
        Column(key="searched", heading=f"Searched {metric_words(goal)}", unit=metric_unit(goal)),
        Column(key="confirmed", heading="Fresh repeats", unit=metric_unit(goal), parts=ESTIMATE_PARTS),
        Column(key="optimism", heading="Promised too much", unit=difference_unit(goal)),
        Column(key="default", heading="Study's own settings", unit=metric_unit(goal), parts=ESTIMATE_PARTS),
        Column(key="gain", heading="Chosen minus own", unit=difference_unit(goal), parts=("low", "high", "pairs")),
        Column(key="p", heading="p"),
    )
    return Table(columns=columns, rows=tuple(_confirmed(search) for search in searches))


def _confirmed(search: SearchSummary) -> tuple[Cell, ...]:
    goal, found = search.goal, search.confirmation
    gain = found.gain if found else None
    gap = gain.difference if gain else None
    optimism = found.optimism if found else None
    return (
        label(search.label, "own settings won" if search.chose_default else _shared(search)),
        number_cell(str(search.best_place), search.best_place),
        number_cell(bare(goal, search.best_value), search.best_value),
        estimate_cell(goal, found.chosen if found else None),
        number_cell(difference(goal, optimism), optimism),
        estimate_cell(goal, found.default if found else None),
        Cell(
            text=difference(goal, gap.mean) if gap else NONE,
            detail=bracket(goal, gap.low, gap.high) if gap else "",
            value=gap.mean if gap else None,
            parts=(gap.low, gap.high, gap.n) if gap else (None, None, None),
        ),
        number_cell(p_value(gain.p if gain else None), gain.p if gain else None),
    )


def _shared(search: SearchSummary) -> str:
    return f"same settings as by {search.same_as}" if search.same_as else ""


def _scalar(value: object) -> Scalar:
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
