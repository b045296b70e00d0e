"""From results to files: HTML, PDF, JSON, and every table and figure's data beside them."""

from __future__ import annotations

import base64
import hashlib
import tempfile
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import benchkit
from benchkit.analysis.changes import another_study, change_findings
from benchkit.analysis.summary import last_finished, record_of, summarize
from benchkit.analysis.wording import count
from benchkit.capsule import make_capsule, shown_of
from benchkit.capsule.making import CAPSULE, sealed
from benchkit.child import give_back_memory
from benchkit.errors import ReportError
from benchkit.registry import Registry
from benchkit.report.context.against import changes_section, changes_since, read_record, then_words
from benchkit.report.context.blocks import DownloadBlock, Fact, FigureBlock, ReportContext
from benchkit.report.context.compose import compose
from benchkit.report.context.numbers import in_numbers
from benchkit.report.files.exports import (
    OURS,
    Files,
    ReportBuild,
    StudyBuild,
    encoded,
    export_files,
    file_stem,
    study_content,
    study_files,
)
from benchkit.report.files.html import check_templates, font_files, render_html, render_print
from benchkit.report.files.pdf import Attached, PdfPrinter
from benchkit.report.page_text import private_results
from benchkit.results import StudyResults, rounded
from benchkit.storage import encode, mebibytes, no_folder, write_atomically
from benchkit.study.studyfile import read_study

