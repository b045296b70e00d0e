"""One report of several studies: what they share, where they differ, and each study whole as a chapter."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchkit import __version__
from benchkit.analysis.agreement import (
    Agreement,
    SharedCondition,
    agree,
    agreement_findings,
    find_namesakes,
)
from benchkit.analysis.estimates import CONFIDENCE, confidence_of
from benchkit.analysis.ranking import Ranking, rank
from benchkit.analysis.summary import Record, last_finished, record_of
from benchkit.analysis.wording import (
    NONE,
    Finding,
    bare,
    bracket,
    count,
    duration,
    listing,
    metric_unit,
    metric_words,
    number,
)
from benchkit.report.context.blocks import (
    Banner,
    Block,
    Chapter,
    Fact,
    FigureBlock,
    FindingBlock,
    Link,
    Paragraph,
    ReportContext,
    Section,
    TableBlock,
    Term,
    TermsBlock,
    numbered,
    section,
    table_block,
)
from benchkit.report.context.compose import finding_block, linked
from benchkit.report.context.numbers import several_intervals_words
from benchkit.report.context.sections import names_used
from benchkit.report.figures.agreement_chart import AgreementChart, agreement_data, looks_words
from benchkit.report.figures.figure_set import FigureSet, figure_block
from benchkit.report.files.exports import (
    SCHEMA,
    Files,
    ReportBuild,
    StudyBuild,
    blocks_content,
    export_files,
    file_stem,
    study_content,
    study_files,
)
from benchkit.report.tables.result_tables import named_metric
from benchkit.report.tables.table import ESTIMATE_PARTS, Cell, Column, Table, TableOf, estimate_cell, label, number_cell
from benchkit.storage import encode

LONGEST_NAME = 120
"""Characters of the file name that the studies' names make together; a longer one names the first and a number."""


