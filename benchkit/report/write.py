"""From results to files: HTML, PDF, JSON, and every table and figure's data beside them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchkit.errors import ReportError
from benchkit.registry import Registry
from benchkit.report.drafts import Draft, make_part, study_draft
from benchkit.report.html import font_files, render_html, render_print
from benchkit.report.pdf import Attached, Limits, render_pdf
from benchkit.report.several import common_draft
from benchkit.results import StudyResults


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a report left behind: its files, the problems to tell, and the error that cost the PDF, if one did."""

    paths: tuple[Path, ...]
    problems: tuple[str, ...]
    tracebacks: tuple[str, ...]
    error: ReportError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How a report is asked for: its formats, its name (default: the study's), and an earlier state to compare with."""

    html: bool = True
    pdf: bool = True
    name: str = ""
    against: Path | None = None


def write_report(
    results: StudyResults, out: Path, *, registry: Registry | None = None, html: bool = True, pdf: bool = True
) -> Written:
    """Write the report of a study under `out` as NAME.html and NAME.pdf, with its tables and data in NAME/.

    Each file appears whole or not at all. Without the PDF's system libraries the rest is written and `error` says so.
    """
    return write_reports([results], out, Wishes(html=html, pdf=pdf), registry=registry)


def write_reports(
    studies: Sequence[StudyResults], out: Path, wishes: Wishes, *, registry: Registry | None = None
) -> Written:
    """Write one report of one study or several, as `write_report` does; several make A+B.html, A+B.pdf and A+B/."""
    installed = registry or Registry.installed()
    parts = [make_part(one, installed, for_print=wishes.pdf, against=wishes.against) for one in studies]
    if len(parts) == 1:
        draft = study_draft(parts[0], wishes.name)
    else:
        draft = common_draft(parts, wishes.name, for_print=wishes.pdf)
    return write_draft(draft, out, wishes)


def write_draft(draft: Draft, out: Path, wishes: Wishes) -> Written:
    """Write a draft's files in the formats asked for."""
    out.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    if wishes.html:
        paths.append(_put(out / f"{draft.stem}.html", render_html(draft.report).encode()))
    error: ReportError | None = None
    if wishes.pdf:
        try:
            paths.append(_put(out / f"{draft.stem}.pdf", print_pdf(draft)))
        except ReportError as failure:
            error = failure
    for name, content in draft.companions.items():
        _put(out / draft.stem / name, content)
    paths.append(out / draft.stem)
    return Written(paths=tuple(paths), problems=draft.problems, tracebacks=draft.tracebacks, error=error)


def print_pdf(draft: Draft) -> bytes:
    """Return the report as PDF with the results, the tables' and figures' data and the study attached."""
    described = {".json": "all numbers of the report", ".csv": "data of a table or figure", ".toml": "the study"}
    attachments = [
        Attached(name=name.replace("/", "-"), description=described[Path(name).suffix], content=content)
        for name, content in draft.companions.items()
        if Path(name).suffix in described
    ]
    pictures = {**draft.pictures, **font_files()}
    return render_pdf(render_print(draft.report), pictures, attachments, limits=Limits(dated=draft.dated))


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
