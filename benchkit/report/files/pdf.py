"""The report as PDF: the printed HTML goes to a child process with limits, and what it reports is taken seriously."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchkit.analysis.wording import count, quoted
from benchkit.child import PythonChild
from benchkit.errors import ReportError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long the child may take in seconds, and how much address space in MiB (resident memory stays far below)."""

    seconds: float = 600.0
    memory_mib: int = 6144


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """A file inside the PDF: its name, a description, and its content."""

    name: str
    description: str
    content: bytes


WORKER = ("-m", "benchkit.report.files.pdf_worker")
"""What Python runs to make a PDF."""


class PangoMissing(ReportError):
    """The system lacks the libraries that lay out text for the PDF."""


class PdfPrinter:
    """The child process that prints one report. Use it as a context manager: the process is killed with it.

    With `begin`, the child imports what it needs while the report is yet being made. `prepare` writes all its files:
    beside a thread that computes, each would wait for that.
    """

    def __init__(self, limits: Limits = Limits()) -> None:
        """Begin nothing yet."""
        self._limits = limits
        self._stack = ExitStack()
        self._begun: tuple[Path, PythonChild] | None = None
        self._job = ""

    def __enter__(self) -> PdfPrinter:
        """Return the printer."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child, and remove its files."""
        self._stack.close()

    def begin(self) -> tuple[Path, PythonChild]:
        """Return the child, begun now where it was not before, and the folder for its files.

        Raises `OSError` where no folder can be made.
        """
        if self._begun is None:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="benchkit-")))
            # WeasyPrint unpacks fonts into a temporary folder, which a child that is killed would leave behind.
            environment = {"TMPDIR": str(folder), **_library_path()}
            child = PythonChild([*WORKER, str(self._limits.memory_mib)], environment=environment)
            self._begun = folder, self._stack.enter_context(child)
        return self._begun

    def prepare(
        self, html: str, pictures: Mapping[str, bytes], attachments: Sequence[Attached] = (), *, dated: float = 0.0
    ) -> None:
        """Write what the child prints, as `render_pdf` has it; raise `ReportError` where that cannot be written."""
        try:
            folder, _ = self.begin()
            job = {
                "html": _put(folder / "report.html", html.encode(errors="backslashreplace")),
                "pdf": str(folder / "report.pdf"),
                "resources": {
                    address: _put(folder / f"picture-{number}{Path(address).suffix}", content)
                    for number, (address, content) in enumerate(pictures.items())
                },
                "attachments": [
                    {
                        "name": attached.name,
                        "description": attached.description,
                        "path": _put(folder / f"file-{number}", attached.content),
                    }
                    for number, attached in enumerate(attachments)
                ],
                "dated": dated,
            }
            self._job = _put(folder / "job.json", json.dumps(job).encode())
        except OSError as error:
            raise ReportError(
                "the PDF could not be made",
                problems=[f"among temporary files: {error}"],
                hint="the HTML report has everything too; TMPDIR names the folder of temporary files",
            ) from error

    def finish(self, notes: list[str] | None = None) -> bytes:
        """Let the child print what is prepared; return the PDF, as `render_pdf` does, or raise its errors."""
        folder, child = self.begin()
        missing, undescribed = _print(child, self._job, self._limits.seconds)
        if missing and notes is not None:
            notes.append(missing_words(missing))
        if undescribed and notes is not None:
            notes.append(undescribed_words(undescribed))
        return (folder / "report.pdf").read_bytes()


def render_pdf(
    html: str,
    pictures: Mapping[str, bytes],
    attachments: Sequence[Attached] = (),
    *,
    limits: Limits = Limits(),
    dated: float = 0.0,
    notes: list[str] | None = None,
) -> bytes:
    """Return the PDF of the printed HTML; the same input gives the same bytes.

    Characters that no font of this system has are printed as codes, [U+1F600]; a picture without an alternative text is
    described by its caption. `notes` gets a line that names them. `dated` is the date of the attachments in seconds
    since 1970: the results', not that of printing.

    `pictures` maps every `fig:` address that the HTML names to its content; any other address is refused. Raises
    `PangoMissing` when a system library is missing, and `ReportError` when something was refused or dropped, when the
    child fails, or when it goes over its limits.
    """
    with PdfPrinter(limits) as printer:
        printer.prepare(html, pictures, attachments, dated=dated)
        return printer.finish(notes)


