"""Sections that compare: a study with its earlier state, and several studies with each other."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from benchkit.analysis.agreement import Agreement, ConditionInStudy, SharedCondition
from benchkit.analysis.changes import Change, Changes, change_findings, pairing_words
from benchkit.analysis.estimates import CONFIDENCE, confidence_of
from benchkit.analysis.ranking import Ranking
from benchkit.analysis.summary import Record
from benchkit.analysis.wording import (
    NONE,
    Finding,
    bare,
    bracket,
    difference,
    difference_unit,
    listing,
    metric_unit,
    metric_words,
    names,
    number,
    p_value,
    within_range,
)
from benchkit.report.context.blocks import Block, CodeBlock, Paragraph, Section, Term, TermsBlock
from benchkit.report.context.compose import finding_block
from benchkit.report.context.sections import INTERVALS, names_used, section, table_block
from benchkit.report.figures.agreement_chart import AgreementChart, agreement_data, looks_words
from benchkit.report.figures.figure_set import FigureSet, figure_block
from benchkit.report.tables.result_tables import named_metric
from benchkit.report.tables.table import ESTIMATE_PARTS, Cell, Column, Table, TableOf, estimate_cell, label, number_cell

if TYPE_CHECKING:
    from benchkit.report.build import StudyBuild


MOST_LINES = 300
"""A page shows at most this many lines of how the study file differs."""


def changes_section(changes: Changes, then: str, now: str) -> Section:
    """Return what has changed; `then` and `now` are the texts of the two study files."""
    findings = [finding_block(finding) for finding in change_findings(changes)]
    lead = Paragraph(text=f"Then is {then_words(changes)}; now is this report's study. Differences are now minus then.")
    blocks: list[Block] = [lead, *findings, *_tables(changes)]
    if changes.gone or changes.added:
        parts = [f"{word}: {names(labels, most=60)}" for word, labels in
                 (("Gone", changes.gone), ("New", changes.added)) if labels]  # fmt: skip
        blocks.append(Paragraph(text=f"{'. '.join(parts)}."))
    if changes.properties:
        blocks.append(
            table_block(
                "changed-properties",
                "What else differs",
                "Everything that the two reports know of how the trials were made and that differs: study, settings, "
                "versions, device, plugins and data.",
                properties_table(changes),
            )
        )
    else:
        blocks.append(Paragraph(text="Study file, settings, versions, device, plugins and data are the same."))
    lines = file_difference(then, now)
    if lines:
        blocks.append(CodeBlock(title="Study file, then (\N{MINUS SIGN}) and now (+)", text="\n".join(lines)))
    return section("changes", "Changes since then", blocks)


def then_words(changes: Changes) -> str:
    """Return what then was: the study's name and the day of its last trial."""
    return f"{changes.old_study}{f' of {changes.old_dated}' if changes.old_dated else ''}"


def _tables(changes: Changes) -> list[Block]:
    metric = metric_words(changes.metric)
    same = len(changes.same_key)
    keys = f" In {same} of {same_of(changes)} conditions all settings are the same." if changes.main else ""
    how = (
        f"{INTERVALS} p is corrected within this table (Holm). Detectable: the smallest true change that these repeats "
        "find with 80 % power after correction. Under the verdict: the test and its repeats."
    )
    parts = (
        (
            "changed-main",
            f"{metric} then and now",
            f"Every condition's {metric} then and now.{keys} {pairing_words(changes)}",
            changes.main,
        ),
        ("changed-scores", "Other scores then and now", "The other scores.", changes.scores),
        ("changed-costs", "Costs then and now", "Training time, speed and memory.", changes.costs),
    )
    return [
        table_block(name, f"{title[0].upper()}{title[1:]}", f"{caption} {how}", changes_table(rows))
        for name, title, caption, rows in parts
        if rows
    ]


def same_of(changes: Changes) -> int:
    """Return how many conditions then and now have in common."""
    return len({row.label for row in (*changes.main, *changes.scores, *changes.costs)} | set(changes.same_key))


def changes_table(rows: Sequence[Change]) -> Table:
    """Return then, now, difference and test of every row; the metric has a column where there are several."""
    several = len({row.metric for row in rows}) > 1
    unit, gap = ("", "") if several else (metric_unit(rows[0].metric), difference_unit(rows[0].metric))
    columns = (
        Column(key="condition", heading="Condition", align="left"),
        *([Column(key="metric", heading="Metric", align="left")] if several else []),
        Column(key="then", heading="Then", unit=unit, parts=ESTIMATE_PARTS),
        Column(key="now", heading="Now", unit=unit, parts=ESTIMATE_PARTS),
        Column(key="difference", heading="Now minus then", unit=gap, parts=("low", "high")),
        Column(key="p_holm", heading="p (Holm)", parts=("uncorrected",)),
        Column(key="detectable", heading="Detectable", unit=gap),
        Column(key="verdict", heading="Verdict", align="left", parts=("test", "pairs")),
    )
    return Table(columns=columns, rows=tuple(_row(row, several=several) for row in rows))