if TYPE_CHECKING:
    from benchkit.report.figures.figure_set import FigureSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a report left behind: its files, the problems to tell, and the error that cost the PDF, if one did.

    `notes` tell what the reader should know, and are no failure.
    """

    paths: tuple[Path, ...]
    problems: tuple[str, ...]
    tracebacks: tuple[str, ...]
    error: ReportError | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """How a report is asked for: its formats, its name (default: the study's), and an earlier state to compare with.

    `formats` are of `benchkit.report.FORMATS`; HTML and PDF always come with tables and JSON, whose numbers they show.
    JSON alone has all tables and numbers, and no figure is loaded for it. Files of the folder `templates` take the
    place of the shipped templates. Charts that an earlier report drew come from the user's cache, unless `cache` is
    off. `kept` are the figures of the report that this one is made from, by their plugin.
    """

    formats: frozenset[str] = frozenset({"html", "pdf"})
    templates: Path | None = None
    name: str = ""
    against: Path | None = None
    cache: bool = True
    kept: Mapping[str, FigureBlock] = field(default_factory=dict)

    @property
    def pages(self) -> bool:
        """Return whether there will be pages, which carry a capsule."""
        return not self.formats.isdisjoint({"html", "pdf"})

    @property
    def exports(self) -> frozenset[str]:
        """Return what will stand beside the pages, of `tables`, `figures`, `json` and `capsule`."""
        return self.formats | {"tables", "json", "capsule"} if self.pages else self.formats


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


def write_report(
    results: StudyResults, out: Path, *formats: str, registry: Registry | None = None, cache: bool = True
) -> Written:
    """Write the report of a study under `out` as NAME.html and NAME.pdf, with tables and JSON beside them in NAME/.

    `formats` are of `benchkit.report.FORMATS`, HTML and PDF without any. Each file appears whole or not at all.
    Without the PDF's system libraries the rest is written and `error` says so.
    """
    options = ReportOptions(formats=frozenset(formats or ("html", "pdf")), cache=cache)
    return write_reports([results], out, options, registry=registry)


def write_reports(
    studies: Sequence[StudyResults], out: Path, options: ReportOptions, *, registry: Registry | None = None
) -> Written:
    """Write one report of one study or several, as `write_report` does; several make A+B.html, A+B.pdf and A+B/.

    Raises `ReportError` before anything is written when own templates cannot be used, or trials would count twice.
    """
    if options.templates is not None:
        check_templates(options.templates)
    check_folder(out)
    _refuse_twins(studies)
    shown = [rounded(private_results(results)) for results in studies]
    del studies  # what was read of a large study need not stay beside what is shown of it
    notes: list[str] = []
    page = document = b""
    error: ReportError | None = None
    asked = PdfPrinter() if "pdf" in options.formats else nullcontext()
    # What ends early ends the child first, for which the thread would wait.
    with ThreadPoolExecutor(max_workers=1) as meanwhile, asked as printer:
        build, parts, common = _built(shown, options, registry, printer)
        del shown
        if options.pages:
            build = _sealed(build, parts, options.templates)
        printing = None
        if printer:
            try:
                prepare_pdf(build, printer, options.templates)
                printing = meanwhile.submit(printer.finish, notes)
            except ReportError as failure:
                error = failure
        if "html" in options.formats:
            page = sealed(encoded(render_html(screen_report(build, parts), options.templates)))
        problems, tracebacks = _told(parts, common)
        notes += [f"--against: {words}" for one in parts if one.changes and (words := another_study(one.changes))]
        del parts, common
        if printing:
            give_back_memory()  # the child needs its most at the end
            try:
                document = printing.result()
            except ReportError as failure:
                error = failure
    out.mkdir(parents=True, exist_ok=True)
    pages = ((".html", page), (".pdf", document))
    paths = [_put(out / f"{build.stem}{suffix}", content) for suffix, content in pages if content]
    folder = out / build.stem
    for name, content in build.files.items():
        _put(folder / name, content)
    _clear_stale(folder, build.files)
    return Written(paths=(*paths, folder), problems=problems, tracebacks=tracebacks, error=error, notes=tuple(notes))


def _refuse_twins(studies: Sequence[StudyResults]) -> None:
    """Raise `ReportError` where a study is given twice with the same trials, which would agree with themselves."""
    seen: set[tuple[object, ...]] = set()
    for results in studies:
        trials = [trial for trial in results.trials if trial.finished]
        marks = {(results.study.name, trial.condition.key, trial.number, trial.started) for trial in trials}
        if twice := len(marks & seen):
            what = f"{results.study.name} is given twice: {count(twice, 'trial')} of one training in both"
            raise ReportError(what, hint="name one of the reports; --against OLD tells what changed since the other")
        seen |= marks


def check_folder(out: Path) -> None:
    """Raise `ReportError` where it is plain beforehand that no report can be written into a folder."""
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists() or folder.is_symlink())
    if wrong := no_folder(there):
        raise ReportError(f"{out}: {there} is {wrong}", hint="--out names another one")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        what = f"{out}: nothing can be written into {there}: {error.strerror}"
        raise ReportError(what, hint="--out names another folder") from error


def _built(
    studies: Sequence[StudyResults], options: ReportOptions, registry: Registry | None, printer: PdfPrinter | None
) -> tuple[ReportBuild, list[StudyBuild], FigureSet | None]:
    """Return the report that is ready to be written, its studies, and the figures of what several have in common.

    What prints it is begun when charts are drawn. JSON alone needs no figures, nor what draws them.
    """
    if options.formats == {"json"}:
        parts = [build_study(results, None, options.against) for results in studies]
        return _joined(parts, None, options), parts, None
    from benchkit.report.figures.chart_worker import ChartCache, ChartWorker
    from benchkit.report.figures.figure_set import FigureSet

    installed, files = registry or Registry.installed(), "figures" in options.formats
    cache = ChartCache.of_user() if options.cache else None
    with ChartWorker(cache) if printer or files else nullcontext() as charts:
        if charts:
            charts.begin_child()

        def meanwhile() -> None:
            give_back_memory()  # the child that draws needs its most for the last charts
            if printer:
                with suppress(OSError):  # told when it is to print
                    printer.begin()

        figures = partial(FigureSet, registry=installed, files=files, chart_worker=charts)
        parts = [
            build_study(results, figures(results=results, kept=options.kept, meanwhile=meanwhile), options.against)
            for results in studies
        ]
        common = figures(results=studies[0]) if len(studies) > 1 else None
        return _joined(parts, common, options), parts, common


def build_study(results: StudyResults, figure_set: FigureSet | None, against: Path | None = None) -> StudyBuild:
    """Return the whole content of a study, with the figures of its set, or without one what it says in numbers.

    With `against` it is held against its earlier state. Raises `ReportError` or `LedgerError` when that cannot be read
    or has nothing to compare.
    """
    summary = summarize(results)
    changes = section = None
    if against is not None:
        old, new = read_record(against, results.study.name), record_of(results)
        changes = changes_since(old, new, against)
        section = changes_section(changes, old.source, new.source)
        main, *others = change_findings(changes)
        grave = [finding for finding in others if finding.tone == "warning"]
        summary = replace(summary, findings=(*summary.findings, main, *grave))
    if figure_set is None:
        report = in_numbers(results, summary, section)
    else:
        report = compose(results, summary, figure_set, section)
    if changes is not None:
        report = replace(report, facts=(*report.facts, Fact(name="Compared with", value=then_words(changes))))
    return StudyBuild(results=results, summary=summary, figure_set=figure_set, report=report, changes=changes)


def _joined(parts: Sequence[StudyBuild], common: FigureSet | None, options: ReportOptions) -> ReportBuild:
    if len(parts) == 1:
        return single_build(parts[0], options.exports, options.name)
    from benchkit.report.several import multi_build

    return multi_build(parts, common, options.exports, options.name)


def single_build(part: StudyBuild, exports: Collection[str], stem: str = "") -> ReportBuild:
    """Return the report of one study; `stem` names its files, by default the study's name."""
    drawn = part.figure_set.pictures if part.figure_set else {}
    return ReportBuild(
        stem=file_stem(stem or part.results.study.name),
        report=part.report,
        files=export_files(part.report, study_files(part), study_content(part), exports, drawn),
        pictures=drawn,
        dated=last_finished(part.results),
    )


def screen_report(build: ReportBuild, parts: Sequence[StudyBuild]) -> ReportContext:
    """Return the content of a report of some studies for its HTML page, with what a reader can choose there."""
    from benchkit.report.context.views import with_choices

    if not build.report.chapters:
        return with_choices(replace(parts[0], report=build.report))
    from benchkit.report.several import with_chapters

    chapters = [(of.name, with_choices(part)) for of, part in zip(build.report.chapters, parts, strict=True)]
    return with_chapters(replace(build.report, chapters=()), chapters)


def _told(parts: Sequence[StudyBuild], common: FigureSet | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the lines that tell of broken figures, each with its study where there are several, and the tracebacks."""
    sets = [(f"{part.results.study.name}: " if common else "", part.figure_set) for part in parts]
    made = [(study, one) for study, one in (("", common), *sets) if one]
    problems = tuple(f"{study}{line}" for study, one in made for line in one.problems)
    return problems, tuple(trace for _, one in made for trace in one.tracebacks)


def _sealed(build: ReportBuild, parts: Sequence[StudyBuild], templates: Path | None) -> ReportBuild:
    """Return the build with a capsule of its studies, which holds the digests of what the build shows."""
    capsule = make_capsule([part.results for part in parts], shown_of(build.report, build.files, templates))
    return replace(build, report=_with_capsule(build.report, capsule), files={**build.files, CAPSULE: capsule})


def _with_capsule(report: ReportContext, capsule: bytes) -> ReportContext:
    """Return the report with its capsule at the end of the section that says how to reproduce it.

    A common report of several studies has no such section: there it ends the last section before the chapters.
    """
    block = _capsule_block(capsule)
    names = [part.name for part in report.sections]
    last = "reproduce" if "reproduce" in names else names[-1]
    return replace(
        report,
        sections=tuple(
            replace(part, blocks=(*part.blocks, block)) if part.name == last else part for part in report.sections
        ),
    )


def _capsule_block(capsule: bytes) -> DownloadBlock:
    """Return the capsule as a block of a report."""
    size = len(capsule)
    return DownloadBlock(
        title="Capsule",
        text="What this report rests on, in one archive, the same in HTML and PDF: the resolved study, the commands, "
        "versions, devices, plugins, seeds, every trial's results, and digests. By benchkit verify the report "
        "and the files beside it are checked against it; with --retrain N, N of the trials are trained again. Of "
        "predictions it holds which test images were named rightly: losses and calibration errors cannot be computed "
        "anew from it.",
        file=CAPSULE,
        media_type="application/zip",
        content=base64.b64encode(capsule).decode(),
        size=mebibytes(size) if size >= 2**20 else f"{size / 2**10:.0f} KiB",
        digest=hashlib.sha256(capsule).hexdigest(),
    )


def prepare_pdf(build: ReportBuild, printer: PdfPrinter, templates: Path | None = None) -> None:
    """Let the report be printed with the results, the tables' and figures' data and the study attached."""
    described = {".json": "all numbers of the report", ".csv": "data of a table or figure", ".toml": "the study",
                 ".bib": "the references",
                 ".zip": "what `benchkit verify` checks the report against"}  # fmt: skip
    attachments = [
        Attached(name=name.replace("/", "-"), description=described[Path(name).suffix], content=content)
        for name, content in build.files.items()
        if Path(name).suffix in described
    ]
    printed = {address: build.pictures[address] for figure in build.report.figures if (address := figure.print_source)}
    pictures = {**printed, **font_files()}
    printer.prepare(render_print(build.report, templates), pictures, attachments, dated=build.dated)


def _clear_stale(folder: Path, kept: Files) -> None:
    """Remove the numbered files of an earlier report that this one does not have, of the kinds that it has."""
    kinds = {(Path(name).parent.name, Path(name).suffix) for name in kept}
    for path in sorted(folder.glob("*/*")):
        name = path.relative_to(folder).as_posix()
        if OURS.fullmatch(name) and name not in kept and (path.parent.name, path.suffix) in kinds:
            path.unlink()


def _put(path: Path, content: bytes) -> Path:
    write_atomically(path, content)
    return path
