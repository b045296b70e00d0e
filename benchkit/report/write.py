"""From results to files: HTML, PDF, JSON, and every table and figure's data beside them."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchkit.analysis.summary import Summary, summarize
from benchkit.errors import ReportError
from benchkit.registry import Registry
from benchkit.report.compose import compose
from benchkit.report.context import ReportContext
from benchkit.report.export import to_json
from benchkit.report.figures import Gallery
from benchkit.report.html import font_files, render_html, render_print
from benchkit.report.origin_sections import resolved
from benchkit.report.pdf import Attached, Limits, render_pdf
from benchkit.report.picture_cache import PictureCache
from benchkit.report.plotter import Plotter
from benchkit.report.tables import markdown, to_latex, to_markdown
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
    cache: bool = True,
) -> Written:
    """Write the report of a study under `out` as NAME.html and NAME.pdf, with its tables and data in NAME/.

    Each file appears whole or not at all. Without the PDF's system libraries the rest is written and `error` says so.
    Charts that an earlier report drew come from the user's cache, unless `cache` is off.
    """
    summary = summarize(results)
    with Plotter(PictureCache.of_user() if cache else None) as plotter:
        gallery = Gallery(results=results, registry=registry or Registry.installed(), for_print=pdf, plotter=plotter)
        report = compose(results, summary, gallery)
    stem = file_stem(results.study.name)
    out.mkdir(parents=True, exist_ok=True)
    companions = companion_files(report, summary, results)
    paths: list[Path] = []
    if html:
        paths.append(_put(out / f"{stem}.html", render_html(report).encode()))
    error: ReportError | None = None
    if pdf:
        try:
            paths.append(_put(out / f"{stem}.pdf", print_pdf(report, gallery, companions)))
        except ReportError as failure:
            error = failure
    for name, content in companions.items():
        _put(out / stem / name, content)
    paths.append(out / stem)
    return Written(
        paths=tuple(paths), problems=tuple(gallery.problems), tracebacks=tuple(gallery.tracebacks), error=error
    )


def print_pdf(report: ReportContext, gallery: Gallery, companions: dict[str, bytes]) -> bytes:
    """Return the report as PDF with the results, the tables' and figures' data and the study attached."""
    described = {".json": "all numbers of the report", ".csv": "data of a table or figure", ".toml": "the study"}
    attachments = [
        Attached(name=name.replace("/", "-"), description=described[Path(name).suffix], content=content)
        for name, content in companions.items()
        if Path(name).suffix in described
    ]
    dated = max((trial.finished for trial in gallery.results.trials), default=0.0)
    pictures = {**gallery.pictures, **font_files()}
    return render_pdf(render_print(report), pictures, attachments, limits=Limits(dated=dated))


def companion_files(report: ReportContext, summary: Summary, results: StudyResults) -> dict[str, bytes]:
    """Return the files beside the report by relative path: JSON, the study, tables (CSV, Markdown, LaTeX), data."""
    found = {"results.json": to_json(report, summary, results), "study.toml": results.study.source}
    found["settings.toml"] = resolved(results)
    for block in report.tables:
        stem = f"tables/{block.number:02d}-{block.name}"
        found[f"{stem}.csv"] = block.csv
        found[f"{stem}.md"] = f"**Table {block.number}.** {markdown(block.caption)}\n\n{to_markdown(block.table)}"
        found[f"{stem}.tex"] = to_latex(block.table, block.caption, block.name)
    for figure in report.figures:
        for name, csv in figure.data:
            found[f"figures/{figure.number:02d}-{figure.name}-{file_stem(name)}.csv"] = csv
    return {name: text.encode() for name, text in found.items()}


def file_stem(name: str) -> str:
    """Return a name as a file's stem: letters, digits, dots and hyphens, never empty and never a path."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "report"


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
