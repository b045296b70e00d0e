"""The section on what a study repeats or quotes: settings beside the source's, its numbers beside ours, its claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchkit.analysis.published import PublishedComparison, PublishedVerdict
from benchkit.analysis.source import ClaimVerdict, ProtocolSetting
from benchkit.analysis.summary import Summary
from benchkit.analysis.wording import bare, bracket, count, difference, listing, span
from benchkit.metrics import metric_of
from benchkit.report.context.blocks import Block, HeadingBlock, Paragraph, Section, section, table_block
from benchkit.report.tables.result_tables import named_metric
from benchkit.report.tables.table import ESTIMATE_PARTS, Cell, Column, Table, TableOf, estimate_cell, number_cell
from benchkit.results import StudyResults
from benchkit.study import Published

KINDS = {
    "kept": "Kept as stated",
    "departed": "Departed from",
    "set for this run": "Set otherwise for this run alone",
    "inferred": "Inferred, since the source does not say",
    "ours": "Ours, since nothing is stated",
}
"""The kinds of settings in the order of the report, and the words for them."""
IN_FULL = ("departed", "set for this run")

INCOMPARABLE: Mapping[PublishedVerdict, str] = {
    "other protocol": "ours were trained by another protocol",
    "in doubt": "they are in doubt themselves",
    "no counterpart": "there is no result of ours yet",
}
"""The verdicts on a published number that stands beside none of ours, and why it does."""


def source_section(results: StudyResults, summary: Summary) -> Section:
    """Return the section of a study that repeats a source or quotes published numbers."""
    study, numbers = results.study, summary.numbers
    blocks: list[Block] = []
    if study.origin is not None:
        cited = (f"This study repeats {study.origin.citation}.", study.origin.url, study.origin.note)
        blocks.append(Paragraph(text=" ".join(part for part in cited if part)))
        blocks += _protocol(numbers.protocol)
    blocks += _published(study.published, numbers.published)
    if numbers.claims:
        blocks.append(
            table_block(
                "claims",
                "What the source claims",
                "Claims of the source, held against the numbers that it prints itself, where n is stated within the "
                "noise of so many images, and against ours: the paired t test over repeats at the level 0.05, and for "
                "a rising loss the over-fitting of the learning curves.",
                claims_table(numbers.claims),
            )
        )
    numbered = any(source.rows for source in study.published)
    titles = {(True, True): "The source and its numbers", (False, True): "Published numbers"}
    return section("published", titles.get((study.origin is not None, numbered), "The source"), blocks)


def _protocol(rows: Sequence[ProtocolSetting]) -> list[Block]:
    """Return one line for each kind of setting, and the departures in full; the table's CSV has all of them."""
    blocks: list[Block] = [HeadingBlock(text="Settings: the source and ours")]
    for kind, words in KINDS.items():
        of_kind = [row for row in rows if row.kind == kind]
        if of_kind:
            listed = ", ".join(f"{row.path} = {row.ours}" for row in of_kind)
            blocks.append(Paragraph(text=f"{words} ({count(len(of_kind), 'setting')}): {listed}."))
    shown = [row for row in rows if row.kind in IN_FULL]
    blocks.append(
        table_block(
            "protocol",
            "Settings that differ from the source's" if shown else "No setting differs from the source's",
            "Settings that bear on results where ours are not the source's, and why. The CSV has every setting, with "
            "the source's own words and their place. Settings of the engine (threads, compilation, memory layout) are "
            "left out.",
            protocol_table(shown),
            full=protocol_table(rows),
        )
    )
    return blocks


def _published(sources: Sequence[Published], compared: Sequence[PublishedComparison]) -> list[Block]:
    blocks: list[Block] = []
    for place, source in enumerate(sources, 1):
        blocks.append(Paragraph(text=" ".join(part for part in (f"{source.source}.", source.url, source.note) if part)))
        rows = [row for row in compared if row.source == source.source]
        alone = all(row.verdict in INCOMPARABLE for row in rows)
        if rows and alone:
            why = " and ".join(dict.fromkeys(INCOMPARABLE[row.verdict] for row in rows))
            blocks.append(Paragraph(text=f"None of its {count(len(rows), 'number')} can be compared with ours: {why}."))
        if rows:
            blocks.append(
                table_block(
                    f"published-{place}",
                    f"{source.source} beside ours",
                    f"{source.source} beside our numbers. A published number is taken as one run, so it is held "
                    "against the 95 % prediction interval for one more repeat of ours. Brackets: for published shares "
                    "the Wilson interval over their n images, where n is stated; for ours the t interval over repeats.",
                    published_table(rows),
                    folded=alone,
                )
            )
    return blocks


