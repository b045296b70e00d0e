"""The PDF's child process: what it refuses, what makes it fail, and how it ends when it takes too long."""

from __future__ import annotations

import http.server
import io
import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pikepdf
import pypdf
import pytest

from benchkit.child import ChildResult
from benchkit.errors import ReportError
from benchkit.report.files.html import font_files, template_folder
from benchkit.report.files.pdf import Attached, Limits, PangoMissing, render_pdf

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9" fill="#1E78B4"/></svg>'


ROOT = Path(__file__).parents[1]
BARE = '<img src="fig:a.svg">'


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine that remembers what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{found.server_port}", asked
    found.shutdown()
    thread.join()
    found.server_close()


def page(body: str, head: str = "") -> str:
    return f'<!DOCTYPE html><html lang="en"><head><title>t</title>{head}</head><body>{body}</body></html>'


def test_a_page_with_a_picture_and_an_attachment() -> None:
    content = render_pdf(
        page('<h1>Words</h1><img src="fig:a.svg" alt="a square">'),
        {"fig:a.svg": SVG},
        [Attached(name="results.json", description="numbers", content=b"{}")],
    )
    reader = pypdf.PdfReader(io.BytesIO(content))
    assert "Words" in reader.pages[0].extract_text()
    assert reader.attachments["results.json"] == [b"{}"]
    assert reader.trailer["/Root"]["/MarkInfo"]["/Marked"]


def tagged(reader: pypdf.PdfReader, *names: str) -> list[Any]:
    """Return the structure elements of these names below the document's root, from top to bottom."""

    def below(kid: Any) -> Iterator[Any]:
        element = kid.get_object()
        if isinstance(element, list):
            for one in element:
                yield from below(one)
        elif isinstance(element, dict) and "/K" in element:
            if element.get("/S") in names:
                yield element
            yield from below(element["/K"])

    return list(below(reader.trailer["/Root"]["/StructTreeRoot"]["/K"]))


def test_a_table_over_several_pages_is_tagged_as_one() -> None:
    rows = "".join(f"<tr><td>{place}</td><td>b</td></tr>" for place in range(200))
    table = f"<table><thead><tr><th>A</th><th>B</th></tr></thead><tbody>{rows}</tbody></table>"
    content = render_pdf(page(f"<p>Words</p>{table}<table><tr><td>small</td></tr></table>"), {})
    reader = pypdf.PdfReader(io.BytesIO(content))
    assert len(reader.pages) > 2
    large, small = tagged(reader, "/Table")
    assert [len(large["/K"]), len(small["/K"])] == [2 * len(reader.pages), 1]
    assert len(tagged(reader, "/THead")) == 1
    rows_found = tagged(reader, "/TR")
    assert len(rows_found) == 200 + len(reader.pages) + 1
    assert all(row["/P"]["/P"]["/S"] == "/Table" and row["/P"]["/P"]["/K"] for row in rows_found)


def test_a_pdf_says_that_it_is_for_everyone() -> None:
    """PDF/UA-1's marks, the language, the title, links and descriptions of pictures, read by another library."""
    body = '<h1>One</h1><h2>Two</h2><p><a href="https://example.org">out</a></p><img src="fig:a.svg" alt="a square">'
    with pikepdf.open(io.BytesIO(render_pdf(page(body), {"fig:a.svg": SVG}))) as document:
        root = document.Root
        assert root.Lang == "en" and root.MarkInfo.Marked and root.ViewerPreferences.DisplayDocTitle
        with document.open_metadata() as metadata:
            assert metadata["pdfuaid:part"] == "1" and metadata["dc:title"] == "t"
        annotations = [one for sheet in document.pages for one in sheet.get("/Annots", [])]
        assert [str(one.Subtype) for one in annotations] == ["/Link"] and "/StructParent" in annotations[0]
    reader = pypdf.PdfReader(io.BytesIO(render_pdf(page(body), {"fig:a.svg": SVG})))
    assert [figure["/Alt"] for figure in tagged(reader, "/Figure")] == ["a square"]
    assert [len(tagged(reader, name)) for name in ("/H1", "/H2", "/Link")] == [1, 1, 1]


