"""Reports that are ready to be written, of one study or of several: content, files and pictures."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchkit import __version__
from benchkit.analysis.agreement import Agreement, agree, agreement_findings, find_namesakes
from benchkit.analysis.changes import Changes, change_findings
from benchkit.analysis.ranking import Ranking, rank
from benchkit.analysis.summary import Summary, summarize
from benchkit.analysis.wording import Finding, count, listing, metric_words
from benchkit.duration import duration
from benchkit.report.context.agreement_sections import (
    changes_section,
    differences_section,
    then_words,
    together_section,
)
from benchkit.report.context.blocks import (
    Banner,
    Block,
    Chapter,
    DownloadBlock,
    Fact,
    FigureBlock,
    FindingBlock,
    Link,
    ReportContext,
    Section,
    TableBlock,
    Term,
    TermsBlock,
)
from benchkit.report.context.compose import (
    changes_since,
    compose,
    last_finished,
    linked,
    numbered,
    read_record,
    record_of,
)
from benchkit.report.context.provenance_sections import resolved
from benchkit.report.context.sections import names_used
from benchkit.report.context.views import with_choices
from benchkit.report.figures.figure_set import FigureSet
from benchkit.report.files.exports import SCHEMA, Files, blocks_content, export_files, file_stem, study_content
from benchkit.results import StudyResults
from benchkit.storage import encode


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyBuild:
    """One study on its way into a report: results, summary, figures, content, and what has changed, if asked."""

    results: StudyResults
    summary: Summary
    figure_set: FigureSet
    report: ReportContext
    changes: Changes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportBuild:
    """What will be written: the content, files beside it by relative path, figures' pictures by `fig:` address.

    `screen` is the content with what a reader of the HTML page can choose, or the same as `report` (`with_screen`).
    `dated` is when the last trial finished, in seconds since 1970; `problems` and `tracebacks` tell of broken figures.
    """

    stem: str
    report: ReportContext
    screen: ReportContext
    files: Files
    pictures: dict[str, bytes]
    problems: tuple[str, ...]
    tracebacks: tuple[str, ...]
    dated: float


def build_study(figure_set: FigureSet, *, against: Path | None = None) -> StudyBuild:
    """Return the whole content of the study that the figures are of; with `against`, held against its earlier state.

    Raises `ReportError` or `LedgerError` when `against` cannot be read or has nothing to compare.
    """
    results = figure_set.results
    summary = summarize(results)
    changes = section = None
    if against is not None:
        old, new = read_record(against, results.study.name), record_of(results)
        changes = changes_since(old, new, against)
        section = changes_section(changes, old.source, new.source)
        main, *others = change_findings(changes)
        grave = [finding for finding in others if finding.tone == "warning"]
        summary = replace(summary, findings=(*summary.findings, main, *grave))
    report = compose(results, summary, figure_set, section)
    if changes is not None:
        report = replace(report, facts=(*report.facts, Fact(name="Compared with", value=then_words(changes))))
    return StudyBuild(results=results, summary=summary, figure_set=figure_set, report=report, changes=changes)


def single_build(part: StudyBuild, exports: frozenset[str], stem: str = "") -> ReportBuild:
    """Return the report of one study; `stem` names its files, by default the study's name."""
    content = study_content(part.report, part.summary, part.results, part.changes)
    drawn = part.figure_set.pictures
    return ReportBuild(
        stem=file_stem(stem or part.results.study.name),
        report=part.report,
        screen=part.report,
        files=export_files(part.report, study_files(part), content, exports, drawn),
        pictures=drawn,
        problems=tuple(part.figure_set.problems),
        tracebacks=tuple(part.figure_set.tracebacks),
        dated=last_finished(part.results),
    )


def with_screen(build: ReportBuild, parts: Sequence[StudyBuild]) -> ReportBuild:
    """Return the build of some studies with its content for the HTML page; a PDF can be printed meanwhile."""
    told = [len(part.figure_set.problems) for part in parts]
    if build.report.chapters:
        names = [chapter.name for chapter in build.report.chapters]
        front = replace(build.report, chapters=())
        screen = with_chapters(front, list(zip(names, map(screen_of, parts), strict=True)))
    else:
        screen = screen_of(replace(parts[0], report=build.report))
    new = [line for part, known in zip(parts, told, strict=True) for line in part.figure_set.problems[known:]]
    tracebacks = tuple(trace for part in parts for trace in part.figure_set.tracebacks)
    return replace(build, screen=screen, problems=(*build.problems, *new), tracebacks=tracebacks)