def protocol_table(rows: Sequence[ProtocolSetting]) -> Table:
    """Return settings as the source has them beside ours, each with the words or the reason behind it."""
    table = TableOf(rows)
    table.text("setting", "Setting", lambda row: row.path)
    table.text("kind", "Kind", lambda row: row.kind)
    stated = Column(key="stated", heading="The source", align="left", parts=("words", "place"))
    table.add(stated, lambda row: _quoted(row.stated, row.words, row.place))
    table.text("ours", "Ours", lambda row: row.ours)
    table.text("why", "Why", lambda row: row.why)
    return table.made()


def claims_table(rows: Sequence[ClaimVerdict]) -> Table:
    """Return the claims with their verdicts by the source's own numbers and by ours."""
    table = TableOf(rows)
    claim = Column(key="claim", heading="Claim", align="left", parts=("words", "place"))
    table.add(claim, lambda row: _quoted(row.claim, row.words, row.place))
    printed = Column(key="printed", heading="By what it prints", align="left", parts=("why",))
    table.add(printed, lambda row: _reasoned(row.printed, row.printed_why))
    ours = Column(key="ours", heading="By our results", align="left", parts=("why",))
    table.add(ours, lambda row: _reasoned(row.ours, row.ours_why))
    return table.made()


def _quoted(text: str, words: str, place: str) -> Cell:
    detail = ", ".join(part for part in (f"\u201c{words}\u201d" if words else "", place) if part)
    return Cell(text=text, detail=detail, value=text, parts=(words, place))


def _reasoned(text: str, why: str) -> Cell:
    return Cell(text=text, detail=why, value=text, parts=(why,))


def published_table(rows: Sequence[PublishedComparison]) -> Table:
    """Return one source's numbers beside ours, with the interval for one more repeat of ours and the verdict."""
    table = TableOf(rows)
    table.text("condition", "Condition", lambda row: row.label)
    table.text("metric", "Metric", lambda row: named_metric(row.metric))
    table.add(Column(key="published", heading="Published", parts=("low", "high", "n")), _published_cell)
    ours = Column(key="ours", heading="Ours", parts=ESTIMATE_PARTS)
    table.add(ours, lambda row: estimate_cell(row.metric, row.ours))
    gap = Column(key="difference", heading="Ours minus published")
    table.add(gap, lambda row: number_cell(difference(row.metric, row.difference), row.difference))
    verdict = Column(key="verdict", heading="Verdict", align="left", parts=("prediction_low", "prediction_high"))
    table.add(
        verdict,
        lambda row: Cell(text=_verdict(row), detail=_expected(row), value=row.verdict, parts=(row.low, row.high)),
    )
    return table.made()


def _published_cell(row: PublishedComparison) -> Cell:
    text, sampling = bare(row.metric, row.published), row.sampling
    printed = f"printed {row.printed}" if row.printed else ""
    if sampling is None:
        unknown = "n not stated" if metric_of(row.metric).of_images else ""
        detail = ", ".join(part for part in (printed, unknown) if part)
        return Cell(text=text, detail=detail, value=row.published, parts=(None, None, None))
    interval = f"{bracket(row.metric, sampling.low, sampling.high)}, n = {sampling.n:,}"
    detail = ", ".join(part for part in (printed, interval) if part)
    return Cell(text=text, detail=detail, value=row.published, parts=(sampling.low, sampling.high, sampling.n))


def _verdict(row: PublishedComparison) -> str:
    few = ""
    if row.sampling is not None:
        open_ = span(row.metric, row.sampling.low, row.sampling.high)
        few = f"cannot be judged: its {row.sampling.n:,} images leave {open_} open"
    words: dict[PublishedVerdict, str] = {
        "consistent": "consistent with ours",
        "ours higher": "not consistent: ours is higher",
        "ours lower": "not consistent: ours is lower",
        "few images": few,
        "in doubt": f"cannot be compared: {row.doubt}",
        "other protocol": f"cannot be compared: {listing(row.departs, most=3)}",
        "one repeat": "cannot be judged: one repeat of ours has no spread",
        "no counterpart": "cannot be compared: no result of ours yet",
    }
    return words[row.verdict]


def _expected(row: PublishedComparison) -> str:
    """Return where one more repeat of ours would fall, and the row's own note."""
    within = (
        f"one more of ours: {span(row.metric, row.low, row.high)}"
        if row.low is not None and row.high is not None
        else ""
    )
    return "; ".join(part for part in (within, row.note) if part)