def _put(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def _print(child: PythonChild, job: str, seconds: float) -> tuple[str, list[str]]:
    """Let the child do its job; return the characters that no font has, and the words for pictures that had none.

    Raises `ReportError` for a PDF that is not whole.
    """
    ended = child.finish(seconds, text=json.dumps(job))
    hint = "the HTML report has everything too"
    if ended.late:
        raise ReportError(f"making the PDF took longer than {seconds:g} s and was ended", hint=hint)
    if ended.code == 3:
        raise _pango_missing(json.loads(ended.out)["missing"])
    if ended.problem:
        full = ended.problem == "MemoryError"
        what = "making the PDF needed more memory than it may use" if full else "the PDF could not be made"
        problems = [ended.problem, f"the process that makes it ended with exit code {ended.code}"]
        raise ReportError(what, problems=problems, hint=hint)
    answer: dict[str, Any] = json.loads(ended.out)
    problems = [f"refused to fetch {url}" for url in answer["refused"]] + answer["errors"]
    problems = [text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]} ..." for text in problems]
    if problems:
        raise ReportError("the PDF would lack something", problems=problems)
    return answer["missing"], answer["undescribed"]


MOST_LETTERS = 300
"""So many letters of a problem are told: a picture's address may be the picture."""

MOST_NAMED = 8
"""So many characters without a font are named; the rest is counted."""


def missing_words(letters: str) -> str:
    """Return what cannot be printed and which fonts can; `letters` are characters that no font here has."""
    named = [f"{unicodedata.name(letter, 'unnamed')} (U+{ord(letter):04X})" for letter in letters[:MOST_NAMED]]
    rest = f" and {len(letters) - MOST_NAMED} more" if len(letters) > MOST_NAMED else ""
    return (
        f"the PDF shows the code of {count(len(letters), 'character')} that no font on this machine has: "
        f"{', '.join(named)}{rest}; the HTML and the attached JSON hold them. Fonts that have most: Noto (on Debian or "
        "Ubuntu: apt install fonts-noto-core fonts-noto-cjk fonts-noto-color-emoji)"
    )


def undescribed_words(pictures: Sequence[str]) -> str:
    """Return how many pictures had no alternative text, and what the PDF says of them instead."""
    said = [quoted(textwrap.shorten(words, 80, placeholder=" ...")) for words in dict.fromkeys(pictures)]
    rest = f" and {len(said) - MOST_NAMED} more" if len(said) > MOST_NAMED else ""
    return (
        f"{count(len(pictures), 'picture')} of the PDF came without an alternative text; whoever has the page read "
        f"aloud hears: {', '.join(said[:MOST_NAMED])}{rest}"
    )


def _library_path() -> dict[str, str]:
    """Return the variable by which any Python for macOS finds the libraries that Homebrew installs."""
    name = "DYLD_FALLBACK_LIBRARY_PATH"
    places = ("/opt/homebrew/lib", "/usr/local/lib", "/usr/lib")
    return {name: os.environ.get(name) or ":".join(places)} if platform.system() == "Darwin" else {}


def _pango_missing(why: str) -> PangoMissing:
    installs = {
        "Linux": "on Debian or Ubuntu: apt install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0; "
        "on Fedora: dnf install pango",
        "Darwin": "brew install pango",
        "Windows": "install Pango with MSYS2: pacman -S mingw-w64-x86_64-pango",
    }
    return PangoMissing(
        "the PDF needs Pango, which this system does not have",
        problems=[why.partition("\n")[0]],
        hint=installs.get(platform.system(), "install Pango, see WeasyPrint's documentation"),
    )
