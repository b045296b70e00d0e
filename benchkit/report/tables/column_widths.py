"""How wide the columns of a printed table are: wide enough that no word is broken, as far as the page allows it.

The widths are worked out here, from the text in the report's own font, because a page cannot scroll: left to the
printer, a column of names is squeezed until its words break, or a table with many columns runs off the paper. Fixed
widths also spare the printer the measuring of every cell, which is most of the time that a long table takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

from PIL import ImageFont

from benchkit.report.page_text import printable
from benchkit.report.tables.table import Cell, Column, Table

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
        least, best = _heading(column, points)
        gap = _GAP if index and column.align == "left" and table.columns[index - 1].align == "right" else 0.0
        for row in table.rows:
            words, line = _cell(row[index], column, points, inline_detail=inline_detail)
            least, best = max(least, words), max(best, line)
        space = (_PADDING + gap) * points * _MM_PER_POINT
        widths.append((least + space, best + space))
    return widths


def _heading(column: Column, points: float) -> tuple[float, float]:
    words = [_width(word, points, bold=True) for word in _words(column.heading)]
    unit = [_width(word, points * SMALL) for word in _words(column.unit)]
    least = max([*words, *unit], default=0.0)
    return least, least  # a heading may take several lines


def _cell(cell: Cell, column: Column, points: float, *, inline_detail: bool) -> tuple[float, float]:
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