def _row(row: Change, *, several: bool) -> tuple[Cell, ...]:
    metric = row.metric
    units = " / ".join(dict.fromkeys(unit for unit in (metric_unit(metric), difference_unit(metric)) if unit))
    tests = {
        "paired": f"paired, {row.pairs}",
        "welch": f"Welch, {row.old.n} and {row.new.n}",
        "none": f"no test, {row.old.n} and {row.new.n}",
    }
    return (
        label(row.label),
        *([Cell(text=metric_words(metric), detail=units, value=metric)] if several else []),
        estimate_cell(metric, row.old),
        estimate_cell(metric, row.new),
        Cell(
            text=difference(metric, row.difference),
            detail=bracket(metric, row.low, row.high),
            value=row.difference,
            parts=(row.low, row.high),
            strong=row.told_apart,
        ),
        Cell(
            text=p_value(row.p_adjusted), value=row.p_adjusted, parts=(row.p,), strong=row.told_apart,
        ),
        number_cell(within_range(metric, row.detectable), row.detectable),
        Cell(text=row.verdict, detail=tests[row.method], value=row.verdict, parts=(row.method, row.pairs),
             strong=row.told_apart),
    )  # fmt: skip


def properties_table(changes: Changes) -> Table:
    """Return everything that differs in how the trials were made."""
    table = TableOf(changes.properties)
    table.text("kind", "Kind", lambda changed: changed.kind)
    table.text("name", "What", lambda changed: changed.name)
    table.text("then", "Then", lambda changed: NONE if changed.old is None else changed.old)
    table.text("now", "Now", lambda changed: NONE if changed.new is None else changed.new)
    return table.made()


def file_difference(then: str, now: str) -> list[str]:
    """Return the lines in which two study files differ, with three lines around each, at most `MOST_LINES`."""
    lines = list(difflib.unified_diff(then.splitlines(), now.splitlines(), "then", "now", lineterm=""))
    if len(lines) > MOST_LINES:
        return [*lines[:MOST_LINES], f"... {len(lines) - MOST_LINES} more lines"]
    return lines


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
    parts: Sequence[StudyBuild], agreement: Agreement, findings: Sequence[Finding], figure_set: FigureSet
) -> Section:
    """Return the comparison of all studies."""
    studies = [
        (
            part.results.study.name,
            listing(names_used(part.results, "data")),
            part.summary.ranking,
        )
        for part in parts
    ]
    looked = [part.results.study.name for part in parts if confidence_of(part.results) > CONFIDENCE]
    brackets = f"{INTERVALS.removesuffix('.')}{looks_words(looked)}."
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
            answers_table(studies),
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
    if figure_set.registry is None:
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


def answers_table(studies: Sequence[tuple[str, str, Ranking]]) -> Table:
    """Return for each study (name, data, ranking by its own metric) its best condition and how sure that is."""
    table = TableOf(studies)
    table.text("study", "Study", lambda study: study[0])
    table.text("data", "Data", lambda study: study[1])
    table.number("conditions", "Conditions", lambda study: len(study[2].rows))
    table.text("best", "Best mean", lambda study: study[2].best.label if study[2].best else NONE)
    table.add(Column(key="mean", heading="Mean", parts=ESTIMATE_PARTS), lambda study: _best_mean(study[2]))
    table.text("metric", "Metric", lambda study: named_metric(study[2].metric))
    table.text("verdict", "Against the others", lambda study: _against_the_others(study[2]))
    return table.made()


def _best_mean(ranking: Ranking) -> Cell:
    return estimate_cell(ranking.metric, ranking.best.estimate if ranking.best else None)


def _against_the_others(ranking: Ranking) -> str:
    if ranking.best is None:
        return "no result yet"
    if len(ranking.rows) == 1:
        return "no other condition"
    if ranking.decided:
        return "all are clearly worse"
    return f"{len(ranking.rivals)} of {len(ranking.rows) - 1} may be as good"


def shared_table(agreement: Agreement, places: Sequence[int]) -> Table:
    """Return condition by study for the studies at `places`: mean, interval, n and rank, and the mean rank over all."""
    unit = metric_unit(agreement.metric)
    columns = (
        Column(key="condition", heading="Condition", align="left"),
        Column(key="mean_rank", heading="Mean rank"),
        *(
            Column(
                key=f"mean_{agreement.studies[column]}",
                heading=agreement.studies[column],
                unit=unit,
                parts=(*ESTIMATE_PARTS, "rank"),
            )
            for column in places
        ),
    )
    best = min((row.mean_rank for row in agreement.shared if row.mean_rank is not None), default=None)
    return Table(columns=columns, rows=tuple(_shared(agreement, row, places, best) for row in agreement.shared))


def _shared(agreement: Agreement, row: SharedCondition, places: Sequence[int], best: float | None) -> tuple[Cell, ...]:
    rank, first = row.mean_rank, row.mean_rank is not None and row.mean_rank == best
    return (
        label(row.label, strong=first),
        number_cell(number(rank, 3), rank, strong=first),
        *(_standing(agreement.metric, row.standings[column]) for column in places),
    )


def _standing(metric: str, standing: ConditionInStudy | None) -> Cell:
    if standing is None:
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
