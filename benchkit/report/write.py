"""From results to files: HTML, PDF, JSON, and every table and figure's data beside them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchkit.atomic_write import write_atomically
from benchkit.capsule import make_capsule, shown_of
from benchkit.capsule.contents import rounded
from benchkit.errors import ReportError
from benchkit.registry import Registry
from benchkit.report.build import ReportBuild, StudyBuild, build_study, single_build
from benchkit.report.figures.chart_cache import ChartCache
from benchkit.report.figures.chart_worker import ChartWorker
from benchkit.report.files.capsule_block import CAPSULE, with_capsule
from benchkit.report.files.exports import OURS, Exports, Files
from benchkit.report.files.html import font_files, render_html, render_print
from benchkit.report.files.pdf import Attached, Limits, render_pdf
from benchkit.report.files.templates import check_templates
from benchkit.report.multi_study import multi_build
from benchkit.report.privacy import private_results
from benchkit.results import StudyResults


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a report left behind: its files, the problems to tell, and the error that cost the PDF, if one did."""

    paths: tuple[Path, ...]
    problems: tuple[str, ...]
    tracebacks: tuple[str, ...]
    error: ReportError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """How a report is asked for: its formats, its name (default: the study's), and an earlier state to compare with.

    HTML and PDF always come with tables and JSON, whose numbers they show. Files of the folder `templates` take the
    place of the shipped templates. Charts that an earlier report drew come from the user's cache, unless `cache` is
    off.
    """

    html: bool = True
    pdf: bool = True
    beside: Exports = field(default_factory=Exports)
    templates: Path | None = None
    name: str = ""
    against: Path | None = None
    cache: bool = True

    @property
    def pages(self) -> bool:
        """Return whether there will be pages, which carry a capsule."""
        return self.html or self.pdf

    @property
    def companions(self) -> Exports:
        """Return what will stand beside the pages."""
        return replace(self.beside, tables=True, json=True, capsule=True) if self.pages else self.beside


def write_report(
    results: StudyResults,
    out: Path,
    *,
    registry: Registry | None = None,
    html: bool = True,
    pdf: bool = True,
    beside: Exports = Exports(),  # noqa: B008 - frozen
    templates: Path | None = None,
    cache: bool = True,
) -> Written:
    """Write the report of a study under `out` as NAME.html and NAME.pdf, with what is asked for beside them in NAME/.

    Each file appears whole or not at all. Without the PDF's system libraries the rest is written and `error` says so.
    Raises `ReportError` before anything is written when own templates cannot be used.
    """
    options = ReportOptions(html=html, pdf=pdf, beside=beside, templates=templates, cache=cache)
    return write_reports([results], out, options, registry=registry)


def write_reports(
    studies: Sequence[StudyResults], out: Path, options: ReportOptions, *, registry: Registry | None = None
) -> Written:
    """Write one report of one study or several, as `write_report` does; several make A+B.html, A+B.pdf and A+B/."""
    if options.templates is not None:
        check_templates(options.templates)
    installed = registry or Registry.installed()
    with ChartWorker(ChartCache.of_user() if options.cache else None) as chart_worker:
        parts = [
            build_study(one, installed, chart_worker, for_print=options.pdf, against=options.against)
            for one in map(rounded, map(private_results, studies))
        ]
        if len(parts) == 1:
            build = single_build(parts[0], options.companions, options.name, for_screen=options.html)
        else:
            build = multi_build(parts, options.companions, options.name, for_print=options.pdf, for_screen=options.html)
    return write_build(_sealed(build, parts) if options.pages else build, out, options)


def _sealed(build: ReportBuild, parts: Sequence[StudyBuild]) -> ReportBuild:
    """Return the build with a capsule of its studies, which holds the digests of what the build shows."""
    capsule = make_capsule([part.results for part in parts], shown_of(build.report, build.companions))
    companions = {**build.companions, CAPSULE: capsule}
    return replace(
        build,
        report=with_capsule(build.report, capsule),
        screen=with_capsule(build.screen, capsule),
        companions=companions,
    )


def write_build(build: ReportBuild, out: Path, options: ReportOptions) -> Written:
    """Write a build's files in the formats asked for."""
    with ThreadPoolExecutor(max_workers=1) as meanwhile:  # a child process lays out the PDF
        printing = meanwhile.submit(print_pdf, build, options.templates) if options.pdf else None
        page = render_html(build.screen, options.templates) if options.html else ""
    out.mkdir(parents=True, exist_ok=True)
    paths = [_put(out / f"{build.stem}.html", page.encode())] if options.html else []
    error: ReportError | None = None
    if printing is not None:
        try:
            paths.append(_put(out / f"{build.stem}.pdf", printing.result()))
        except ReportError as failure:
            error = failure
    folder = out / build.stem
    for name, content in build.companions.items():
        _put(folder / name, content)
    _clear_stale(folder, build.companions)
    return Written(paths=(*paths, folder), problems=build.problems, tracebacks=build.tracebacks, error=error)


def print_pdf(build: ReportBuild, templates: Path | None = None) -> bytes:
    """Return the report as PDF with the results, the tables' and figures' data and the study attached."""
    described = {".json": "all numbers of the report", ".csv": "data of a table or figure", ".toml": "the study",
                 ".zip": "what `benchkit verify` checks the report against"}  # fmt: skip
    attachments = [
        Attached(name=name.replace("/", "-"), description=described[Path(name).suffix], content=content)
        for name, content in build.companions.items()
        if Path(name).suffix in described
    ]
    pictures = {**build.pictures, **font_files()}
    return render_pdf(render_print(build.report, templates), pictures, attachments, limits=Limits(dated=build.dated))


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
