"""Image grids as files of their own, SVG, PDF and PNG, and figures as an earlier page has them."""

from __future__ import annotations

import base64
import io
import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser

from PIL import Image

from benchkit.errors import ReportError
from benchkit.report.context.blocks import FigureBlock, PictureRow
from benchkit.report.figures.drawing import FIGURE_WIDTH, FONT_FAMILY, INK, refuse_addresses
from benchkit.report.page_text import printable, unpacked

_CAPTIONS, _GAP, _LINE_HEIGHT, _MOST_WIDE = 110, 6, 14, 160


def grid_svg(figure: FigureBlock) -> str:
    """Return an image grid as SVG: pictures embedded, captions and headings as text, nothing from outside."""
    most = max((len(row.sources) for row in figure.pictures), default=1)
    width = min(_MOST_WIDE, (FIGURE_WIDTH - _CAPTIONS) / max(1, most) - _GAP)
    top: float = _GAP + _LINE_HEIGHT * max((len(_wrapped(head, width)) for head in figure.columns), default=0)
    parts = list(_texts_of_heads(figure, width))
    for row in figure.pictures:
        lines, heights = _wrapped(row.caption, _CAPTIONS), [_height(source, width) for source in row.sources]
        height = max([*heights, _LINE_HEIGHT * len(lines)])
        parts += _text(lines, 0, top + height / 2)
        parts += [
            f'<image href="{escape(source)}" x="{_CAPTIONS + index * (width + _GAP):.1f}" y="{top:.1f}" '
            f'width="{width:.1f}" height="{high:.1f}"/>'
            for index, (source, high) in enumerate(zip(row.sources, heights, strict=True))
        ]
        top += height + _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{FIGURE_WIDTH}" height="{top:.0f}" '
        f'viewBox="0 0 {FIGURE_WIDTH} {top:.0f}" role="img" aria-label="{escape(_xml(figure.alt_text))}">'
        f'<g font-family="{FONT_FAMILY}" font-size="11" fill="{INK}">{"".join(parts)}</g></svg>'
    )


def _height(source: str, width: float) -> float:
    """Return how high a picture in a `data:` address is at a width; raise `ReportError` when it cannot be read."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])), formats=("PNG", "JPEG")) as picture:
            return width * picture.height / max(1, picture.width)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ReportError("an image grid holds a picture that cannot be read", problems=[str(error)]) from error


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
    return "".join(letter for letter in text if printable(letter) == letter)


PICTURES = ("data:image/png;base64,", "data:image/jpeg;base64,")


def kept_figures(page: str) -> Mapping[str, FigureBlock]:
    """Return the figures of an HTML report by their plugin, as blocks that are yet to be numbered and drawn for print.

    Raises `ReportError` for a page whose figures are damaged or refer to data by address.
    """
    try:
        found = _Figures(page).found
        return {name: _block(name, drawn) for name, drawn in found.items() if drawn.text("spec") or drawn.rows}
    except (ValueError, TypeError, IndexError, RecursionError) as error:
        raise ReportError(f"the figures of the page are damaged: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """What a page has of one figure, as it is read."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    rows: list[tuple[str, list[str]]] = field(default_factory=list)

    def text(self, part: str) -> str:
        """Return the text of a part: caption, alt, spec or payload."""
        return "".join(self.texts.get(part, ()))


class _Figures(HTMLParser):
    """The figures of a page by their anchors, taken apart as it is read."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: dict[str, _Drawn] = {}
        self._figure: _Drawn | None = None
        self._part = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name, kinds = given.get("id", ""), given.get("class", "").split()
        if tag == "figure" and "figure" in kinds and name.startswith("figure-"):
            self._figure = self.found.setdefault(name.removeprefix("figure-"), _Drawn())
        elif self._figure is None:
            return
        elif "chart" in kinds:
            self._figure.texts["alt"] = [given.get("aria-label", "")]
        elif "row-caption" in kinds:
            self._figure.rows.append(("", []))
            self._part = "row"
        elif tag == "img" and self._figure.rows:
            self._figure.rows[-1][1].append(given.get("src", ""))
        elif part := {"caption", "spec", "payload", "head"} & set(kinds):
            self._part = part.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in ("span", "script"):
            self._part = ""
        elif tag == "figure":
            self._figure = None

    def handle_data(self, data: str) -> None:
        figure = self._figure
        if figure is None or not self._part:
            return
        if self._part == "head":
            figure.columns.append(data)
        elif self._part == "row":
            caption, sources = figure.rows[-1]
            figure.rows[-1] = (caption + data, sources)
        else:
            figure.texts.setdefault(self._part, []).append(data)


def _block(name: str, drawn: _Drawn) -> FigureBlock:
    spec = unpacked(drawn.text("spec")) if drawn.text("spec") else {}
    refuse_addresses(spec)
    data = unpacked(drawn.text("payload")) if drawn.text("payload") else []
    rows = [
        PictureRow(caption=caption, sources=tuple(source for source in sources if source.startswith(PICTURES)))
        for caption, sources in drawn.rows
        if sources
    ]
    return FigureBlock(
        number=0,
        name=name,
        plugin=name,
        title="",
        caption=drawn.text("caption"),
        alt_text=drawn.text("alt"),
        spec=json.dumps(spec, separators=(",", ":"), allow_nan=False) if spec else "",
        print_source="",
        columns=tuple(drawn.columns),
        pictures=tuple(rows),
        data=tuple((str(label), str(csv)) for label, csv in data),
    )
