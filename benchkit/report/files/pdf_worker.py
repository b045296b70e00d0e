"""The child process that turns HTML into PDF: run as `python -m benchkit.report.files.pdf_worker MEMORY_MIB`.

It reads the path of its job, as JSON, from standard input, once it has imported what it needs, and prints a JSON line.
It is a process of its own so that its time and memory have limits, and so that nothing it is given can reach further
than the job's own files.
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from benchkit.child import answer_stream, limit_memory
from benchkit.report.files.page_filling import filled


class PdfJob(TypedDict):
    """What the child is told: paths of its input and output, and the date in seconds since 1970."""

    html: str
    pdf: str
    resources: dict[str, str]
    attachments: list[dict[str, str]]
    dated: float


class LoggedErrors(logging.Handler):
    """Collects what WeasyPrint logs as errors: it drops a figure that fails, and says so only there.

    `missing` has the characters for which no font has a picture.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self.missing: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message of an error, and the character of a warning that no font has it."""
        if record.levelno >= logging.ERROR:
            self.lines.append(record.getMessage())
        elif str(record.msg).startswith(".notdef glyph") and isinstance(record.args, tuple):
            self.missing[str(record.args[0])] = None


KINDS = {".svg": "image/svg+xml", ".ttf": "font/ttf", ".png": "image/png", ".jpg": "image/jpeg"}


def write_pdf(job: PdfJob) -> dict[str, Any]:
    """Print the job's HTML and return what was refused, what failed, which pictures nothing describes, and the
    characters that no font has.

    Where there are such characters it is printed again with their codes in their place: their boxes would say nothing,
    and a box may make the text of the whole page unreadable for programs.
    """
    html = Path(job["html"]).read_text(encoding="utf-8")
    answer = print_html(html, job, "")
    return (
        answer if not answer["missing"] else {**print_html(html, job, answer["missing"]), "missing": answer["missing"]}
    )


def print_html(html: str, job: PdfJob, missing: str) -> dict[str, Any]:
    """Print HTML with the codes of the `missing` characters in their place, and return what `write_pdf` tells."""
    import weasyprint
    from weasyprint.urls import FatalURLFetchingError, URLFetcher, URLFetcherResponse

    refused: list[str] = []
    undescribed: list[str] = []
    codes = {ord(letter): f"[U+{ord(letter):04X}]" for letter in missing}

    class OwnFiles(URLFetcher):  # type: ignore[misc]
        """Serves the job's resources and `data:` addresses; everything else is refused and remembered."""

        def __init__(self) -> None:
            super().__init__(allowed_protocols=("fig", "data"), allow_redirects=False, fail_on_errors=True)

        def fetch(self, url: str, headers: Any = None) -> Any:
            if url.startswith("data:"):
                return super().fetch(url, headers)
            path = job["resources"].get(url)
            if path is None:
                refused.append(url)
                raise ValueError(f"not part of the report: {url}")
            content = Path(path).read_bytes()
            if codes and path.endswith(".svg"):
                content = content.decode().translate(codes).encode()
            return URLFetcherResponse(
                url, content, {"Content-Type": KINDS.get(Path(path).suffix, "application/octet-stream")}
            )

    records = LoggedErrors()
    logging.getLogger("weasyprint").addHandler(records)
    dated = datetime.fromtimestamp(job["dated"], UTC)
    try:
        page = weasyprint.HTML(string=html.translate(codes), base_url="fig:report.html", url_fetcher=OwnFiles())
        undescribed = list(_describe(page.etree_element))
        attachments = [
            weasyprint.Attachment(
                string=Path(attached["path"]).read_bytes(), name=attached["name"], description=attached["description"],
                url_fetcher=OwnFiles(), created=dated, modified=dated,
            )
            for attached in job["attachments"]
        ]  # fmt: skip
        options: dict[str, Any] = {"attachments": attachments, "pdf_variant": "pdf/ua-1", "cache": {}}
        document = filled(lambda: page.render(**options))
        document.write_pdf(job["pdf"], finisher=_finished, **options)
    except FatalURLFetchingError as error:  # a BaseException
        records.lines += [] if refused else [str(error)]
    finally:
        logging.getLogger("weasyprint").removeHandler(records)
    missing_letters = "".join(records.missing)
    return {"refused": refused, "errors": records.lines, "missing": missing_letters, "undescribed": undescribed}


def _describe(tree: Any) -> Iterator[str]:
    """Describe each picture that has no words by its figure's caption, or as a picture, and return these words.

    A tagged PDF owes every picture a description: without one WeasyPrint tells an error.
    """
    captions = {
        picture: " ".join(" ".join(caption.itertext()).split())
        for figure in tree.iter("figure")
        for caption in figure.iter("figcaption")
        for picture in figure.iter("img")
    }
    for picture in tree.iter("img"):
        if not picture.get("alt", "").strip():
            words = captions.get(picture) or "picture without a description"
            picture.set("alt", words)
            yield words


def _finished(document: Any, pdf: Any) -> None:
    """Number the pages for those who go to one, as they are printed, and tag a table over several pages as one."""
    import pydyf

    style = pydyf.Dictionary({"S": "/D"})
    pdf.catalog["PageLabels"] = pydyf.Dictionary({"Nums": pydyf.Array([0, style])})
    tagged = [one for one in pdf.objects if isinstance(one, pydyf.Dictionary) and one.get("S") == "/Table"]
    first: dict[Any, Any] = {}
    for element, table in zip(_tables(document), tagged, strict=True):
        whole = first.setdefault(element, table)
        if whole is not table:
            _join(whole, table, {one.reference: one for one in pdf.objects})


def _tables(document: Any) -> Iterator[Any]:
    """Return the element of every table, once for each page that it is on, in the order of their tags."""

    def within(box: Any) -> Iterator[Any]:
        if box.element is not None and box.element_tag == "table":
            yield box.element
        else:
            for child in getattr(box, "children", ()):
                yield from within(child)

    for page in document.pages:
        yield from within(page._page_box)


def _join(whole: Any, part: Any, objects: dict[bytes, Any]) -> None:
    """Put the rows of a table's part into the whole; the headings, printed again there, are rows like others."""
    for reference in part["K"]:
        group = objects[reference]
        group |= {"S": "/TBody", "P": whole.reference}
        whole["K"].append(reference)
    part["K"].clear()
    objects[part["P"]]["K"].remove(part.reference)
    part.free = "f"


def main(memory_mib: int) -> int:
    """Do the job in the file that standard input names as JSON, if any; exit code 3 without a system library."""
    limit_memory(memory_mib)
    with answer_stream() as answers:
        try:
            import weasyprint  # noqa: F401
        except OSError as error:
            answers.write(json.dumps({"missing": str(error)}))
            return 3
        if not (told := sys.stdin.read()):
            return 0
        job: PdfJob = json.loads(Path(json.loads(told)).read_text(encoding="utf-8"))
        answers.write(json.dumps(write_pdf(job)))
    return 0


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # a laid out page is a million objects that stay to the end
    atexit.register(gc.freeze)  # as for the command line: a last look for garbage is of no use
    sys.exit(main(int(sys.argv[1])))