@pytest.mark.parametrize("path", sorted((ROOT / "reports").glob("*.pdf")), ids=lambda path: path.stem)
def test_every_committed_pdf_is_for_everyone(path: Path) -> None:
    with pikepdf.open(path) as document:
        root = document.Root
        assert root.Lang == "en" and root.MarkInfo.Marked and root.ViewerPreferences.DisplayDocTitle
        with document.open_metadata() as metadata:
            assert metadata["pdfuaid:part"] == "1" and metadata["dc:title"]
        links = [one for sheet in document.pages for one in sheet.get("/Annots", [])]
        assert all(str(one.Subtype) == "/Link" and "/StructParent" in one for one in links)
    reader = pypdf.PdfReader(path)
    assert [str(figure.get("/Alt", "")) for figure in tagged(reader, "/Figure") if not figure.get("/Alt")] == []
    assert len(tagged(reader, "/Link")) == len(links)
    levels = [int(heading["/S"][2]) for heading in tagged(reader, "/H1", "/H2", "/H3", "/H4", "/H5", "/H6")]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_a_cell_names_the_head_of_its_row_and_of_its_column_on_every_page_of_a_table() -> None:
    rows = "".join(f'<tr><th scope="row">{place}</th><td>b</td><td>c</td></tr>' for place in range(120))
    heads = '<tr><th scope="col">A</th><th scope="col">B</th><th scope="col">C</th></tr>'
    content = render_pdf(page(f"<table><thead>{heads}</thead><tbody>{rows}</tbody></table>"), {})
    reader = pypdf.PdfReader(io.BytesIO(content))
    assert len(reader.pages) > 1
    known = {str(head["/A"]["/ID"] if "/ID" in head.get("/A", {}) else head["/ID"]) for head in tagged(reader, "/TH")}
    assert len(known) == 120 + 3 * len(reader.pages)
    checked = 0
    for row in tagged(reader, "/TR"):
        cells = [kid.get_object() for kid in row["/K"]]
        own = [str(cell["/ID"]) for cell in cells if cell["/S"] == "/TH"]
        for cell in cells:
            if cell["/S"] == "/TD":
                first, second = (str(name) for name in cell["/A"]["/Headers"])
                assert first == own[0] and second in known - set(own)
                checked += 1
    assert checked == 240


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (BARE, "picture without a description"),
        ('<img src="fig:a.svg" alt=" ">', "picture without a description"),
        (f"<figure>{BARE}<figcaption><b>Figure 1.</b> Two\nsquares.</figcaption></figure>", "Figure 1. Two squares."),
    ],
)
def test_a_picture_without_words_costs_no_pdf_and_is_told(picture: str, words: str) -> None:
    notes: list[str] = []
    content = render_pdf(page(f'<p>Words</p>{picture}<img src="fig:a.svg" alt="own">'), {"fig:a.svg": SVG}, notes=notes)
    reader = pypdf.PdfReader(io.BytesIO(content))
    assert [figure["/Alt"] for figure in tagged(reader, "/Figure")] == [words, "own"]
    (note,) = notes
    assert note.startswith("1 picture of the PDF came without an alternative text") and words in note


def test_what_the_margins_say_stands_on_the_page_too() -> None:
    """Text in margins is not tagged: the report's and the section's title, and page numbers, which viewers count."""
    style = (template_folder() / "report" / "print.css").read_text(encoding="utf-8")
    (margins,) = re.findall(r"^@page \{(.*?)^\}", style, re.MULTILINE | re.DOTALL)
    said = set(re.findall(r"[\w-]+\([^)]*\)", " ".join(re.findall(r"content: ([^;]+);", margins))))
    assert said == {"string(report, start)", "string(part, start)", "counter(page)", "counter(pages)"}
    assert re.findall(r"string-set: (\w+) ([\w()-]+)", style) == [("report", "content()"), ("part", "attr(data-title)")]
    heading = (template_folder() / "report" / "chapters.html.j2").read_text(encoding="utf-8")
    assert (
        'data-title="{{ section.number }} {{ section.title }}"><span class="number">{{ section.number }}</span>'
        in heading
    )


