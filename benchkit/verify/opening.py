"""What a report's file shows and holds, read without running anything of it; PDF is read in `pdf_file`."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

from benchkit.capsule.making import CAPSULE, seal_holds, squeezed
from benchkit.errors import ReportError
from benchkit.report.page_text import unpacked

MOST_BYTES = 512 * 2**20
"""A report's file may have this many bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFile:
    """A report as read: its capsule's bytes, all its text without blanks, and what can be told apart in it.

    `tables` has the rows of cell texts of each table by its anchor (HTML; a PDF has text alone). `files` are the PDF's
    attachments by name, `data` the CSV texts behind an HTML's tables and figures by the element that holds them.
    `sealed` is whether an HTML page has the sha256 that stands at its end, None where none stands there.
    """

    kind: Literal["html", "pdf"]
    path: Path
    capsule: bytes
    text: str
    sealed: bool | None = None
    tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    data: Mapping[str, Sequence[str]] = field(default_factory=dict)


def open_report(path: Path) -> ReportFile:
    """Return what a report's file shows and holds.

    Raises `ReportError` when it is no report by benchkit, has no capsule, is damaged, or goes over the limits.
    """
    from benchkit.verify.pdf_file import read_pdf

    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ReportError(f"{path} has {size:,} bytes; at most {MOST_BYTES:,} are read")
        content = path.read_bytes()
    except OSError as error:
        raise ReportError(f"{path}: cannot be read: {error.strerror}", hint=NAME_ONE) from error
    if content.startswith(b"%PDF-"):
        return read_pdf(path)
    if b"<html" in content[:4096].lower():
        return _read_html(content, path)
    raise ReportError(f"{path} is neither HTML nor PDF", hint=NAME_ONE)


NAME_ONE = "name the .html or .pdf file of a report by benchkit, and no file of the folder beside it"


def without_capsule(shown: str) -> ReportError:
    """Return the error for a file that has no capsule."""
    return ReportError(
        f"{shown} holds no capsule: it is no report by benchkit, or one made before reports had capsules",
        hint="make the report again with `benchkit report`",
    )


SILENT = ("script", "style", "title", "noscript")
"""Elements whose text a page does not show."""


def _read_html(content: bytes, shown: Path) -> ReportFile:
    """Return what an HTML report shows and holds; raise `ReportError` when it is none or damaged."""
    try:
        page = _ReportPage(content.decode("utf-8"))
    except (UnicodeDecodeError, AssertionError, ValueError) as error:
        raise ReportError(f"{shown} is damaged: {error}") from error
    if not page.generator.startswith("benchkit "):
        raise ReportError(f"{shown} is no report by benchkit", hint="name the .html or .pdf file of a report")
    if not page.capsule:
        raise without_capsule(str(shown))
    try:
        capsule = base64.b64decode(page.capsule.partition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ReportError(f"{shown}: the capsule is damaged: {error}", hint="ask for the report again") from error
    twice = [anchor for anchor, count in page.anchors.items() if count > 1 and anchor in page.tables]
    if twice:
        raise ReportError(f"{shown} is damaged: it has two tables {', '.join(twice[:5])}")
    text = squeezed("".join(page.parts))
    sealed = seal_holds(content)
    return ReportFile(
        kind="html", path=shown, capsule=capsule, text=text, sealed=sealed, tables=page.tables, data=page.data
    )


class _ReportPage(HTMLParser):
    """A report's page, taken apart as it is read."""

    def __init__(self, text: str) -> None:
        """Read the whole page."""
        super().__init__(convert_charrefs=True)
        self.generator = ""
        self.capsule = ""
        self.parts: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.data: dict[str, list[str]] = {}
        self.anchors: Counter[str] = Counter()
        self._anchor = ""
        self._silent = ""
        self._in_body = False
        self._cell: list[str] | None = None
        self._payload: list[str] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where in the page we are."""
        given = {name: value or "" for name, value in attrs}
        if tag == "meta" and given.get("name") == "generator":
            self.generator = given.get("content", "")
        elif tag == "a" and given.get("id") == CAPSULE:
            self.capsule = given.get("href", "")
        elif tag == "figure":
            self._anchor = given.get("id", "")
            self.anchors[self._anchor] += 1
            if "table" in given.get("class", "").split():
                self.tables.setdefault(self._anchor, [])
        elif tag in SILENT:
            self._silent = tag
            if tag == "script" and given.get("class") == "payload":
                self._payload = []
        else:
            self._start_of_table(tag)

    def _start_of_table(self, tag: str) -> None:
        if tag == "tbody":
            self._in_body = True
        elif tag == "tr" and self._in_body and self._anchor in self.tables:
            self.tables[self._anchor].append([])
        elif tag in ("td", "th") and self._in_body:
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        """Note what ends here."""
        if tag == self._silent:
            self._silent = ""
            if self._payload is not None:
                self.data[self._anchor] = _csv_texts("".join(self._payload))
                self._payload = None
        elif tag in ("td", "th") and self._cell is not None:
            rows = self.tables.get(self._anchor)
            if rows:
                rows[-1].append(squeezed("".join(self._cell)))
            self._cell = None
        elif tag == "tbody":
            self._in_body = False
        elif tag == "figure":
            self._anchor = ""

    def handle_data(self, data: str) -> None:
        """Keep a piece of text where it belongs."""
        if self._payload is not None:
            self._payload.append(data)
        elif not self._silent:
            self.parts.append(data)
            if self._cell is not None:
                self._cell.append(data)


def _csv_texts(text: str) -> list[str]:
    """Return the CSV texts of a page's data element, a list of [name, csv] as JSON, packed where it is long."""
    try:
        listed: Any = unpacked(text)
    except (ValueError, RecursionError):
        return [""]  # no digest fits it, so it is told as changed
    rows = listed if isinstance(listed, list) else [listed]
    return [str(row[1]) if isinstance(row, list) and len(row) == 2 else "" for row in rows]
