"""A report that is ready to be written: its content, its files and its pictures, on no disk yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from benchkit.analysis.changes import Changes, change_findings
from benchkit.analysis.summary import Summary, summarize
from benchkit.report.context.blocks import Fact, ReportContext
from benchkit.report.context.change_sections import changes_section, then_words
from benchkit.report.context.compose import compose
from benchkit.report.context.provenance_sections import resolved
from benchkit.report.context.record import changes_since, read_record, record_of
from benchkit.report.context.views import with_choices
from benchkit.report.figures.figure_set import FigureSet
from benchkit.report.files.exports import Files, export_files, file_stem, study_content
from benchkit.results import StudyResults


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
    """What will be written: the content, files beside it by relative path, pictures for print by `fig:` address.

    `screen` is the content with what a reader of the HTML page can choose.
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


def single_build(part: StudyBuild, exports: frozenset[str], stem: str = "", *, for_screen: bool = True) -> ReportBuild:
    """Return the report of one study; `stem` names its files, by default the study's name."""
    content = study_content(part.report, part.summary, part.results, part.changes)
    return ReportBuild(
        stem=file_stem(stem or part.results.study.name),
        report=part.report,
        screen=screen_of(part) if for_screen else part.report,
        files=export_files(part.report, study_files(part.results), content, exports, part.figure_set.problems),
        pictures=part.figure_set.pictures,
        problems=tuple(part.figure_set.problems),
        tracebacks=tuple(part.figure_set.tracebacks),
        dated=last_finished(part.results),
    )


def screen_of(part: StudyBuild) -> ReportContext:
    """Return a study's content for its HTML page, with what a reader can choose there."""
    return with_choices(part.report, part.results, part.summary, part.figure_set)


def study_files(results: StudyResults) -> Files:
    """Return the study file as written, and all settings of every condition."""
    return {"study.toml": results.study.source.encode(), "settings.toml": resolved(results).encode()}


def last_finished(results: StudyResults) -> float:
    """Return when the last trial finished, in seconds since 1970, 0 before any."""
    return max((trial.finished for trial in results.trials), default=0.0)
