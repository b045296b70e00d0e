"""A report that is ready to be written: its content, its companion files and its pictures, on no disk yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from benchkit.analysis.change_rules import change_findings
from benchkit.analysis.changes import Changes
from benchkit.analysis.summary import Summary, summarize
from benchkit.registry import Registry
from benchkit.report.against import changes_since, read_record
from benchkit.report.change_tables import changes_section, then_words
from benchkit.report.companions import Beside, Files, companion_files, file_stem
from benchkit.report.compose import compose
from benchkit.report.context import Fact, ReportContext
from benchkit.report.export import study_content
from benchkit.report.figures import Gallery
from benchkit.report.origin_sections import resolved
from benchkit.report.plotter import Plotter
from benchkit.report.record import record_of
from benchkit.report.views import with_choices
from benchkit.results import StudyResults


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One study on its way into a report: results, summary, figures, content, and what has changed, if asked."""

    results: StudyResults
    summary: Summary
    gallery: Gallery
    report: ReportContext
    changes: Changes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What will be written: the content, files beside it by relative path, pictures for print by `fig:` address.

    `screen` is the content with what a reader of the HTML page can choose.
    `dated` is when the last trial finished, in seconds since 1970; `problems` and `tracebacks` tell of broken figures.
    """

    stem: str
    report: ReportContext
    screen: ReportContext
    companions: Files
    pictures: dict[str, bytes]
    problems: tuple[str, ...]
    tracebacks: tuple[str, ...]
    dated: float


def make_part(
    results: StudyResults,
    registry: Registry,
    plotter: Plotter | None = None,
    *,
    for_print: bool,
    against: Path | None = None,
) -> Part:
    """Return a study's whole content; with `against`, held against its earlier state there.

    Raises `ReportError` or `LedgerError` when `against` cannot be read or has nothing to compare.
    """
    summary = summarize(results)
    gallery = Gallery(results=results, registry=registry, for_print=for_print, plotter=plotter)
    changes = section = None
    if against is not None:
        old, new = read_record(against, results.study.name), record_of(results)
        changes = changes_since(old, new, against)
        section = changes_section(changes, old.source, new.source)
        main, *others = change_findings(changes)
        grave = [finding for finding in others if finding.tone == "warning"]
        summary = replace(summary, findings=(*summary.findings, main, *grave))
    report = compose(results, summary, gallery, section)
    if changes is not None:
        report = replace(report, facts=(*report.facts, Fact(name="Compared with", value=then_words(changes))))
    return Part(results=results, summary=summary, gallery=gallery, report=report, changes=changes)


def study_draft(part: Part, beside: Beside, stem: str = "", *, for_screen: bool = True) -> Draft:
    """Return the report of one study; `stem` names its files, by default the study's name."""
    study = part.results.study
    content = study_content(part.report, part.summary, part.results, part.changes)
    return Draft(
        stem=file_stem(stem or study.name),
        report=part.report,
        screen=screen_of(part) if for_screen else part.report,
        companions=companion_files(part.report, study_files(part.results), content, beside, part.gallery.problems),
        pictures=part.gallery.pictures,
        problems=tuple(part.gallery.problems),
        tracebacks=tuple(part.gallery.tracebacks),
        dated=last_finished(part.results),
    )


def screen_of(part: Part) -> ReportContext:
    """Return a study's content for its HTML page, with what a reader can choose there."""
    return with_choices(part.report, part.results, part.summary, part.gallery)


def study_files(results: StudyResults) -> Files:
    """Return the study file as written, and all settings of every condition."""
    return {"study.toml": results.study.source.encode(), "settings.toml": resolved(results).encode()}


def last_finished(results: StudyResults) -> float:
    """Return when the last trial finished, in seconds since 1970, 0 before any."""
    return max((trial.finished for trial in results.trials), default=0.0)
