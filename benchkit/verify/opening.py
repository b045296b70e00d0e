"""What a report's file shows and holds, read without running anything of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchkit.errors import ReportError

MOST_BYTES = 512 * 2**20
"""A report's file may have this many bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFile:
    """A report as read: its capsule's bytes, all its text without blanks, and what can be told apart in it.

    `tables` has the rows of cell texts of each table by its anchor (HTML; a PDF has text alone). `files` are the PDF's
    attachments by name, `data` the CSV texts behind an HTML's tables and figures by the element that holds them.
    """

    kind: Literal["html", "pdf"]
    capsule: bytes
    text: str
    tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    data: Mapping[str, Sequence[str]] = field(default_factory=dict)


def open_report(path: Path) -> ReportFile:
    """Return what a report's file shows and holds.

    Raises `ReportError` when it is no report by benchkit, has no capsule, is damaged, or goes over the limits.
    """
    from benchkit.verify.html_file import read_html
    from benchkit.verify.pdf_file import read_pdf

    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ReportError(f"{path} has {size:,} bytes; at most {MOST_BYTES:,} are read")
        content = path.read_bytes()
    except OSError as error:
        raise ReportError(
            f"{path}: cannot be read: {error.strerror}", hint="name the .html or .pdf file of a report"
        ) from error
    if content.startswith(b"%PDF-"):
        return read_pdf(path)
    if b"<html" in content[:4096].lower():
        return read_html(content, str(path))
    raise ReportError(f"{path} is neither HTML nor PDF", hint="name the .html or .pdf file of a report by benchkit")


def without_capsule(shown: str) -> ReportError:
    """Return the error for a file that has no capsule."""
    return ReportError(
        f"{shown} holds no capsule: it is no report by benchkit, or one made before reports had capsules",
        hint="make the report again with `benchkit report`",
    )
