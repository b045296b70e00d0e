"""The section on the source that a study repeats: what it states, what it prints beside ours, what it claims."""

from __future__ import annotations

from collections.abc import Sequence

from benchkit.analysis.source import ProtocolSetting
from benchkit.analysis.wording import count
from benchkit.report.context.blocks import Block, HeadingBlock, Paragraph, Section
from benchkit.report.context.finding_links import SHOWN_IN
from benchkit.report.context.sections import SectionInputs, finding_block, section, table_block
from benchkit.report.tables.result_tables import published_table
from benchkit.report.tables.source_tables import claims_table, protocol_table

KINDS = {
    "kept": "Kept as stated",
    "departed": "Departed from",
    "set for this run": "Set otherwise for this run alone",
    "inferred": "Inferred, since the source does not say",
    "ours": "Ours, since nothing is stated",
}
"""The kinds of settings in the order of the report, and the words for them."""
IN_FULL = ("departed", "set for this run")


def source_section(inputs: SectionInputs) -> Section | None:
    """Return the section, or None when the study neither repeats a source nor quotes published numbers."""
    study, numbers = inputs.results.study, inputs.summary.numbers
    if study.origin is None and not study.published:
        return None
    blocks: list[Block] = []
    if study.origin is not None:
        cited = (f"This study repeats {study.origin.citation}.", study.origin.url, study.origin.note)
        blocks.append(Paragraph(text=" ".join(part for part in cited if part)))
        blocks += _protocol(numbers.protocol)
    blocks += _published(inputs)
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
    findings = [f for f in inputs.summary.findings if "table:published" in SHOWN_IN.get(f.rule, ())]
    if findings:
        blocks.append(HeadingBlock(text="What they can and cannot be"))
    blocks += [finding_block(finding) for finding in findings]
    return section("published", "The source and its numbers" if study.origin else "Published numbers", blocks)


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


def _published(inputs: SectionInputs) -> list[Block]:
    blocks: list[Block] = []
    for place, source in enumerate(inputs.results.study.published, 1):
        blocks.append(Paragraph(text=" ".join(part for part in (f"{source.source}.", source.url, source.note) if part)))
        rows = [row for row in inputs.summary.numbers.published if row.source == source.source]
        if rows:
            blocks.append(
                table_block(
                    f"published-{place}",
                    f"{source.source} beside ours",
                    f"{source.source} beside our numbers. A published number is taken as one run, so it is held "
                    "against the 95 % prediction interval for one more repeat of ours. Brackets: for published shares "
                    "the Wilson interval over their n images, where n is stated; for ours the t interval over repeats.",
                    published_table(rows),
                )
            )
    return blocks
