"""Figures as files of their own: SVG, PDF and PNG, of charts and of image grids."""

from __future__ import annotations

import base64
import io
import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import vl_convert
from PIL import Image

from benchkit.errors import ReportError
from benchkit.report.context.blocks import FigureBlock, PictureRow
from benchkit.report.figures.drawing import register_fonts, spec_to_pdf, spec_to_png, spec_to_svg
from benchkit.report.figures.style import FIGURE_WIDTH, FONT_FAMILY, INK

PIXELS_PER_INCH = 200
"""The resolution of PNG files at the figures' printed size, in which 96 CSS pixels are an inch."""

_CAPTIONS, _GAP, _LINE_HEIGHT, _MOST_WIDE = 110, 6, 14, 160


def figure_files(figure: FigureBlock) -> dict[str, bytes]:
    """Return a figure as files by their suffix: `.svg`, `.pdf` and `.png`.

    The same figure gives the same bytes of SVG and PNG; vl-convert writes the parts of a PDF in any order.
    Raises `ReportError` when one cannot be drawn.
    """
    if figure.spec:
        spec = json.loads(figure.spec)
        return {
            ".svg": spec_to_svg(spec).encode(),
            ".pdf": spec_to_pdf(spec),
            ".png": spec_to_png(spec, PIXELS_PER_INCH),
        }
    svg = grid_svg(figure)
    register_fonts()
    try:
        document: bytes = vl_convert.svg_to_pdf(svg)
        white = svg.replace(">", '><rect width="100%" height="100%" fill="white"/>', 1)
        # Without its own resolution, a CSS pixel would become a point.
        picture: bytes = vl_convert.svg_to_png(white, scale=72 / 96, ppi=PIXELS_PER_INCH)
    except ValueError as error:
        raise ReportError(f"the figure {figure.name} cannot be drawn", problems=[str(error)]) from error
    return {".svg": svg.encode(), ".pdf": document, ".png": picture}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tile:
    """One picture of a grid: its address, its place and its size in CSS pixels."""

    source: str
    x: float
    y: float
    width: float
    height: float


def grid_svg(figure: FigureBlock) -> str:
    """Return an image grid as SVG: pictures embedded, captions and headings as text, nothing from outside."""
    most = max((len(row.sources) for row in figure.pictures), default=1)
    width = min(_MOST_WIDE, (FIGURE_WIDTH - _CAPTIONS) / max(1, most) - _GAP)
    top = _heads_height(figure, width)
    parts = list(_texts_of_heads(figure, width))
    for row in figure.pictures:
        tiles = list(_tiles(row, width, top))
        height = max([tile.height for tile in tiles] + [_LINE_HEIGHT * len(_wrapped(row.caption, _CAPTIONS))])
        parts += _text(_wrapped(row.caption, _CAPTIONS), 0, top + height / 2)
        parts += [_image(tile) for tile in tiles]
        top += height + _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{FIGURE_WIDTH}" height="{top:.0f}" '
        f'viewBox="0 0 {FIGURE_WIDTH} {top:.0f}" role="img" aria-label="{escape(_xml(figure.alt_text))}">'
        f'<g font-family="{FONT_FAMILY}" font-size="11" fill="{INK}">{"".join(parts)}</g></svg>'
    )


def _tiles(row: PictureRow, width: float, top: float) -> Iterator[_Tile]:
    for index, source in enumerate(row.sources):
        wide, high = _size(source)
        yield _Tile(
            source=source, x=_CAPTIONS + index * (width + _GAP), y=top, width=width, height=width * high / max(1, wide)
        )


def _size(source: str) -> tuple[int, int]:
    """Return the pixels of a picture in a `data:` address, or raise `ReportError` when it cannot be read."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])), formats=("PNG", "JPEG")) as picture:
            return picture.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ReportError("an image grid holds a picture that cannot be read", problems=[str(error)]) from error


def _image(tile: _Tile) -> str:
    return (
        f'<image href="{escape(tile.source)}" x="{tile.x:.1f}" y="{tile.y:.1f}" width="{tile.width:.1f}" '
        f'height="{tile.height:.1f}"/>'
    )


def _heads_height(figure: FigureBlock, width: float) -> float:
    return _GAP + _LINE_HEIGHT * max((len(_wrapped(head, width)) for head in figure.columns), default=0)


def _texts_of_heads(figure: FigureBlock, width: float) -> Iterator[str]:
    for index, head in enumerate(figure.columns):
        lines = _wrapped(head, width)
        yield from _text(lines, _CAPTIONS + index * (width + _GAP), _LINE_HEIGHT * len(lines) / 2, weight=600)


def _wrapped(text: str, width: float) -> list[str]:
    """Return text in lines that about fit a width in pixels at 11 pixels' size."""
    return textwrap.wrap(_xml(text), max(8, int(width / 6.2)))


def _text(lines: list[str], x: float, middle: float, *, weight: int = 400) -> Iterator[str]:
    start = middle - _LINE_HEIGHT * (len(lines) - 1) / 2 + 4
    for index, line in enumerate(lines):
        yield f'<text x="{x:.1f}" y="{start + index * _LINE_HEIGHT:.1f}" font-weight="{weight}">{escape(line)}</text>'


def _xml(text: str) -> str:
    """Return text without the characters that XML cannot hold."""
    return "".join(letter for letter in text if letter in "\t\n" or (letter >= " " and letter not in "\ufffe\uffff"))
