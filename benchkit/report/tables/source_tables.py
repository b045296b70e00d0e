"""The tables of what a study's source states and claims."""

from __future__ import annotations

from collections.abc import Sequence

from benchkit.analysis.source import ClaimVerdict, ProtocolSetting
from benchkit.report.tables.table import Cell, Column, Table, label


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
