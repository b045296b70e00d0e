"""Figures as files: SVG, PDF and PNG of charts and of image grids."""

from __future__ import annotations

import base64
import io
import json
from xml.etree import ElementTree

import altair
import numpy as np
import pypdf
import pytest
import vl_convert
from PIL import Image

from benchkit.errors import ReportError
from benchkit.report.context.blocks import FigureBlock, PictureRow
from benchkit.report.figures.drawing import (
    PIXELS_PER_INCH,
    chart_files,
    chart_spec,
    is_pixels,
    spec_to_png,
    spec_to_svg,
    svg_files,
)
from benchkit.report.figures.figure_files import grid_svg

SVG = "{http://www.w3.org/2000/svg}"


CHART = json.dumps(
    chart_spec(altair.Chart(altair.Data(values=[{"x": 1, "y": 2}])).mark_point().encode(x="x:Q", y="y:Q"))
)


def picture(seed: int, kind: str = "PNG") -> str:
    out = io.BytesIO()
    Image.fromarray(np.full((16, 32, 3), seed, dtype=np.uint8)).save(out, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


def block(spec: str = "", pictures: tuple[PictureRow, ...] = ()) -> FigureBlock:
    return FigureBlock(
        number=1, name="f", plugin="f", title="t", caption="c", alt_text='says "<b>"', spec=spec, print_source="",
        columns=("input", "<script>"), pictures=pictures, data=(),
    )  # fmt: skip


GRID = block(
    pictures=(
        PictureRow(caption="a <b> & c\x1b", sources=(picture(200), picture(20, "JPEG"))),
        PictureRow(caption="second", sources=(picture(90),)),
    )
)


def test_a_chart_becomes_three_files() -> None:
    files = chart_files(CHART, spec_to_svg(json.loads(CHART)))
    assert list(files) == [".svg", ".pdf", ".png"]
    assert ElementTree.fromstring(files[".svg"]).tag == f"{SVG}svg"
    assert b"currentColor" not in files[".svg"]
    assert len(pypdf.PdfReader(io.BytesIO(files[".pdf"])).pages) == 1
    assert Image.open(io.BytesIO(files[".png"])).convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_a_chart_that_is_drawn_already_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = altair.Chart(altair.Data(values=[{"x": 1, "y": 2}, {"x": 3, "y": 5}])).mark_bar(color="#1E78B4")
    spec = chart_spec(marks.encode(x="x:Q", y="y:Q"))
    picture = spec_to_svg(spec)
    by_vega = Image.open(io.BytesIO(spec_to_png(spec))).convert("RGB")
    for name in ("vegalite_to_svg", "vegalite_to_png", "vegalite_to_pdf"):
        monkeypatch.setattr(vl_convert, name, None)
    files = chart_files(json.dumps(spec), picture)
    assert files[".svg"].decode() == picture
    drawn = Image.open(io.BytesIO(files[".png"])).convert("RGB")
    # What takes the page's colour is ink, #1f2328, as in the SVG; Vega alone makes it black.
    assert drawn.size == by_vega.size and np.abs(np.asarray(drawn, int) - np.asarray(by_vega, int)).max() <= 0x28
    printed = pypdf.PdfReader(io.BytesIO(files[".pdf"])).pages[0]
    assert printed.mediabox.width == pytest.approx(drawn.width * 96 / PIXELS_PER_INCH, abs=1)
    assert "5" in printed.extract_text()


def test_a_chart_with_shaped_letters_keeps_them_in_its_files() -> None:
    labels = altair.Data(values=[{"x": 1, "y": "\u0645\u0631\u062d\u0628\u0627"}])
    spec = chart_spec(altair.Chart(labels).mark_point().encode(x="x:Q", y="y:N"))
    picture = spec_to_svg(spec)
    assert is_pixels(picture) and not is_pixels(spec_to_svg(json.loads(CHART)))
    printed = pypdf.PdfReader(io.BytesIO(chart_files(json.dumps(spec), picture)[".pdf"])).pages[0]
    assert len(printed.images) == 0 and "0.0" in printed.extract_text()  # text, not pixels


def test_an_image_grid_becomes_three_files() -> None:
    files = svg_files(grid_svg(GRID))
    root = ElementTree.fromstring(files[".svg"])
    assert [image.attrib["href"][:15] for image in root.iter(f"{SVG}image")] == [
        "data:image/png;", "data:image/jpeg", "data:image/png;",
    ]  # fmt: skip
    assert [text.text for text in root.iter(f"{SVG}text")] == ["input", "<script>", "a <b> & c", "second"]
    assert root.attrib["aria-label"] == 'says "<b>"'
    printed = pypdf.PdfReader(io.BytesIO(files[".pdf"])).pages[0]
    assert "second" in printed.extract_text() and len(printed.images) >= 3
    drawn = Image.open(io.BytesIO(files[".png"])).convert("RGB")
    assert drawn.width == pytest.approx(640 / 96 * 200, abs=1)  # 640 CSS pixels at 200 pixels an inch
    assert drawn.getpixel((0, 0)) == (255, 255, 255)
    colours = {count_colour[1] for count_colour in drawn.getcolors(1 << 20) or [] if count_colour[0] > 2000}
    assert {(200, 200, 200), (20, 20, 20), (90, 90, 90)} <= colours


def test_the_same_figure_gives_the_same_bytes() -> None:
    first, second = svg_files(grid_svg(GRID)), svg_files(grid_svg(GRID))
    assert first[".svg"] == second[".svg"]
    assert first[".png"] == second[".png"]


def test_a_caption_with_half_a_character_becomes_files_without_it() -> None:
    """A file's name that is no text holds lone surrogates, which no file in UTF-8 can."""
    files = svg_files(grid_svg(block(pictures=(PictureRow(caption="a\udc80b", sources=(picture(9),)),))))
    texts = [text.text for text in ElementTree.fromstring(files[".svg"]).iter(f"{SVG}text")]
    assert texts[-1] == "ab"


def test_a_picture_that_is_none_is_told() -> None:
    with pytest.raises(ReportError, match="cannot be read"):
        grid_svg(block(pictures=(PictureRow(caption="x", sources=("data:image/png;base64,AAAA",)),)))


def test_a_picture_of_too_many_pixels_is_refused() -> None:
    # At 200 pixels an inch of 96 CSS pixels, 60 million pixels are 13.8 million CSS pixels.
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{}">'
    with pytest.raises(ReportError, match=r"of 640 x 30,000 CSS pixels is too large for a PNG \(at most 13.8 million"):
        svg_files(head.format(640, 30000) + "</svg>")
    assert svg_files(head.format(640, 100) + '<rect width="9" height="9"/></svg>')[".png"].startswith(b"\x89PNG")