def test_on_macos_the_child_looks_where_homebrew_puts_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def begun(arguments: Any, *, environment: dict[str, str]) -> Any:
        given.append(environment.get("DYLD_FALLBACK_LIBRARY_PATH"))
        answer = ChildResult(out='{"missing": "no pango"}', code=3)
        return nullcontext(SimpleNamespace(finish=lambda seconds, *, text: answer))

    monkeypatch.setattr("benchkit.report.files.pdf.PythonChild", begun)
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.delenv("DYLD_FALLBACK_LIBRARY_PATH", raising=False)
    with pytest.raises(PangoMissing, match="needs Pango") as caught:
        render_pdf(page("x"), {})
    assert caught.value.hint == "brew install pango"
    monkeypatch.setenv("DYLD_FALLBACK_LIBRARY_PATH", "/own")
    with pytest.raises(PangoMissing):
        render_pdf(page("x"), {})
    monkeypatch.setattr("platform.system", lambda: "Linux")
    with pytest.raises(PangoMissing):
        render_pdf(page("x"), {})
    assert given == ["/opt/homebrew/lib:/usr/local/lib:/usr/lib", "/own", None]


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("", '<img src="{base}/a.png" alt="x">'),
        ('<link rel="stylesheet" href="{base}/a.css">', "x"),
        ('<link rel="attachment" href="{base}/a.txt">', "x"),
        ("<style>@import url({base}/a.css);</style>", "x"),
        ("<style>@font-face {{ font-family: F; src: url({base}/a.ttf) }} body {{ font-family: F }}</style>", "x"),
        ("<style>body {{ background: url({base}/a.png) }}</style>", "x"),
        ("", '<object data="{base}/a.svg"></object>'),
        ("", '<img src="file:///etc/passwd" alt="x">'),
        ('<link rel="attachment" href="file:///etc/passwd">', "x"),
    ],
)
def test_nothing_outside_the_report_is_fetched(head: str, body: str, server: tuple[str, list[str]]) -> None:
    base, asked = server
    with pytest.raises(ReportError):
        render_pdf(page(body.format(base=base), head.format(base=base)), {})
    assert asked == []


def test_a_picture_inside_a_picture_is_not_fetched(server: tuple[str, list[str]]) -> None:
    base, asked = server
    nested = SVG.replace(b"<rect", f'<image href="{base}/a.png" width="9" height="9"/><rect'.encode())
    with pytest.raises(ReportError, match="would lack something"):
        render_pdf(page('<img src="fig:a.svg" alt="x">'), {"fig:a.svg": nested})
    assert asked == []


def test_a_picture_that_is_none_is_told() -> None:
    with pytest.raises(ReportError):
        render_pdf(page('<img src="fig:a.svg" alt="x">'), {"fig:a.svg": b"<svg"})


def test_the_child_is_ended_after_its_time() -> None:
    with pytest.raises(ReportError, match=r"longer than 0\.01 s"):
        render_pdf(page("x"), {}, limits=Limits(seconds=0.01))


def test_the_child_has_a_memory_limit() -> None:
    rows = "".join(f"<p>{n}</p>" for n in range(3000))
    with pytest.raises(ReportError):
        render_pdf(page(rows), {}, limits=Limits(memory_mib=60))


def test_without_pango_the_message_names_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real child, with a WeasyPrint that ends as the real one does then: it prints a page, then raises."""
    (tmp_path / "weasyprint.py").write_text(
        "print('\\n-----\\n\\nWeasyPrint could not import some external libraries.\\n')\n"
        "raise OSError('cannot load library libgobject-2.0-0')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    with pytest.raises(PangoMissing) as caught:
        render_pdf(page("x"), {})
    assert "apt install libpango-1.0-0" in caught.value.hint
    assert caught.value.exit_code == 2


def test_the_shipped_fonts_are_there_with_their_licence() -> None:
    assert {Path(address).suffix for address in font_files()} == {".ttf"}
    assert "SIL OPEN FONT LICENSE" in (template_folder() / "fonts" / "OFL.txt").read_text()