def multi_build(
    parts: Sequence[StudyBuild], common: FigureSet | None, exports: Collection[str], name: str = ""
) -> ReportBuild:
    """Return the common report of two studies or more; `name` names its files, by default A+B.

    `common` makes the figure of what they share; without it there is none.
    """
    metric, rankings = common_rankings(parts)
    agreement = agree(
        [(part.results.study.name, ranking) for part, ranking in zip(parts, rankings, strict=True)],
        metric,
        find_namesakes([part.results for part in parts]),
    )
    findings = agreement_findings(agreement)
    together = together_section(parts, agreement, findings, common)
    sections = [together, *differences_section([record_of(part.results) for part in parts])]
    names = chapter_names([file_stem(part.results.study.name) for part in parts])
    front = _front(parts, agreement, findings, sections)
    whole = with_chapters(front, list(zip(names, (part.report for part in parts), strict=True)))
    pictures = dict(common.pictures) if common else {}
    sources: Files = {}
    for chapter, part in zip(names, parts, strict=True):
        drawn = part.figure_set.pictures if part.figure_set else {}
        pictures |= {_address(chapter, address): content for address, content in drawn.items()}
        sources |= {f"{chapter}/{file}": content for file, content in study_files(part).items()}
    content = _content(whole, parts, agreement, findings)
    return ReportBuild(
        stem=file_stem(name) if name else common_stem([part.results.study.name for part in parts]),
        report=whole,
        files=export_files(whole, sources, content, exports, pictures),
        pictures=pictures,
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
            study_content(replace(part, report=chapter.report))
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


def _renamed(section: Section, chapter: str, study: str) -> Section:
    blocks = tuple(_renamed_block(block, chapter, study) for block in section.blocks)
    return replace(section, name=f"{chapter}--{section.name}", blocks=blocks)


def _renamed_block(block: Block, chapter: str, study: str) -> Block:
    """Return a block under the chapter's name; the study in the title of tables and figures tells them apart."""
    if isinstance(block, FindingBlock):
        return replace(block, links=tuple(_renamed_link(link, chapter) for link in block.links))
    if isinstance(block, TermsBlock):
        return replace(block, terms=tuple(_renamed_term(term, chapter) for term in block.terms))
    if not isinstance(block, TableBlock | FigureBlock):
        return block
    cited = tuple(_renamed_link(link, chapter) for link in block.cited)
    named = replace(block, name=f"{chapter}--{block.name}", title=f"{block.title} ({study})", cited=cited)
    if isinstance(named, FigureBlock) and named.print_source:
        return replace(named, print_source=_address(chapter, named.print_source))
    return named


def _renamed_term(term: Term, chapter: str) -> Term:
    anchor = f"reference-{chapter}--{term.anchor.removeprefix('reference-')}" if term.anchor else ""
    return replace(term, anchor=anchor, links=tuple(_renamed_link(link, chapter) for link in term.links))


def _renamed_link(link: Link, chapter: str) -> Link:
    kind, name = link.target.split("-", 1)
    return replace(link, target=f"{kind}-{chapter}--{name}")


def _address(chapter: str, address: str) -> str:
    return f"fig:{chapter}--{address.removeprefix('fig:')}"


TERMS = (
    Term(
        name="mean rank",
        text="The mean over studies of a condition's rank within each study, 1 for the best mean; equal means share "
        "the mean of their ranks. Only conditions that every study has are ranked.",
    ),
    Term(
        name="Friedman's test",
        text="Asks whether the mean ranks differ by more than they would if each study ordered the conditions at "
        "random. For few studies its p comes from all permutations, else from the F approximation of Iman and "
        "Davenport (1980). Kendall's W is its effect size: 1 where all studies rank alike, about 0 where they have "
        "nothing in common. Friedman, M. (1937). The use of ranks to avoid the assumption of normality implicit in "
        "the analysis of variance. Journal of the American Statistical Association 32, 675-701.",
    ),
    Term(
        name="critical difference",
        text="Mean ranks that lie further apart than this differ at the level 0.05, all pairs considered (Nemenyi "
        "1963), as in Demšar, J. (2006). Statistical comparisons of classifiers over multiple data sets. Journal of "
        "Machine Learning Research 7, 1-30.",
    ),
)


def together_section(
    parts: Sequence[StudyBuild], agreement: Agreement, findings: Sequence[Finding], figure_set: FigureSet | None
) -> Section:
    """Return the comparison of all studies."""
    looked = [part.results.study.name for part in parts if confidence_of(part.results) > CONFIDENCE]
    intervals = several_intervals_words((part.results.study.name, part.results.resampled) for part in parts)
    brackets = f"{intervals.removesuffix('.')}{looks_words(looked)}."
    blocks: list[Block] = [
        Paragraph(
            text="Conditions are matched by their labels, and compared by the means of each study on its own data. A "
            "study counts once, however many repeats and images it has."
        ),
        *(finding_block(finding) for finding in findings),
        table_block(
            "studies",
            "The studies and their answers",
            f"Each study's best condition by its own main metric, and whether others may be as good. {brackets}",
            answers_table(parts),
        ),
    ]
    if not agreement.shared:
        return section("together", "The studies together", blocks)
    groups = study_groups(len(agreement.studies))
    blocks += [
        _shared_block(agreement, group, part_number, len(groups), brackets)
        for part_number, group in enumerate(groups, 1)
    ]
    terms = TermsBlock(title="Glossary of this comparison", terms=TERMS)
    if figure_set is None:
        return section("together", "The studies together", [*blocks, terms])
    planned = dict.fromkeys(condition.label for part in parts for condition in part.results.conditions)
    data = agreement_data(agreement, list(planned), looked)
    figure = figure_block("agreement", "agreement", "Shared conditions in every study", AgreementChart(), data)
    blocks += [figure_set.with_picture(figure), terms]
    return figure_set.finished([section("together", "The studies together", blocks)])[0]


def _shared_block(agreement: Agreement, group: Sequence[int], part_number: int, groups: int, brackets: str) -> Block:
    metric = metric_words(agreement.metric)
    which = f", part {part_number} of {groups}" if groups > 1 else ""
    ranked = "Ranks are within each study, among the conditions that all studies have; 1 is the best mean."
    caption = (
        f"Mean {metric} of the conditions that two studies or more have{which}, best mean rank first. {ranked} Mean "
        f"rank: over all studies. {brackets} Bold: best mean of the study among the ranked, which is no test."
    )
    name = "shared" if groups == 1 else f"shared-{part_number}"
    return table_block(name, f"Shared conditions by study{which}", caption, shared_table(agreement, group))


def differences_section(records: Sequence[Record]) -> list[Section]:
    """Return what differs between the studies beside their data, or nothing where nothing does."""
    groups = study_groups(len(records))
    blocks: list[Block] = []
    for part_number, group in enumerate(groups, 1):
        which = f", part {part_number} of {len(groups)}" if len(groups) > 1 else ""
        table = differences_table(records, group)
        if table.rows:
            blocks.append(
                table_block(
                    "study-differences" if len(groups) == 1 else f"study-differences-{part_number}",
                    f"What differs between the studies{which}",
                    f"Study values, base settings, versions and devices in which any two studies differ{which}. A "
                    "difference in means between studies may come from any of them.",
                    table,
                )
            )
    return [section("differences", "What differs between the studies", blocks)] if blocks else []


MOST_STUDIES = 4
"""Studies side by side in one table; more are shown in further tables."""

DIFFERING = ("study", "setting", "version")
"""The kinds of properties in which studies are held against each other; data differ by nature."""


def study_groups(count: int) -> list[range]:
    """Return the places of studies that stand in one table, groups of nearly equal size."""
    groups = -(-count // MOST_STUDIES)
    size = -(-count // groups) if groups else 0
    return [range(start, min(start + size, count)) for start in range(0, count, size)] if size else []


def answers_table(parts: Sequence[StudyBuild]) -> Table:
    """Return for each study its best condition by its own metric and how sure that is."""
    table = TableOf(parts)
    table.text("study", "Study", lambda part: part.results.study.name)
    table.text("data", "Data", lambda part: listing(names_used(part.results, "data")))
    table.number("conditions", "Conditions", lambda part: len(part.summary.ranking.rows))
    table.text("best", "Best mean", lambda part: part.summary.ranking.best.label if part.summary.ranking.best else NONE)
    table.add(Column(key="mean", heading="Mean", parts=ESTIMATE_PARTS), lambda part: _best_mean(part.summary.ranking))
    table.text("metric", "Metric", lambda part: named_metric(part.summary.ranking.metric))
    table.text("verdict", "Against the others", lambda part: _against_the_others(part.summary.ranking))
    return table.made()


def _best_mean(ranking: Ranking) -> Cell:
    return estimate_cell(ranking.metric, ranking.best.estimate if ranking.best else None)


def _against_the_others(ranking: Ranking) -> str:
    if ranking.best is None:
        return "no result"
    if len(ranking.rows) == 1:
        return "no other condition"
    if ranking.decided:
        return "all are clearly worse"
    return f"{len(ranking.rivals)} of {len(ranking.rows) - 1} may be as good"


def shared_table(agreement: Agreement, places: Sequence[int]) -> Table:
    """Return condition by study for the studies at `places`: mean, interval, n and rank, and the mean rank over all."""
    unit, parts = metric_unit(agreement.metric), (*ESTIMATE_PARTS, "rank")
    best = min((row.mean_rank for row in agreement.shared if row.mean_rank is not None), default=None)

    def is_first(row: SharedCondition) -> bool:
        return row.mean_rank is not None and row.mean_rank == best

    table = TableOf(agreement.shared)
    table.add(Column(key="condition", heading="Condition", align="left"), lambda r: label(r.label, strong=is_first(r)))
    mean_rank = Column(key="mean_rank", heading="Mean rank")
    table.add(mean_rank, lambda r: number_cell(number(r.mean_rank, 3), r.mean_rank, strong=is_first(r)))
    for place in places:
        study = agreement.studies[place]
        table.add(
            Column(key=f"mean_{study}", heading=study, unit=unit, parts=parts),
            partial(_standing, agreement.metric, place),
        )
    return table.made()


def _standing(metric: str, place: int, row: SharedCondition) -> Cell:
    if (standing := row.standings[place]) is None:
        return Cell(text=NONE, parts=(None, None, 0, None))
    estimate = standing.estimate
    parts = [bracket(metric, estimate.low, estimate.high), f"n {estimate.n}"]
    if standing.rank is not None:
        parts.append(f"rank {number(standing.rank, 3)}")
    return Cell(
        text=bare(metric, estimate.mean),
        detail=", ".join(part for part in parts if part),
        value=estimate.mean,
        parts=(estimate.low, estimate.high, estimate.n, standing.rank),
        strong=standing.rank == 1,
    )


def differences_table(records: Sequence[Record], places: Sequence[int]) -> Table:
    """Return what differs between any two of all studies, with the values of those at `places`."""
    values = [
        {(known_property.kind, known_property.name): known_property.value for known_property in record.properties}
        for record in records
    ]
    known = [pair for pair in dict.fromkeys(pair for of_study in values for pair in of_study) if pair[0] in DIFFERING]
    known.sort(key=lambda pair: DIFFERING.index(pair[0]))
    differing = [
        (kind, name)
        for kind, name in known
        if name != "name" and len({of_study.get((kind, name)) for of_study in values}) > 1
    ]
    table = TableOf(differing)
    table.text("kind", "Kind", lambda pair: pair[0])
    table.text("name", "What", lambda pair: pair[1])
    for column in places:
        study = records[column].study
        table.text(f"value_{study}", study, partial(_value, values[column]))
    return table.made()


def _value(values: Mapping[tuple[str, str], str], pair: tuple[str, str]) -> str:
    return values.get(pair) or NONE
