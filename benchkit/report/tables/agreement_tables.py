"""The tables of several studies: their answers, the conditions that they share, and what differs between them."""

from __future__ import annotations

from collections.abc import Sequence

from benchkit.analysis.agreement import Agreement, ConditionInStudy, SharedCondition
from benchkit.analysis.ranking import Ranking
from benchkit.analysis.record import Record
from benchkit.analysis.wording import NONE, bare, bracket, metric_unit, metric_words, number
from benchkit.report.tables.result_tables import VERDICTS
from benchkit.report.tables.table import ESTIMATE_PARTS, Cell, Column, Table, estimate_cell, label, number_cell

MOST_STUDIES = 4
"""Studies side by side in one table; more are shown in further tables."""

DIFFERING = ("study", "setting", "version")
"""The kinds of properties in which studies are held against each other; data differ by nature."""


def study_groups(count: int) -> list[range]:
    """Return the places of studies that stand in one table, groups of nearly equal size."""
    groups = -(-count // MOST_STUDIES)
    size = -(-count // groups) if groups else 0
    return [range(start, min(start + size, count)) for start in range(0, count, size)] if size else []


def answers_table(studies: Sequence[tuple[str, str, Ranking]]) -> Table:
    """Return for each study (name, data, ranking by its own metric) its best condition and how sure that is."""
    columns = (
        Column(key="study", heading="Study", align="left"),
        Column(key="data", heading="Data", align="left"),
        Column(key="conditions", heading="Conditions"),
        Column(key="best", heading="Best mean", align="left"),
        Column(key="mean", heading="Mean", parts=ESTIMATE_PARTS),
        Column(key="metric", heading="Metric", align="left"),
        Column(key="verdict", heading="Against the others", align="left"),
    )
    return Table(columns=columns, rows=tuple(_answer(name, data, ranking) for name, data, ranking in studies))


def _answer(name: str, data: str, ranking: Ranking) -> tuple[Cell, ...]:
    best, unit = ranking.best, metric_unit(ranking.metric)
    verdict = "no result yet" if best is None else "no other condition" if len(ranking.rows) == 1 else ""
    if not verdict:
        tied = len(ranking.tied)
        verdict = "ahead of all" if ranking.decided else f"{tied} of {len(ranking.rows) - 1} {VERDICTS['tied']}"
    return (
        label(name),
        label(data),
        number_cell(str(len(ranking.rows)), len(ranking.rows)),
        label(best.label if best else NONE),
        estimate_cell(ranking.metric, best.estimate if best else None),
        label(f"{metric_words(ranking.metric)}{f' ({unit})' if unit else ''}"),
        label(verdict),
    )


def shared_table(agreement: Agreement, places: Sequence[int]) -> Table:
    """Return condition by study for the studies at `places`: mean, interval, n and rank, and the mean rank over all."""
    unit = metric_unit(agreement.metric)
    columns = (
        Column(key="condition", heading="Condition", align="left"),
        Column(key="mean_rank", heading="Mean rank"),
        *(
            Column(
                key=f"mean_{agreement.studies[place]}",
                heading=agreement.studies[place],
                unit=unit,
                parts=(*ESTIMATE_PARTS, "rank"),
            )
            for place in places
        ),
    )
    best = min((row.mean_rank for row in agreement.shared if row.mean_rank is not None), default=None)
    return Table(columns=columns, rows=tuple(_shared(agreement, row, places, best) for row in agreement.shared))


def _shared(agreement: Agreement, row: SharedCondition, places: Sequence[int], best: float | None) -> tuple[Cell, ...]:
    rank, first = row.mean_rank, row.mean_rank is not None and row.mean_rank == best
    return (
        label(row.label, strong=first),
        number_cell(number(rank, 3), rank, strong=first),
        *(_standing(agreement.metric, row.standings[place]) for place in places),
    )


def _standing(metric: str, standing: ConditionInStudy | None) -> Cell:
    if standing is None:
        return Cell(text=NONE, parts=(None, None, 0, None))
    found = standing.estimate
    parts = [bracket(metric, found.low, found.high), f"n {found.n}"]
    if standing.rank is not None:
        parts.append(f"rank {number(standing.rank, 3)}")
    return Cell(
        text=bare(metric, found.mean),
        detail=", ".join(part for part in parts if part),
        value=found.mean,
        parts=(found.low, found.high, found.n, standing.rank),
        strong=standing.rank == 1,
    )


def differences_table(records: Sequence[Record], places: Sequence[int]) -> Table:
    """Return what differs between any two of all studies, with the values of those at `places`."""
    values = [{(one.kind, one.name): one.value for one in record.properties} for record in records]
    known = [pair for pair in dict.fromkeys(pair for found in values for pair in found) if pair[0] in DIFFERING]
    known.sort(key=lambda pair: DIFFERING.index(pair[0]))
    rows = [
        (label(kind), label(name), *(label(values[place].get((kind, name)) or NONE) for place in places))
        for kind, name in known
        if name != "name" and len({found.get((kind, name)) for found in values}) > 1
    ]
    columns = (
        Column(key="kind", heading="Kind", align="left"),
        Column(key="name", heading="What", align="left"),
        *(Column(key=f"value_{records[place].study}", heading=records[place].study, align="left") for place in places),
    )
    return Table(columns=columns, rows=tuple(rows))
