"""From results to files: HTML, PDF, and the folder beside them."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from benchkit.analysis.summary import summarize
from benchkit.capsule import make_capsule, shown_of
from benchkit.errors import ReportError
from benchkit.registry import Registry
from benchkit.report.capsule_block import CAPSULE, with_capsule
from benchkit.report.companions import OURS, Beside, Files, companion_files, file_stem
from benchkit.report.compose import compose
from benchkit.report.context import ReportContext
from benchkit.report.figures import Gallery
from benchkit.report.html import font_files, render_html, render_print
from benchkit.report.pdf import Attached, Limits, render_pdf
from benchkit.report.privacy import private_results
from benchkit.report.templates import check_templates
from benchkit.report.views import with_choices
from benchkit.results import StudyResults


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a report left behind: its files, the problems to tell, and the error that cost the PDF, if one did."""

    paths: tuple[Path, ...]
    problems: tuple[str, ...]
    tracebacks: tuple[str, ...]
    error: ReportError | None


def write_report(
    results: StudyResults,
    out: Path,
    *,
    registry: Registry | None = None,
    html: bool = True,
    pdf: bool = True,
    beside: Beside = Beside(),  # noqa: B008 - frozen
    templates: Path | None = None,
) -> Written:
    """Write the report of a study under `out` as NAME.html and NAME.pdf, with what is asked for beside them in NAME/.

    HTML and PDF always come with tables and JSON, whose numbers they show. Files of the folder `templates` take the
    place of the shipped templates. Each file appears whole or not at all. Without the PDF's system libraries the rest
    is written and `error` says so. Raises `ReportError` before anything is written when own templates cannot be used.
    """
    if templates is not None:
        check_templates(templates)
    if html or pdf:
        beside = replace(beside, tables=True, json=True, capsule=True)
    results = private_results(results)
    summary = summarize(results)
    gallery = Gallery(results=results, registry=registry or Registry.installed(), for_print=pdf)
    report = compose(results, summary, gallery)
    stem = file_stem(results.study.name)
    companions = companion_files(report, summary, results, beside, gallery.problems)
    if html or pdf:
        companions[CAPSULE] = make_capsule([results], shown_of(report, companions))
        report = with_capsule(report, companions[CAPSULE])
    page = render_html(with_choices(report, results, summary, gallery), templates) if html else ""
    out.mkdir(parents=True, exist_ok=True)
    paths = [_put(out / f"{stem}.html", page.encode())] if html else []
    error: ReportError | None = None
    if pdf:
        try:
            paths.append(_put(out / f"{stem}.pdf", print_pdf(report, gallery, companions, templates)))
        except ReportError as failure:
            error = failure
    for name, content in companions.items():
        _put(out / stem / name, content)
    _clear_stale(out / stem, companions)
    return Written(
        paths=(*paths, out / stem),
        problems=tuple(gallery.problems),
        tracebacks=tuple(gallery.tracebacks),
        error=error,
    )


def print_pdf(report: ReportContext, gallery: Gallery, companions: Files, templates: Path | None = None) -> bytes:
    """Return the report as PDF with the results, the tables' and figures' data and the study attached."""
    described = {".json": "all numbers of the report", ".csv": "data of a table or figure", ".toml": "the study",
                 ".zip": "what `benchkit verify` checks the report against"}  # fmt: skip
    attachments = [
        Attached(name=name.replace("/", "-"), description=described[Path(name).suffix], content=content)
        for name, content in companions.items()
        if Path(name).suffix in described
    ]
    dated = max((trial.finished for trial in gallery.results.trials), default=0.0)
    pictures = {**gallery.pictures, **font_files()}
    return render_pdf(render_print(report, templates), pictures, attachments, limits=Limits(dated=dated))


def _clear_stale(folder: Path, kept: Files) -> None:
    """Remove the numbered files of an earlier report that this one does not have, of the kinds that it has."""
    kinds = {(Path(name).parent.name, Path(name).suffix) for name in kept}
    for path in sorted(folder.glob("*/*")):
        name = path.relative_to(folder).as_posix()
        if OURS.fullmatch(name) and name not in kept and (path.parent.name, path.suffix) in kinds:
            path.unlink()


def _put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
