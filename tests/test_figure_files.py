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
from PIL import Image

from benchkit.errors import ReportError
from benchkit.report.context.blocks import FigureBlock, PictureRow
from benchkit.report.figures.drawing import chart_spec
from benchkit.report.figures.figure_files import figure_files, grid_svg

SVG = "{http://www.w3.org/2000/svg}"


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
    chart = altair.Chart(altair.Data(values=[{"x": 1, "y": 2}])).mark_point().encode(x="x:Q", y="y:Q")
    files = figure_files(block(json.dumps(chart_spec(chart))))
    assert list(files) == [".svg", ".pdf", ".png"]
    assert ElementTree.fromstring(files[".svg"]).tag == f"{SVG}svg"
    assert b"currentColor" not in files[".svg"]
    assert len(pypdf.PdfReader(io.BytesIO(files[".pdf"])).pages) == 1
    assert Image.open(io.BytesIO(files[".png"])).convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_an_image_grid_becomes_three_files() -> None:
    files = figure_files(GRID)
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
    first, second = figure_files(GRID), figure_files(GRID)
    assert first[".svg"] == second[".svg"]
    assert first[".png"] == second[".png"]


def test_a_picture_that_is_none_is_told() -> None:
    with pytest.raises(ReportError, match="cannot be read"):
        grid_svg(block(pictures=(PictureRow(caption="x", sources=("data:image/png;base64,AAAA",)),)))
