"""Tables: one model of columns and cells, from which HTML, CSV, Markdown and (in `latex.py`) LaTeX are made.

How wide the columns are in print is worked out here, from the text in the report's own font, because a page cannot
scroll: left to the printer, a column of names is squeezed until its words break, or a table with many columns runs off
the paper. Fixed widths also spare the printer the measuring of every cell, most of the time that a long table takes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from PIL import ImageFont

from benchkit.analysis.estimates import Estimate
from benchkit.analysis.wording import MINUS, NONE, bare, bracket
from benchkit.report.page_text import printable

T = TypeVar("T")

Scalar = str | int | float | bool | None
"""What a cell holds behind its text: a number at full precision, text, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell: the text shown, a second line in small print, and what CSV and sorting use.

    `value` is at full precision. `parts` are further values that a column with `parts` spreads over columns of its own
    in CSV (an interval's ends). `strong` sets the text in bold; `mark` is a word that says why, for those who do not
    see it. `reason` says why there is no value, or one of fewer repeats.
    """

    text: str = field(metadata={"help": "the text shown"})
    detail: str = field(default="", metadata={"help": "a second line in small print, such as the interval"})
    value: Scalar = field(default=None, metadata={"help": "what sorting and CSV use, at full precision"})
    parts: tuple[Scalar, ...] = field(default=(), metadata={"help": "further CSV values, one for each of the column's"})
    strong: bool = field(default=False, metadata={"help": "whether the text is bold"})
    mark: str = field(default="", metadata={"help": "a word beside the text, such as best or tied"})
    reason: str = field(default="", metadata={"help": "why there is no value, or one of fewer repeats"})

    @property
    def sort_value(self) -> str:
        """Return what the sort script compares: the number, or the text in lower case."""
        if isinstance(self.value, bool) or self.value is None:
            return self.text.lower()
        return repr(self.value) if isinstance(self.value, int | float) else str(self.value).lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its heading with the unit, its key in CSV, and how it is aligned."""

    key: str = field(metadata={"help": "the column's name in CSV and JSON"})
    heading: str = field(metadata={"help": "the heading shown"})
    unit: str = field(default="", metadata={"help": "the unit of the numbers, shown under the heading"})
    align: Literal["left", "right"] = field(default="right", metadata={"help": "numbers right, text left"})
    parts: tuple[str, ...] = field(default=(), metadata={"help": "the endings of further CSV columns"})


WORDS, SENTENCE = 24, 60
"""Text up to the first of these lengths is a few words, longer than the second it is prose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns and rows; every row has a cell for each column."""

    columns: tuple[Column, ...] = field(metadata={"help": "the columns from left to right"})
    rows: tuple[tuple[Cell, ...], ...] = field(metadata={"help": "the rows from top to bottom"})

    def __post_init__(self) -> None:
        """Hold the table to its shape."""
        assert all(len(row) == len(self.columns) for row in self.rows), "a row has a cell for each column"

    @property
    def room(self) -> tuple[str, ...]:
        """Return for each column how much room its text asks for: `wide` or `prose`; nothing for numbers and names."""
        asked = []
        for at, column in enumerate(self.columns):
            letters = max((len(text) for row in self.rows for text in (row[at].text, row[at].detail)), default=0)
            few = column.align == "right" or letters <= WORDS
            asked.append("" if few else "wide" if letters <= SENTENCE else "prose")
        return tuple(asked)

    def with_rows(self, rows: Sequence[tuple[Cell, ...]]) -> Table:
        """Return the table with other rows."""
        return Table(columns=self.columns, rows=tuple(rows))


class TableOf(Generic[T]):
    """A table with a row for each of some items, made column by column: the heading beside what the cell reads."""

    def __init__(self, items: Iterable[T]) -> None:
        """Begin with no column."""
        self._items = list(items)
        self._columns: list[Column] = []
        self._cells: list[list[Cell]] = []

    def add(self, column: Column, cell: Callable[[T], Cell]) -> None:
        """Add a column with its own kind of cells."""
        self._columns.append(column)
        self._cells.append([cell(item) for item in self._items])

    def text(self, key: str, heading: str, text: Callable[[T], str]) -> None:
        """Add a column of text."""
        self.add(Column(key=key, heading=heading, align="left"), lambda item: label(text(item)))

    def number(
        self,
        key: str,
        heading: str,
        value: Callable[[T], float | None],
        words: Callable[[Any], str] = str,
        unit: str = "",
    ) -> None:
        """Add a column of numbers in words; where there is none, a dash."""

        def cell(item: T) -> Cell:
            known = value(item)
            return Cell(text=NONE) if known is None else number_cell(words(known), known)

        self.add(Column(key=key, heading=heading, unit=unit), cell)

    def estimate(
        self,
        key: str,
        heading: str,
        metric: str,
        value: Callable[[T], Estimate | None],
        unit: str = "",
    ) -> None:
        """Add a column of estimates of a metric."""
        self.add(
            Column(key=key, heading=heading, unit=unit, parts=ESTIMATE_PARTS),
            lambda item: estimate_cell(metric, value(item)),
        )

    def made(self) -> Table:
        """Return the table."""
        rows = zip(*self._cells, strict=True) if self._columns else ()
        return Table(columns=tuple(self._columns), rows=tuple(rows))


def label(text: str, mark: str = "", *, strong: bool = False) -> Cell:
    """Return a cell of text."""
    return Cell(text=text, value=text, mark=mark, strong=strong)


def number_cell(text: str, value: float | None, *, strong: bool = False) -> Cell:
    """Return a cell with a number behind its text; without a number it shows a dash."""
    return Cell(text=NONE if value is None else text, value=value, strong=strong)


def estimate_cell(metric: str, estimate: Estimate | None, *, strong: bool = False, reason: str = "") -> Cell:
    """Return an estimate: the mean, and its interval below; CSV gets mean, low, high and n.

    `reason` says why repeats lack the metric, where it is undefined in some.
    """
    if estimate is None:
        return Cell(text=NONE, detail="undefined" if reason else "", parts=(None, None, 0), reason=reason)
    return Cell(
        text=bare(metric, estimate.mean),
        detail=bracket(metric, estimate.low, estimate.high),
        value=estimate.mean,
        parts=(estimate.low, estimate.high, estimate.n),
        strong=strong,
        reason=reason,
    )


ESTIMATE_PARTS = ("low", "high", "n")
"""The CSV columns that an estimate adds beside its mean."""


def to_csv(table: Table) -> str:
    """Return the table as CSV (RFC 4180): raw values at full precision, one column for each part.

    Text that a spreadsheet would take for a formula is preceded by an apostrophe; numbers are left as they are.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    heads = []
    for column in table.columns:
        heads += [column.key, *(f"{column.key}_{part}" for part in column.parts)]
    writer.writerow(heads)
    for row in table.rows:
        values: list[Scalar] = []
        for column, cell in zip(table.columns, row, strict=True):
            values += [cell.value, *(cell.parts or (None,) * len(column.parts))]
        writer.writerow([plain(value) for value in values])
    return out.getvalue()


FORMULA_STARTS = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20", MINUS)
"""What spreadsheets may take for the start of a formula, with the full-width forms of the signs."""


def plain(value: Scalar) -> Scalar:
    """Return a value as CSV holds it: text that starts like a formula is disarmed."""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return value


def to_markdown(table: Table) -> str:
    """Return the table as GitHub-flavoured Markdown, interval behind the mean, best in bold."""
    heads = [markdown(_heading(column)) for column in table.columns]
    rule = ["---:" if column.align == "right" else ":---" for column in table.columns]
    rows = [[_markdown_cell(cell) for cell in row] for row in table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in [heads, rule, *rows])


def _heading(column: Column) -> str:
    return f"{column.heading} ({column.unit})" if column.unit else column.heading


def _markdown_cell(cell: Cell) -> str:
    text = markdown(cell.text)
    text = f"**{text}**" if cell.strong and text else text
    return " ".join(
        part for part in (text, markdown(cell.detail), f"({markdown(cell.mark)})" if cell.mark else "") if part
    )


def markdown(text: str) -> str:
    """Return text on one line in which Markdown, HTML and site generators' templates find nothing to act on."""
    text = printable(text)
    for special in "\\`*_[]<>|#$&~{}":
        text = text.replace(special, "\\" + special)
    return " ".join(text.split())


PAGE_MM = 169.5
"""The text width of an A4 page with margins of 20 mm, less half a millimetre for rounding."""

SIZES = (8.0, 7.5, 7.0, 6.5, 6.0)
"""The font sizes in points that are tried, from the largest to the least that is easy to read on paper."""

LONGEST_WORD_MM = 42.0
"""A longer word, such as a path, may be broken; so may a shorter one in a table too wide for even the least size."""

SMALL = 7 / 8
"""The size of intervals and units against the text of their table."""

LONG = 100
"""From this many rows on a smaller size is taken for the sake of rows of one line: they halve the pages."""

_MM_PER_POINT = 25.4 / 72
_PADDING = 1.15
_GAP = 0.85
_LINE_BREAKS = re.compile(r"(?<=[\s\u2013-])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A table's font size in points and its columns' widths in mm, which fill the page."""

    points: float = field(metadata={"help": "the font size of the table's text"})
    widths: tuple[float, ...] = field(metadata={"help": "the width of each column"})
    inline: bool = field(metadata={"help": "whether intervals stand beside their numbers"}, default=False)


def table_layout(table: Table, *, inline_detail: bool = False) -> Layout:
    """Return how a table is printed; `inline_detail` asks for intervals beside their numbers, where rows fit a line."""
    if inline_detail:
        for points in SIZES:
            needed = _needed(table, points, inline_detail=True)
            if sum(best for _, best in needed) <= PAGE_MM:
                return Layout(points=points, widths=_spread(needed), inline=True)
    return _stacked(table)


def _stacked(table: Table) -> Layout:
    sizes = {points: _needed(table, points, inline_detail=False) for points in SIZES}
    whole_lines = [points for points, needed in sizes.items() if sum(best for _, best in needed) <= PAGE_MM]
    whole_words = [points for points, needed in sizes.items() if sum(least for least, _ in needed) <= PAGE_MM]
    for points in (whole_lines if len(table.rows) >= LONG else []) or whole_words:
        return Layout(points=points, widths=_spread(sizes[points]))
    needed = sizes[SIZES[-1]]
    # Too many columns for whole words: shares of the page by need, and words break where they must.
    total = sum(least for least, _ in needed)
    return Layout(points=SIZES[-1], widths=tuple(round(PAGE_MM * least / total, 2) for least, _ in needed))


def _needed(table: Table, points: float, *, inline_detail: bool) -> list[tuple[float, float]]:
    """Return for each column the least width that breaks no word, and the width that breaks no line."""
    widths = []
    for index, column in enumerate(table.columns):
        least, best = _heading_widths(column, points)
        gap = _GAP if index and column.align == "left" and table.columns[index - 1].align == "right" else 0.0
        for row in table.rows:
            words, line = _cell_widths(row[index], column, points, inline_detail=inline_detail)
            least, best = max(least, words), max(best, line)
        space = (_PADDING + gap) * points * _MM_PER_POINT
        widths.append((least + space, best + space))
    return widths


def _heading_widths(column: Column, points: float) -> tuple[float, float]:
    words = [_width(word, points, bold=True) for word in _words(column.heading)]
    unit = [_width(word, points * SMALL) for word in _words(column.unit)]
    least = max([*words, *unit], default=0.0)
    return least, least  # a heading may take several lines


def _cell_widths(cell: Cell, column: Column, points: float, *, inline_detail: bool) -> tuple[float, float]:
    """Return the widths of a cell's longest word and of its whole line; numbers and intervals stay in one piece."""
    detail = _width(cell.detail, points * SMALL)
    mark = _width(f"{cell.mark}__", points * SMALL) if cell.mark else 0.0
    text = _width(cell.text, points, bold=cell.strong)
    if column.align == "right":
        words, line = max(text, mark, detail), text + mark
    else:
        parts = (_width(word, points, bold=cell.strong) for word in _words(cell.text))
        words, line = max(mark, *(min(part, LONGEST_WORD_MM) for part in parts)), text + mark
    if inline_detail and cell.detail:
        return max(words, detail), line + detail + 1.5
    return words, max(line, detail)


def _spread(needed: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """Return widths that fill the page: what words need, then towards whole lines, then the rest by size."""
    wanted = [best - least for least, best in needed]
    spare = PAGE_MM - sum(least for least, _ in needed)
    share = min(1.0, spare / sum(wanted)) if sum(wanted) else 0.0
    widths = [least + share * more for (least, _), more in zip(needed, wanted, strict=True)]
    factor = PAGE_MM / sum(widths)
    return tuple(round(width * factor, 2) for width in widths)


def _words(text: str) -> Iterable[str]:
    return _LINE_BREAKS.split(text)


def _width(text: str, points: float, *, bold: bool = False) -> float:
    return sum(_advance(letter, bold) for letter in printable(text.rstrip())) * points * _MM_PER_POINT


@cache
def _advance(letter: str, bold: bool) -> float:
    """Return a letter's width as a share of the font size; one that the font lacks is taken to be wide."""
    if letter.isspace():
        letter = " "  # a line break has no width that could be measured, and is printed as a blank
    font = _font(bold)
    width = float(font.getlength(letter)) / font.size
    return width if ord(letter) < 0x2E80 else max(width, 1.0)


@cache
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    folder = Path(str(files("benchkit_templates"))) / "fonts"
    return ImageFont.truetype(folder / ("Inter-SemiBold.ttf" if bold else "Inter-Regular.ttf"), 1000)
