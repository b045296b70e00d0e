"""A report that is ready to be written: its content, its files and its pictures, in the words of the study file now."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from pathlib import Path

import benchkit
from benchkit.analysis.changes import Changes, change_findings
from benchkit.analysis.summary import Summary, summarize
from benchkit.report.context.blocks import DownloadBlock, Fact, ReportContext
from benchkit.report.context.change_sections import changes_section, then_words
from benchkit.report.context.compose import changes_since, compose, read_record, record_of
from benchkit.report.context.provenance_sections import resolved
from benchkit.report.context.views import with_choices
from benchkit.report.figures.figure_set import FigureSet
from benchkit.report.files.exports import Files, export_files, file_stem, study_content
from benchkit.results import StudyResults
from benchkit.storage import encode
from benchkit.study.studyfile import read_study

TRAINED = ("settings", "factors", "search", "seed")
"""What of a study says which trials it has."""


QUOTED = ("origin", "published")
"""What a study quotes of others: it is held against the trained settings, whatever the file's own are."""


PRESENTED = ("title", "question", "description", *QUOTED, "report", "source", "path")
"""What of a study says only how its results are shown."""


def presented(results: StudyResults, file: Path) -> tuple[StudyResults, str]:
    """Return the results as the study file shows them now, and a note where it describes other trials.

    Of a file that describes other trials only what it quotes of its source is taken: an older network then shows as a
    departure. Overrides that the sweep was given hold for the file too. Raises `StudyError` for a file that cannot be
    read.
    """
    study = results.study
    now = read_study(file, overrides=study.overrides, smoke=study.smoke)
    differing = [part for part in TRAINED if encode(getattr(now, part)) != encode(getattr(study, part))]
    if differing:
        note = (
            f"{file}: its {', '.join(differing)} differ from those that were trained; the report shows the study as "
            "the ledger holds it (benchkit sweep trains the file as it is now)"
        )
        return replace(results, study=replace(study, **{part: getattr(now, part) for part in QUOTED})), note
    return replace(results, study=replace(study, **{part: getattr(now, part) for part in PRESENTED})), ""


def file_now(results: StudyResults, given: Path) -> Path | None:
    """Return the file that presents a study: the one that was given, or the built-in one that it was trained from."""
    if given.suffix == ".toml":
        return given if given.is_file() else None
    recorded = results.study.path
    built_in = Path(benchkit.__file__).parent / "studies" / f"{results.study.name}.toml"
    same = recorded is None or recorded.parts[-3:] == built_in.parts[-3:]  # a capsule keeps no path
    return built_in if same and built_in.is_file() else None


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
        files=export_files(part.report, study_files(part), content, exports, part.figure_set.problems),
        pictures=part.figure_set.pictures,
        problems=tuple(part.figure_set.problems),
        tracebacks=tuple(part.figure_set.tracebacks),
        dated=last_finished(part.results),
    )


def screen_of(part: StudyBuild) -> ReportContext:
    """Return a study's content for its HTML page, with what a reader can choose there."""
    return with_choices(part.report, part.results, part.summary, part.figure_set)


def study_files(part: StudyBuild) -> Files:
    """Return the files that a study's report offers: the study as written, its settings, and its references."""
    offered = {b.file: base64.b64decode(b.content) for b in part.report.blocks() if isinstance(b, DownloadBlock)}
    source, settings = (text.encode() for text in (part.results.study.source, resolved(part.results)))
    return {"study.toml": source, "settings.toml": settings, **offered}


def last_finished(results: StudyResults) -> float:
    """Return when the last trial finished, in seconds since 1970, 0 before any."""
    return max((trial.finished for trial in results.trials), default=0.0)
