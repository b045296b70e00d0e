"""Hostile text from studies, plugins, class names and pictures: in no format is it more than text.

The reference is a report of the same numbers whose words are harmless: text that stays text leaves the same elements
and attributes in the same order.
"""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from html.parser import HTMLParser
from pathlib import Path

import altair as alt
import pypdf
import pytest
from markdown_it import MarkdownIt
from synthetic_results import complete

from benchkit.capsule.making import CAPSULE
from benchkit.registry import Registry
from benchkit.report.context.blocks import Paragraph, ReportContext, Section
from benchkit.report.context.glossary import UsedPlugin, glossary_terms, literature, reference_terms
from benchkit.report.figures.chart_worker import ChartWorker
from benchkit.report.figures.drawing import chart_spec, spec_to_svg
from benchkit.report.figures.figure_set import FigureSet
from benchkit.report.files.exports import ReportBuild
from benchkit.report.files.html import render_html, render_print
from benchkit.report.files.pdf import PdfPrinter
from benchkit.report.tables.latex import to_latex
from benchkit.report.tables.table import Column, Table, label, to_csv
from benchkit.report.write import build_study, prepare_pdf, screen_report, single_build

HOSTILE = (
    '"><script>alert(1)</script><img src=x onerror=alert(1)>',
    "</script></style></title><link rel=attachment href='file:///etc/passwd'>",
    "' || alert(1) || '\"] + datum.x + [\"",
    '<a href="http://evil.invalid">currentColor</a> id="id-0" url(#clip0)',
    "{{7*7}}{% raw %}]]><!-- \\input{/etc/passwd}",
    "javascript:alert(1)//=1+1|[x](javascript:alert(1))",
)
HARMLESS = tuple(f"level {n} ".ljust(len(text), "x") for n, text in enumerate(HOSTILE))
"""As long as the hostile ones: charts name the points whose names fit."""
EXTRA = """
[[published]]
source = '''{text}'''
url = "https://example.org/a"
note = '''{text}'''
rows = [{{ when = {{}}, metric = "test.accuracy", value = 0.75 }}]
[report]
authors = ['''{text}''']
figures = ["class-accuracy", "confusion-difference", "loss-gap"]
"""
MARKDOWN_TAGS = {
    "p",
    "strong",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "blockquote",
    "h1",
    "h2",
    "ul",
    "ol",
    "li",
    "a",
    "code",
}
CODE_TAGS = {"script", "style", "iframe", "object", "embed", "foreignObject", "image", "a", "link", "base", "meta"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made(ReportBuild):
    """A report that is ready to be written, with the content of its page."""

    screen: ReportContext


def made(folder: Path, labels: Sequence[str], text: str, *, figure_files: bool = False) -> Made:
    """Return the report of a study whose words are all `text`, and whose conditions and classes have these labels."""
    results = complete(folder, labels, repeats=2, epochs=3, extra=EXTRA.format(text=text))
    study = replace(results.study, title=text, question=text, description=text, source=text)
    data = {**results.data, "licence": text, "citation": text}
    names = tuple(f"{labels[n % len(labels)]} {n}" for n in range(10))
    results = replace(results, study=study, data=data, class_names=names, left_out=(text,), command=text)
    exports = {"tables", "figures", "json"} if figure_files else {"tables", "json"}
    with ChartWorker() as worker:
        figures = FigureSet(results=results, registry=Registry.installed(), files=figure_files, chart_worker=worker)
        part = build_study(results, figures)
    build = single_build(part, exports)
    screen = screen_report(build, [part])
    assert figures.problems == []
    return Made(**{one.name: getattr(build, one.name) for one in fields(build)}, screen=screen)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tmp_path_factory.mktemp("hostile"), HOSTILE, " ".join(HOSTILE[:2]), figure_files=True)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tmp_path_factory.mktemp("harmless"), HARMLESS, "plain words")