def screen_of(part: StudyBuild) -> ReportContext:
    """Return a study's content for its HTML page, with what a reader can choose there."""
    return with_choices(part.report, part.results, part.summary, part.figure_set)


def study_files(part: StudyBuild) -> Files:
    """Return the files that a study's report offers: the study as written, its settings, and its references."""
    offered = {b.file: base64.b64decode(b.content) for b in part.report.blocks() if isinstance(b, DownloadBlock)}
    source, settings = (text.encode() for text in (part.results.study.source, resolved(part.results)))
    return {"study.toml": source, "settings.toml": settings, **offered}


LONGEST_NAME = 120
"""Characters of the file name that the studies' names make together; a longer one names the first and a number."""


def multi_build(parts: Sequence[StudyBuild], exports: Collection[str], name: str = "") -> ReportBuild:
    """Return the common report of two studies or more; `name` names its files, by default A+B."""
    metric, rankings = common_rankings(parts)
    agreement = agree(
        [(part.results.study.name, ranking) for part, ranking in zip(parts, rankings, strict=True)],
        metric,
        find_namesakes([part.results for part in parts]),
    )
    findings = agreement_findings(agreement)
    first = parts[0].figure_set
    common = FigureSet(
        results=first.results, registry=first.registry, files=first.files, chart_worker=first.chart_worker
    )
    together = together_section(parts, agreement, findings, common)
    records = [record_of(part.results) for part in parts]
    sections = [together, *differences_section(records)]
    names = chapter_names([file_stem(part.results.study.name) for part in parts])
    front = _front(parts, agreement, findings, sections)
    whole = with_chapters(front, list(zip(names, (part.report for part in parts), strict=True)))
    pictures = dict(common.pictures)
    for chapter, part in zip(names, parts, strict=True):
        pictures |= chapter_pictures(chapter, part.figure_set.pictures)
    own = [f"{part.results.study.name}: {line}" for part in parts for line in part.figure_set.problems]
    sources = {
        f"{chapter}/{file}": content
        for chapter, part in zip(names, parts, strict=True)
        for file, content in study_files(part).items()
    }
    content = _content(whole, parts, agreement, findings)
    return ReportBuild(
        stem=file_stem(name) if name else common_stem([part.results.study.name for part in parts]),
        report=whole,
        screen=whole,
        files=export_files(whole, sources, content, exports, pictures),
        pictures=pictures,
        problems=(*common.problems, *own),
        tracebacks=tuple(trace for one in (common, *(part.figure_set for part in parts)) for trace in one.tracebacks),
        dated=max(last_finished(part.results) for part in parts),
    )


def common_rankings(parts: Sequence[StudyBuild]) -> tuple[str, list[Ranking]]:
    """Return the metric by which all studies are ranked together, the first one's, and every study's ranking by it."""
    metric = parts[0].results.study.report.metric
    return metric, [
        part.summary.ranking if part.summary.ranking.metric == metric else rank(part.results, metric) for part in parts
    ]


def common_stem(studies: Sequence[str]) -> str:
    """Return the name of the files: A+B, or A+2-more where that would be too long."""
    stems = [file_stem(study) for study in studies]
    whole = "+".join(stems)
    return whole if len(whole) <= LONGEST_NAME else f"{stems[0][:LONGEST_NAME]}+{len(stems) - 1}-more"


def _front(
    parts: Sequence[StudyBuild], agreement: Agreement, findings: Sequence[Finding], sections: Sequence[Section]
) -> ReportContext:
    """Return the common first page with the common sections, not numbered yet."""
    studies = [part.results.study for part in parts]
    questions = dict.fromkeys(study.question for study in studies)
    authors = dict.fromkeys(author for study in studies for author in study.report.authors)
    latest = max(parts, key=lambda part: last_finished(part.results))
    return ReportContext(
        title=f"Comparison of {listing(agreement.studies, most=5)}",
        question=next(iter(questions)) if len(questions) == 1 else "What does each study find, and do they agree?",
        description=_description(parts),
        authors=listing(list(authors), most=20),
        study_name=listing(agreement.studies, most=3),
        generator=f"benchkit {__version__}",
        dated=latest.report.dated,
        banners=_banners(parts),
        answer=_answer(parts, findings),
        facts=_facts(parts, agreement),
        sections=linked(numbered(sections)),
    )


