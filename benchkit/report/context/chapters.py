"""Several reports as chapters of one: every name unique, every number counted through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchkit.report.context.blocks import (
    Block,
    Chapter,
    FigureBlock,
    FindingBlock,
    Link,
    ReportContext,
    Section,
    TableBlock,
)
from benchkit.report.context.compose import numbered


def chapter_names(studies: Sequence[str]) -> tuple[str, ...]:
    """Return an anchor for each study from its file stem, no two alike even where case does not count."""
    names: list[str] = []
    for stem in (study.lower() for study in studies):
        name, count = stem, 2
        while name in names:
            name, count = f"{stem}-{count}", count + 1
        names.append(name)
    return tuple(names)


def with_chapters(whole: ReportContext, parts: Sequence[tuple[str, ReportContext]]) -> ReportContext:
    """Return the common report with its own sections first and each named part as a chapter.

    Sections, tables and figures are numbered through; those of a chapter are named `CHAPTER--NAME`, which no study and
    no plugin can take, since their names hold no two hyphens in a row.
    """
    renamed = [_renamed(section, name, part.study_name) for name, part in parts for section in part.sections]
    counted = _led(numbered([*whole.sections, *renamed]))
    start = len(whole.sections)
    chapters = []
    for place, (name, part) in enumerate(parts, 1):
        end = start + len(part.sections)
        chapters.append(Chapter(number=place, name=name, report=replace(part, sections=counted[start:end])))
        start = end
    return replace(whole, sections=counted[: len(whole.sections)], chapters=tuple(chapters))


def _led(sections: Sequence[Section]) -> tuple[Section, ...]:
    """Return numbered sections with the numbers that the targets of findings' links have now."""
    kinds = {"figure": "Figure", "table": "Table"}
    blocks = [block for part in sections for block in part.blocks if isinstance(block, TableBlock | FigureBlock)]
    texts = {f"{block.kind}-{block.name}": f"{kinds[block.kind]} {block.number}" for block in blocks}
    return tuple(replace(part, blocks=tuple(_relinked(block, texts) for block in part.blocks)) for part in sections)


def _relinked(block: Block, texts: Mapping[str, str]) -> Block:
    if not isinstance(block, FindingBlock):
        return block
    return replace(block, links=tuple(replace(link, text=texts[link.target]) for link in block.links))


def chapter_pictures(name: str, pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return a chapter's pictures for print by the addresses that its figures have there."""
    return {_address(name, address): content for address, content in pictures.items()}


def _renamed(section: Section, chapter: str, study: str) -> Section:
    blocks = tuple(_renamed_block(block, chapter, study) for block in section.blocks)
    return replace(section, name=f"{chapter}--{section.name}", blocks=blocks)


def _renamed_block(block: Block, chapter: str, study: str) -> Block:
    """Return a block under the chapter's name; the study in the title of tables and figures tells them apart."""
    if isinstance(block, FindingBlock):
        return replace(block, links=tuple(_renamed_link(link, chapter) for link in block.links))
    if isinstance(block, TableBlock):
        return replace(block, name=f"{chapter}--{block.name}", title=f"{block.title} ({study})")
    if isinstance(block, FigureBlock):
        address = _address(chapter, block.print_source) if block.print_source else ""
        return replace(block, name=f"{chapter}--{block.name}", title=f"{block.title} ({study})", print_source=address)
    return block


def _renamed_link(link: Link, chapter: str) -> Link:
    kind, name = link.target.split("-", 1)
    return replace(link, target=f"{kind}-{chapter}--{name}")


def _address(chapter: str, address: str) -> str:
    return f"fig:{chapter}--{address.removeprefix('fig:')}"