class Structure(HTMLParser):
    """The elements of a page with the names of their attributes, and the addresses that it names."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, ...]] = []
        self.addresses: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attrs)))
        self.addresses += [(name, value or "") for name, value in attrs if name in ("href", "src")]


@pytest.mark.parametrize("medium", ["screen", "print"])
def test_hostile_text_leaves_a_page_its_elements_and_attributes(hostile: Made, harmless: Made, medium: str) -> None:
    pages = [render_html(one.screen) if medium == "screen" else render_print(one.report) for one in (hostile, harmless)]
    found, expected = map(Structure, pages)
    assert len(expected.elements) > 500
    assert Counter(found.elements) == Counter(expected.elements)
    assert not [one for one in found.elements if any(name.startswith("on") for name in one[1:])]
    for name, address in found.addresses:
        allowed = ("#", "https://", "http://", "data:application/") if name == "href" else ("data:image/", "fig:")
        assert address.startswith(allowed), address


def test_links_of_cards_are_web_addresses_or_none() -> None:
    hostile = ("javascript:alert(1)", " JaVaScRiPt:alert(1)", "data:text/html,x", "file:///etc/passwd", "//evil", "x")
    for url in (*hostile, "https://example.org/a"):
        plugin = UsedPlugin(kind="norms", name="n", origin="o", title="t", summary="s", reference="r", url=url)
        known = literature([plugin], [Section(number=1, name="s", title="s", blocks=(Paragraph(text="n"),))], [])
        assert known.plugins == (plugin,)
        shown = {term.url for terms in (glossary_terms, reference_terms) for term in terms(known)}
        assert shown <= {"", "https://example.org/a"}


def test_labels_are_only_text_in_charts(hostile: Made, harmless: Made) -> None:
    charts = {address: content for address, content in hostile.pictures.items() if address in harmless.pictures}
    assert len(charts) >= 5
    for address, picture in charts.items():
        root, plain = ElementTree.fromstring(picture), ElementTree.fromstring(harmless.pictures[address])
        names = [one.tag.rpartition("}")[2] for one in root.iter()]
        assert not CODE_TAGS & set(names)
        assert not [name for one in root.iter() for name in one.attrib if name.startswith("on") or "href" in name]
        # A label that broke out would filter marks away, or none. Points have names where there is room.
        free = {"mark-text"} if address == "fig:speed-cost.svg" else set()
        assert {kind: n for kind, n in drawn(root).items() if kind not in free} == {
            kind: n for kind, n in drawn(plain).items() if kind not in free
        }, address


def drawn(root: ElementTree.Element) -> Counter[str]:
    """Return how many marks of each kind a chart has; axes and legends, which depend on the room, are left out."""
    found: Counter[str] = Counter()
    for group in root.iter():
        kind, _, rest = group.attrib.get("class", "").partition(" ")
        if rest.startswith("role-mark"):
            found[kind] += len(group)
    return found


def test_a_label_that_looks_like_an_attribute_stays_as_it_is() -> None:
    text = '<a href="http://evil.invalid" id="id-0" fill="currentColor" role="x">url(#clip0)'
    chart = alt.Chart(alt.InlineData(values=[{"x": text}])).mark_text(limit=0).encode(text="x:N")
    picture = ElementTree.fromstring(spec_to_svg(chart_spec(chart)))
    assert [one.text for one in picture.iter() if one.text] == [text]


def test_the_pdf_has_our_attachments_and_no_link_outside(hostile: Made) -> None:
    with PdfPrinter() as printer:
        prepare_pdf(hostile, printer)
        content = printer.finish()
    reader = pypdf.PdfReader(io.BytesIO(content))
    expected = {
        name.replace("/", "-") for name in hostile.files if name.endswith((".json", ".csv", ".toml", ".zip", ".bib"))
    }
    assert set(reader.attachments) == expected
    links = [
        str(action["/URI"])
        for page in reader.pages
        for annotation in page.get("/Annots", [])
        for action in [annotation.get_object().get("/A", {})]
        if "/URI" in action
    ]
    assert links
    assert all(link.startswith("https://") and "evil" not in link for link in links)
    assert not {"/JavaScript", "/OpenAction", "/AA"} & set(reader.trailer["/Root"])


def test_no_csv_cell_starts_a_formula(hostile: Made) -> None:
    number = re.compile(r"-?[\d.]+(e[-+]\d+)?|-?inf|nan")
    checked = 0
    for name, content in hostile.files.items():
        if name.endswith(".csv"):
            for row in csv.reader(io.StringIO(content.decode(), newline="")):
                for cell in row:
                    checked += 1
                    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")) or number.fullmatch(cell), (name, cell)
    assert checked > 1000


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\N{MINUS SIGN}1"])
def test_text_that_starts_like_a_formula_is_disarmed(text: str) -> None:
    table = Table(columns=(Column(key="a", heading="a"),), rows=((label(text),),))
    (_, (cell,)) = csv.reader(io.StringIO(to_csv(table), newline=""))
    assert cell == "'" + text


def test_markdown_stays_a_table(hostile: Made) -> None:
    render = MarkdownIt("commonmark", {"html": True}).enable("table").render
    tables = [content.decode() for name, content in hostile.files.items() if name.endswith(".md")]
    assert tables
    for text in tables:
        page = Structure(render(text))
        assert {one[0] for one in page.elements} <= MARKDOWN_TAGS | {"blockquote"}
        assert {address for _, address in page.addresses} <= set(hostile.files) | {CAPSULE}


def test_markdown_and_latex_hold_every_row(hostile: Made, harmless: Made) -> None:
    for name, content in hostile.files.items():
        end = {".md": b" |\n", ".tex": b"\\\\\n"}.get(Path(name).suffix)
        if end:
            assert content.count(end) == harmless.files[name].count(end), name


def test_latex_gives_no_text_a_meaning() -> None:
    text = r"\input{/etc/passwd} ^^5cinput $\write18{id}$ %x" + " #1 ~ & _ { }" + "\n\n\\end{table}"
    table = Table(columns=(Column(key="a", heading=text, unit=text, align="left"),), rows=((label(text),),))
    made = to_latex(table, text, "name")
    commands = set(re.findall(r"\\[A-Za-z]+", made))
    assert commands <= {
        r"\usepackage", r"\begin", r"\end", r"\centering", r"\caption", r"\label", r"\toprule", r"\midrule",
        r"\bottomrule", r"\textbackslash", r"\textasciicircum", r"\textasciitilde", r"\textless", r"\textgreater",
        r"\linewidth", r"\resizebox", r"\small", r"\footnotesize", r"\scriptsize", r"\raggedright", r"\par",
    }  # fmt: skip
    assert re.findall(r"\\(?:begin|end)\{(\w+)\}", made) == ["table", "tabular", "tabular", "table"]
    assert "^" not in made
    assert not re.search(r"(?<!\\)[$#~]", made)
    body = made.partition("\n")[2]  # the first line is a comment
    assert not re.search(r"(?<!\\)%", body)
