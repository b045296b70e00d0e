"""The figures of an earlier page: for a report made again from its capsule, which does not hold what models showed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

from benchkit.errors import ReportError
from benchkit.report.context.blocks import FigureBlock, PictureRow
from benchkit.report.figures.drawing import refuse_addresses
from benchkit.report.page_text import unpacked

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
    rows = [(caption, tuple(filter(_is_picture, sources))) for caption, sources in drawn.rows if sources]
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
        pictures=tuple(PictureRow(caption=caption, sources=sources) for caption, sources in rows),
        data=tuple((str(label), str(csv)) for label, csv in data),
    )


def _is_picture(address: str) -> bool:
    return address.startswith(PICTURES)
