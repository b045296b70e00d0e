"""Pages are filled: what is moved, what never is, how small a figure may get, and how full real reports are."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from printed_pages import fullness, half_empty
from synthetic_results import FACTORIES

from benchkit.report.context.blocks import Paragraph, ReportContext, numbered, section, table_block
from benchkit.report.files.html import font_files, render_print
from benchkit.report.files.page_filling import LEAST_SIZE, filled, fills
from benchkit.report.files.pdf import render_pdf
from benchkit.report.tables.table import Column, Table, label
from benchkit.report.write import write_report

weasyprint = pytest.importorskip("weasyprint", reason="WeasyPrint lacks its system libraries", exc_type=OSError)

STYLE = """@page { size: 200px 1000px; margin: 0 } body, p, figure, h2, h3 { margin: 0; font: 10px/10px sans-serif }
img { display: block; width: 100px; max-height: 100% } .figure, .short, .finding { break-inside: avoid }
h2, h3 { break-after: avoid }"""


def figure(name: str, height: int) -> str:
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="100" height="{height}"><rect width="9" height="9"/></svg>'
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    return f'<figure class="figure" id="{name}"><img class="drawing" alt="x" src="{source}"></figure>'


def block(name: str, height: int, kind: str = "figure", words: str = "table short") -> str:
    return f'<{kind} class="{words}" id="{name}"><div style="height: {height}px"></div></{kind}>'


def laid(*sections: str) -> tuple[list[str], list[int], list[float]]:
    """Return the names of the blocks in their order, the pages that they start on, and how full the pages are."""
    parts = "".join(f'<section class="part">{section}</section>' for section in sections)
    page = weasyprint.HTML(string=f'<html lang="en"><style>{STYLE}</style><body><main>{parts}</main></body></html>')
    document = filled(page.render)
    names, places = [], []

    def walk(box: Any, place: int) -> None:
        name = None if box.element is None else box.element.get("id")
        if name and name not in names:
            names.append(name)
            places.append(place)
        for child in getattr(box, "children", ()):
            walk(child, place)

    for place, one in enumerate(document.pages):
        walk(one._page_box, place)
    return names, places, fills(document)


def test_what_follows_goes_before_a_figure_that_does_not_fit() -> None:
    names, places, full = laid(figure("a", 600) + figure("b", 600) + block("t", 300) + block("u", 350))
    assert names == ["a", "t", "b", "u"]
    assert places == [0, 0, 1, 1]
    assert full == pytest.approx([0.9, 0.95])


def test_each_kind_keeps_its_order_and_nothing_passes_a_heading() -> None:
    tail = figure("c", 90) + block("t", 300)
    names, _, _ = laid(figure("a", 600) + figure("b", 600) + tail)
    assert names == ["a", "t", "b", "c"]
    names, _, _ = laid(figure("a", 600) + figure("b", 600) + "<h3>More</h3>" + tail)
    assert names == ["a", "b", "c", "t"]
    names, _, _ = laid(figure("a", 600) + figure("b", 600), "<h2>Next</h2>" + tail)
    assert names == ["a", "b", "c", "t"]
    names, _, _ = laid(figure("a", 600) + "<h3>More</h3>" + figure("b", 600) + block("t", 300))
    assert names == ["a", "b", "t"]


def test_a_figure_is_drawn_smaller_to_fit_but_not_much() -> None:
    names, places, full = laid(figure("a", 600) + figure("b", 450) + figure("c", 300))
    assert (names, places) == (["a", "b", "c"], [0, 0, 1])
    assert full[0] == pytest.approx(1, abs=0.01)
    _, places, full = laid(figure("a", 600) + figure("b", 520) + figure("c", 300))
    assert places == [0, 1, 1]
    assert full[0] == pytest.approx(0.6)
    assert 400 / 450 > LEAST_SIZE > 400 / 520


def test_text_goes_before_a_figure_in_part_over_the_page() -> None:
    words = '<p id="p">' + "word<br>" * 50 + "</p>"
    names, places, full = laid(figure("a", 600) + figure("b", 700) + words)
    assert (names, places) == (["a", "p", "b"], [0, 0, 1])
    assert full == pytest.approx([1, 0.8], abs=0.03)


def test_a_longer_table_goes_over_two_pages_before_much_is_left_blank() -> None:
    def table(rows: int) -> str:
        row = f'<tr><td style="height: {400 // rows}px"></td></tr>'
        return f'<figure class="table short" id="t"><table>{row * rows}</table></figure>'

    _, places, full = laid(figure("a", 650) + table(10))
    assert places == [0, 0]
    assert full[0] > 0.9
    for parts in (figure("a", 650) + table(4), figure("a", 750) + table(10)):
        _, places, _ = laid(parts)
        assert places == [0, 1]


def test_full_pages_and_those_that_nothing_fills_are_left_alone() -> None:
    for parts in ([figure("a", 900), figure("b", 600)], [figure("a", 500), figure("b", 900), figure("c", 90)]):
        names, _, _ = laid("".join(parts))
        assert names == ["a", "b", "c"][: len(parts)]


def test_short_tables_and_sections_do_not_stick_to_the_next_ones(tmp_path: Path) -> None:
    table = Table(columns=(Column(key="a", heading="A"),), rows=((label("x"),), (label("y"),)))
    tables = [table_block(f"t{place}", "T", "Words.", table) for place in range(6)]
    sentences = [section(f"s{place}", "S", [Paragraph(text="Words.")]) for place in range(6)]
    for parts in ([section("tables", "T", tables)], sentences):
        report = ReportContext(
            title="t", question="", description="", authors="", study_name="s", generator="g", dated="", banners=(),
            answer=("a",), facts=(),
            sections=numbered([section("one", "One", [Paragraph(text="word " * 900)]), *parts]),
        )  # fmt: skip
        path = tmp_path / "report.pdf"
        path.write_bytes(render_pdf(render_print(report), font_files()))
        assert min(fullness(path)[:-1]) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["search", "twenty"])
def test_no_page_of_a_report_is_less_than_half_full_without_reason(kind: str, tmp_path: Path) -> None:
    made = write_report(FACTORIES[kind](tmp_path / "trials"), tmp_path, "pdf").paths
    assert half_empty(next(path for path in made if path.suffix == ".pdf")) == []
