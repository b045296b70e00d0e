"""Printed tables: whole words, whole rows where a table is long, and nothing beyond the page, whatever is in it."""

from __future__ import annotations

import io

import pypdf
import pytest
from fontTools.ttLib import TTFont

from benchkit.report.context.blocks import ReportContext, numbered, section, table_block
from benchkit.report.files.html import font_files, render_print, template_folder
from benchkit.report.files.pdf import render_pdf
from benchkit.report.tables.table import LONG, PAGE_MM, SIZES, Cell, Column, Table, label, number_cell, table_layout

WORDS = ("variant 16, searched", "confirm", "diverged", "lr = 0.003314, batch_size = 186")


def wide_table(rows: int, columns: int = 10) -> Table:
    """Return a table like that of every trial: text and numbers by turns."""
    heads = tuple(
        Column(key=f"c{n}", heading=("Repeat or slot", "Training time")[n % 2], unit="nats" if n % 4 else "",
               align="left" if n % 3 == 0 else "right")
        for n in range(columns)
    )  # fmt: skip
    row = tuple(label(WORDS[n // 3 % 4]) if n % 3 == 0 else number_cell("2 min 40 s", 160.0) for n in range(columns))
    return Table(columns=heads, rows=(row,) * rows)


def printed(table: Table) -> pypdf.PdfReader:
    block = table_block("wide", "Wide", "A wide table.", table)
    report = ReportContext(
        title="t", question="", description="", authors="", study_name="s", generator="g", dated="", banners=(),
        answer=("a",), facts=(), sections=numbered([section("one", "One", [block])]),
    )  # fmt: skip
    return pypdf.PdfReader(io.BytesIO(render_pdf(render_print(report), font_files())))


def right_edge(page: pypdf.PageObject) -> float:
    """Return how far right text starts on a page, in mm."""
    found = [0.0]
    page.extract_text(
        visitor_text=lambda text, user, matrix, *_: (
            found.append(matrix[4] * user[0] + user[4]) if text.strip() else None
        )
    )
    return max(found) * 25.4 / 72


def test_words_stay_whole_on_the_page() -> None:
    reader = printed(wide_table(3))
    text = reader.pages[-1].extract_text()
    for word in ("variant", "searched", "confirm", "diverged", "batch_size", "0.003314,", "2 min 40 s"):
        assert text.count(word) == 3 * {"2 min 40 s": 6}.get(word, 1), (word, text)
    assert right_edge(reader.pages[-1]) < 190


def test_a_long_table_has_rows_of_one_line() -> None:
    table = wide_table(LONG)
    layout = table_layout(table)
    assert layout.points < table_layout(wide_table(3)).points
    face = TTFont(template_folder() / "fonts" / "Inter-Regular.ttf")
    advances, glyphs, units = face["hmtx"], face.getBestCmap(), face["head"].unitsPerEm
    for cell, width in zip(table.rows[0], layout.widths, strict=True):
        points = sum(advances[glyphs[ord(letter)]][0] for letter in cell.text) / units * layout.points
        assert points * 25.4 / 72 < width


@pytest.mark.parametrize("columns", [1, 4, 10, 25, 60])
@pytest.mark.parametrize("text", ["x", "word " * 40, "w" * 300, "\u4e2d\u6587" * 30])
def test_columns_fill_the_page_and_never_more(columns: int, text: str) -> None:
    heads = tuple(Column(key=str(n), heading=text[:60], align=("left", "right")[n % 2]) for n in range(columns))
    row = tuple(Cell(text=text[:60] if n % 2 else text, detail="[1, 2]", mark="tied") for n in range(columns))
    layout = table_layout(Table(columns=heads, rows=(row, row)))
    assert layout.points in SIZES
    assert sum(layout.widths) == pytest.approx(PAGE_MM, abs=0.01 * columns)
    assert min(layout.widths) > 0


def test_an_empty_table_has_widths() -> None:
    heads = (Column(key="a", heading="A"), Column(key="b", heading="B"))
    assert len(table_layout(Table(columns=heads, rows=())).widths) == 2


def test_a_table_too_wide_for_words_stays_on_the_page() -> None:
    columns = tuple(Column(key=str(n), heading=f"Heading{n}", align="left") for n in range(30))
    reader = printed(Table(columns=columns, rows=(tuple(label(f"indivisible{n}") for n in range(30)),)))
    assert right_edge(reader.pages[-1]) < 190
