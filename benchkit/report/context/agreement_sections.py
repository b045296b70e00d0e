"""The sections of a common report that speak of all studies: what they find together, and what differs in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchkit.analysis.agreement import Agreement
from benchkit.analysis.findings import Finding
from benchkit.analysis.record import Record
from benchkit.analysis.wording import metric_words
from benchkit.report.build import StudyBuild
from benchkit.report.context.blocks import Block, Paragraph, Section, Term, TermsBlock
from benchkit.report.context.sections import INTERVALS, finding_block, section, table_block
from benchkit.report.figures.agreement_chart import AgreementChart, agreement_data
from benchkit.report.figures.figure_set import figure_block
from benchkit.report.tables.agreement_tables import answers_table, differences_table, shared_table, study_groups

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
    parts: Sequence[StudyBuild], agreement: Agreement, findings: Sequence[Finding]
) -> tuple[Section, dict[str, dict[str, Any]]]:
    """Return the comparison of all studies, and the specs of its charts by their address for print."""
    studies = [
        (
            part.results.study.name,
            str(part.results.study.settings.get("data", {}).get("name", "")),
            part.summary.ranking,
        )
        for part in parts
    ]
    blocks: list[Block] = [
        Paragraph(
            text="Conditions are matched by their labels, and compared by the means of each study on its own data. A "
            "study counts once, however many repeats and images it has."
        ),
        *(finding_block(one) for one in findings),
        table_block(
            "studies",
            "The studies and their answers",
            f"Each study's best condition by its own main metric, and whether it is told apart from the others. "
            f"{INTERVALS}",
            answers_table(studies),
        ),
    ]
    if not agreement.shared:
        return section("together", "The studies together", blocks), {}
    groups = study_groups(len(agreement.studies))
    blocks += [_shared_block(agreement, group, place, len(groups)) for place, group in enumerate(groups, 1)]
    planned = dict.fromkeys(condition.label for part in parts for condition in part.results.conditions)
    data = agreement_data(agreement, list(planned))
    figure = figure_block("agreement", "agreement", "Shared conditions in every study", AgreementChart(), data)
    figure = replace(figure, print_source="fig:agreement.svg")
    blocks += [figure, TermsBlock(title="Glossary of this comparison", terms=TERMS)]
    return section("together", "The studies together", blocks), {figure.print_source: json.loads(figure.spec)}


def _shared_block(agreement: Agreement, group: Sequence[int], place: int, groups: int) -> Block:
    metric = metric_words(agreement.metric)
    which = f", part {place} of {groups}" if groups > 1 else ""
    ranked = "Ranks are within each study, among the conditions that all studies have; 1 is the best mean."
    caption = (
        f"Mean {metric} of the conditions that two studies or more have{which}, best mean rank first. {ranked} Mean "
        f"rank: over all studies. {INTERVALS} Bold: best mean of the study among the ranked, which is no test."
    )
    name = "shared" if groups == 1 else f"shared-{place}"
    return table_block(name, f"Shared conditions by study{which}", caption, shared_table(agreement, group))


def differences_section(records: Sequence[Record]) -> list[Section]:
    """Return what differs between the studies beside their data, or nothing where nothing does."""
    groups = study_groups(len(records))
    blocks: list[Block] = []
    for place, group in enumerate(groups, 1):
        which = f", part {place} of {len(groups)}" if len(groups) > 1 else ""
        table = differences_table(records, group)
        if table.rows:
            blocks.append(
                table_block(
                    "study-differences" if len(groups) == 1 else f"study-differences-{place}",
                    f"What differs between the studies{which}",
                    f"Study values, base settings, versions and devices in which any two studies differ{which}. A "
                    "difference in means between studies may come from any of them.",
                    table,
                )
            )
    return [section("differences", "What differs between the studies", blocks)] if blocks else []