def _description(parts: Sequence[StudyBuild]) -> str:
    titles = [f"{number}. {part.report.title}" for number, part in enumerate(parts, 1)]
    return f"The studies, each a chapter of this report: {'; '.join(titles)}."


def _banners(parts: Sequence[StudyBuild]) -> tuple[Banner, ...]:
    """Return every study's banners; one that all of them have stands once."""
    all_of = [set(part.report.banners) for part in parts]
    everywhere = [banner for banner in parts[0].report.banners if all(banner in banners for banners in all_of)]
    own = [
        Banner(title=f"{banner.title} ({part.results.study.name})", text=banner.text)
        for part in parts
        for banner in part.report.banners
        if banner not in everywhere
    ]
    return (*everywhere, *own)


def _answer(parts: Sequence[StudyBuild], findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return whether the studies agree, by more than chance or not, and the first thing to distrust."""
    cautions = [finding.sentence for finding in findings if finding.tone == "warning"]
    cautions += [
        f"{part.results.study.name}: {finding.sentence}"
        for part in parts
        for finding in part.summary.findings
        if finding.tone == "warning"
    ]
    closing = cautions[0] if cautions else "Nothing that the studies planned is missing."
    return (findings[0].sentence, findings[1].sentence, closing)


def _facts(parts: Sequence[StudyBuild], agreement: Agreement) -> tuple[Fact, ...]:
    seconds = sum(part.summary.training_seconds for part in parts)
    data = dict.fromkeys(name for part in parts for name in names_used(part.results, "data"))
    facts = [
        Fact(name="Studies", value=str(len(parts))),
        Fact(name="Common conditions", value=str(len(agreement.common))),
        Fact(name="Trials", value=f"{sum(part.summary.done for part in parts)} done of "
             f"{count(sum(part.summary.trials for part in parts), 'trial')}"),
        Fact(name="Data", value=listing(list(data))),
        Fact(name="Compared by", value=metric_words(agreement.metric)),
        Fact(name="Training time", value=duration(seconds) if seconds else ""),
    ]  # fmt: skip
    return tuple(fact for fact in facts if fact.value)


def _content(
    whole: ReportContext, parts: Sequence[StudyBuild], agreement: Agreement, findings: Sequence[Finding]
) -> dict[str, Any]:
    """Return what the common report says, for JSON, and every study's report in it."""
    return {
        "schema": SCHEMA,
        "generator": whole.generator,
        "title": whole.title,
        "answer": list(whole.answer),
        "findings": encode(tuple(findings)),
        "agreement": encode(agreement),
        **blocks_content(whole.sections),
        "studies": [
            study_content(chapter.report, part.summary, part.results, part.changes)
            for chapter, part in zip(whole.chapters, parts, strict=True)
        ],
    }


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
    for number, (name, part) in enumerate(parts, 1):
        end = start + len(part.sections)
        chapters.append(Chapter(number=number, name=name, report=replace(part, sections=counted[start:end])))
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
    if isinstance(block, TermsBlock):
        return replace(block, terms=tuple(_renamed_term(term, chapter) for term in block.terms))
    if isinstance(block, TableBlock):
        cited = tuple(_renamed_link(link, chapter) for link in block.cited)
        return replace(block, name=f"{chapter}--{block.name}", title=f"{block.title} ({study})", cited=cited)
    if isinstance(block, FigureBlock):
        address = _address(chapter, block.print_source) if block.print_source else ""
        cited = tuple(_renamed_link(link, chapter) for link in block.cited)
        named = replace(block, name=f"{chapter}--{block.name}", title=f"{block.title} ({study})")
        return replace(named, print_source=address, cited=cited)
    return block


def _renamed_term(term: Term, chapter: str) -> Term:
    anchor = f"reference-{chapter}--{term.anchor.removeprefix('reference-')}" if term.anchor else ""
    return replace(term, anchor=anchor, links=tuple(_renamed_link(link, chapter) for link in term.links))


def _renamed_link(link: Link, chapter: str) -> Link:
    kind, name = link.target.split("-", 1)
    return replace(link, target=f"{kind}-{chapter}--{name}")


def _address(chapter: str, address: str) -> str:
    return f"fig:{chapter}--{address.removeprefix('fig:')}"
