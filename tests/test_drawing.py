"""The drawing layer: specs that validate, still pictures that are stable and refer to nothing outside."""

from __future__ import annotations

import bisect
import io
import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import altair as alt
import numpy as np
import pytest
import vl_convert
from benchkit_figures import encodings
from benchkit_figures.classes import confusion_difference, confusion_matrix
from benchkit_figures.encodings import DASHES as PLUGIN_DASHES
from benchkit_figures.training.learning_curves import LearningCurves
from figure_checks import rows_of, validate_spec
from figure_results import NORMS, learned
from PIL import Image

from benchkit.errors import ReportError
from benchkit.report.figures.drawing import (
    DASHES,
    FIGURE_WIDTH,
    INK,
    PALETTE,
    SEQUENTIAL,
    SHAPES,
    VEGA_LITE_VERSION,
    chart_spec,
    condition_scale,
    content_key,
    print_svg,
    spec_to_pdf,
    spec_to_png,
    spec_to_svg,
)
from benchkit.report.files.html import BUNDLE_LICENCE, text_of, vega_bundle


def chart(rows: int = 3, **encodings: Any) -> Any:
    values = [{"x": i, "y": i * i / 7, "k": f"series {i * 2 // rows}"} for i in range(rows)]
    return alt.Chart(alt.InlineData(values=values)).mark_point().encode(x="x:Q", y="y:Q", **encodings)


def luminance(colour: str) -> float:
    """Return WCAG relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_spec_is_valid_transparent_and_names_no_address() -> None:
    spec = chart_spec(chart(color="k:N"), description="three points")
    validate_spec(spec)
    assert spec["background"] is None
    assert spec["description"] == "three points"
    assert "http" not in json.dumps(spec)
    assert spec["config"]["axis"]["labelColor"] == "currentColor"


def test_a_chart_keeps_its_own_configuration() -> None:
    spec = chart_spec(chart().configure_axis(grid=False))
    assert spec["config"]["axis"]["grid"] is False
    assert spec["config"]["axis"]["labelColor"] == "currentColor"


def test_short_data_stay_rows() -> None:
    assert rows_of(chart_spec(chart(3)))[2] == {"x": 2, "y": 4 / 7, "k": "series 1"}


def test_long_series_become_columns_that_vega_spreads_again() -> None:
    spec = chart_spec(chart(400, color="k:N"))
    rows = rows_of(spec)
    assert [row["k"] for row in rows] == ["series 0", "series 1"]
    assert rows[1]["x"] == list(range(200, 400))
    assert rows[0]["y"][3] == pytest.approx(9 / 7, rel=1e-5)
    assert spec["transform"] == [{"flatten": ["x", "y"]}]
    validate_spec(spec)
    assert spec_to_svg(spec).count('aria-roledescription="point"') + spec_to_svg(spec).count("<path") > 400


def test_columns_stand_beside_the_facet_and_not_inside_its_layer() -> None:
    base = alt.Chart().encode(x="x:Q", y="y:Q")
    rows = chart(400).data
    spec = chart_spec(alt.layer(base.mark_line(), base.mark_point(), data=rows).facet("k:N"))
    assert spec["transform"][0]["flatten"] == ["x", "y"]
    assert "transform" not in spec["spec"]
    assert spec_to_svg(spec).startswith("<svg")


def test_non_finite_numbers_are_refused() -> None:
    bad = alt.Chart(alt.InlineData(values=[{"x": float("nan")}])).mark_point().encode(x="x:Q")
    with pytest.raises(ReportError, match="not valid"):
        chart_spec(bad)


def test_data_by_address_are_refused() -> None:
    remote = alt.Chart(alt.UrlData(url="https://example.org/data.json")).mark_point().encode(x="x:Q")
    with pytest.raises(ReportError, match=r"example\.org"):
        chart_spec(remote)


def test_a_spec_that_vega_cannot_draw_is_a_report_error() -> None:
    with pytest.raises(ReportError, match="cannot be drawn"):
        spec_to_svg({"mark": "point", "data": {"values": []}, "transform": [{"filter": "1 +"}]})


def test_svg_is_plain_and_refers_to_nothing_outside() -> None:
    svg = spec_to_svg(chart_spec(chart(color="x:Q")))
    assert "linearGradient" not in svg
    assert "currentColor" not in svg
    assert INK in svg
    assert "aria-label" not in svg
    assert 'font-family="Inter' in svg
    assert set(re.findall(r"https?://[^\"\s]+", svg)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    ElementTree.fromstring(svg)


def test_a_gradient_becomes_strips_in_order() -> None:
    gradient = (
        '<svg><path d="M0,0h10v96h-10Z" fill="url(#gradient_3)" stroke-width="0"/><defs>'
        '<linearGradient id="gradient_3" x1="0" x2="0" y1="1" y2="0"><stop offset="0" stop-color="#000000"/>'
        '<stop offset="1" stop-color="rgb(255, 255, 255)"/></linearGradient></defs></svg>'
    )
    strips = re.findall(
        r'<rect x="0\.00" y="([\d.]+)" width="10\.00" height="([\d.]+)" fill="(#\w+)"', print_svg(gradient)
    )
    assert len(strips) == 48
    # The first strip is at the top, where the offset is 1 - 0.5/48: 255 * 0.98958 = 252.3.
    assert strips[0] == ("0.00", "3.00", "#fcfcfc")
    # The last one ends at 96: 94 + 2, and has 255 * 0.5/48 = 2.66.
    assert strips[-1] == ("94.00", "2.00", "#030303")


def test_outside_references_in_a_picture_are_refused() -> None:
    with pytest.raises(ReportError, match="outside itself"):
        print_svg('<svg><image xlink:href="https://example.org/x.png"/></svg>')


@pytest.mark.parametrize("mark", ["line", "area", "point", "rule", "bar"])
def test_no_place_in_a_picture_is_too_far_for_pdf_viewers(mark: str) -> None:
    rows = [{"x": x, "y": y} for x, y in enumerate((1.0, 4.5e32, 2e7, -3e12, 2.0))]
    y = {"field": "y", "type": "quantitative", "scale": {"domain": [0, 3]}}
    spec = {"data": {"values": rows}, "mark": {"type": mark, "clip": True}, "encoding": {"x": {"field": "x"}, "y": y}}
    svg = spec_to_svg(chart_spec(alt.Chart.from_dict(spec)))
    places = " ".join(re.findall(r' (?:d|transform|x1|x2|y1|y2)="([^"]*)"', svg))
    assert max(abs(float(place)) for place in re.findall(r"-?[\d.]+(?:e[-+]?\d+)?", places)) == 100_000


def test_places_on_the_page_stay_as_they_are() -> None:
    near = '<svg width="9" height="9"><path aria-label="x" d="M99999.123456789,-0.1234567L1.5e-7,12.0000001Z"/></svg>'
    assert print_svg(near) == near.replace(' aria-label="x"', "")


def test_ids_do_not_depend_on_what_was_drawn_before() -> None:
    lines = chart_spec(chart(20).mark_line(clip=True))
    first = spec_to_svg(lines)
    spec_to_svg(chart_spec(chart(5).mark_line(clip=True)))
    assert "clip-path" in first
    assert spec_to_svg(lines) == first


def framed(d: str, group: str = "", frame: str = "") -> str:
    """Return a line as Vega writes it: in a group of its own, between a background and a foreground."""
    return (
        f'<g transform="translate(1,1)"{group}><path class="background" d="M0,0h9v9h-9Z"{frame}/><g>'
        f'<g class="mark-line" clip-path="url(#a)"><path d="{d}" stroke="#767676"/></g></g>'
        '<path class="foreground" d="" display="none"/></g>'
    )


def test_the_lines_of_a_series_stand_in_one_group_without_shapes_that_show_nothing() -> None:
    lines = [framed("M0,0L9,9"), framed("M0,9L9,0")]
    lines += [framed(d, group=' opacity="0.5"') for d in ("M1,1L2,2", "M1,2L2,1")]
    lines += [framed("M3,3L4,4", frame=' fill="#eee"'), framed("M5,5L6,6")]
    clip = '<defs><clipPath id="a"><rect x="0" y="0" width="9" height="9"/></clipPath></defs>'
    body = f'{clip}<g fill="none">{"".join(lines)}</g>'  # Vega's outermost group fills nothing
    raw = f'<svg xmlns="http://www.w3.org/2000/svg" width="11" height="11" viewBox="0 0 11 11">{body}</svg>'
    lean = print_svg(raw)
    assert re.findall(r' d="([^"]*)"', lean) == [
        "M0,0L9,9", "M0,9L9,0", "M1,1L2,2", "M1,2L2,1", "M0,0h9v9h-9Z", "M3,3L4,4", "M5,5L6,6"
    ]  # fmt: skip
    groups = [len(group) for group in ElementTree.fromstring(lean).iter() if group.get("class") == "mark-line"]
    assert groups == [2, 1, 1, 1, 1]  # what is half transparent, or has a ground of its own, stays alone
    before, after = (
        np.asarray(Image.open(io.BytesIO(vl_convert.svg_to_png(one, scale=4))).convert("RGBA"), dtype=int)
        for one in (raw, lean)
    )
    assert before.any() and abs(before - after).max() <= 8  # of 255: layers are blended in whole steps


SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
from figure_checks import rows_of, validate_spec
from figure_results import NORMS, learned
from benchkit_figures.training.learning_curves import LearningCurves
from benchkit.report.figures.drawing import chart_spec, content_key, spec_to_svg
figure = LearningCurves()
spec = chart_spec(figure.draw(figure.data(learned(NORMS[:2], 2, 5))))
print(content_key(json.dumps(spec)))
print(spec_to_svg(spec))
"""


def test_specs_and_pictures_are_the_same_bytes_in_another_process() -> None:
    figure = LearningCurves()
    spec = chart_spec(figure.draw(figure.data(learned(NORMS[:2], 2, 5))))
    script = SCRIPT.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    key, _, svg = done.stdout.partition("\n")
    assert key == content_key(json.dumps(spec))
    assert svg.rstrip("\n") == spec_to_svg(spec)


def test_hover_layers_are_in_html_and_not_in_print() -> None:
    near = alt.selection_point(name="near_point", on="pointerover", nearest=True)
    points = chart().mark_point(size=777).properties(name="hover_points").add_params(near)
    spec = chart_spec(alt.layer(chart().mark_line(), points))
    assert "hover_points" in json.dumps(spec["layer"])
    assert spec["params"][0]["views"] == ["hover_points"]
    assert spec_to_svg(spec) == spec_to_svg(chart_spec(alt.layer(chart().mark_line())))


def test_png_has_the_printed_size_at_200_pixels_an_inch() -> None:
    spec = chart_spec(chart().properties(width=282, height=182, autosize={"type": "fit", "contains": "padding"}))
    svg_width = float(ElementTree.fromstring(spec_to_svg(spec)).attrib["width"])
    picture = Image.open(io.BytesIO(spec_to_png(spec)))
    assert picture.width == pytest.approx(200 / 96 * svg_width, abs=2)
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    "name", ["\N{GRINNING FACE}" * 60, f"{'long ' * 4}\N{GRINNING FACE} name" * 3], ids=["all", "some"]
)
def test_a_long_label_with_an_emoji_is_drawn(name: str) -> None:
    values = [{"x": 1, "k": name}]
    spec = chart_spec(alt.Chart(alt.InlineData(values=values)).mark_point().encode(x="x:Q", y="k:N"))
    assert "mark-symbol" in spec_to_svg(spec)


def test_pdf_is_a_pdf() -> None:
    assert spec_to_pdf(chart_spec(chart())).startswith(b"%PDF")


def test_content_keys_tell_specs_apart() -> None:
    first, second = (json.dumps(chart_spec(chart(points))) for points in (3, 4))
    assert content_key(first) == content_key(json.dumps(chart_spec(chart(3))))
    assert content_key(first) != content_key(second)


def test_altair_writes_for_the_vega_lite_version_that_draws() -> None:
    written = re.match(r"v(\d+\.\d+)", alt.SCHEMA_VERSION)
    assert written is not None
    assert written[1] == VEGA_LITE_VERSION
    assert VEGA_LITE_VERSION in vl_convert.get_vegalite_versions()


def test_the_bundle_is_a_module_with_its_licence_and_an_interpreter() -> None:
    bundle = vega_bundle()
    assert bundle.startswith("/*!\n" + BUNDLE_LICENCE)
    assert "globalThis.drawFigure=" in re.sub(r"\s*=\s*", "=", bundle)
    assert "</script" not in bundle
    assert not re.search(r"^import |^export ", bundle, re.MULTILINE)
    assert re.search(r"ast:\s*(true|!0)", bundle)


DARK_PAGE, DARK_STROKES = (
    dict(
        re.findall(
            rf'\[{kind}="(#\w{{6}})" i\] \{{ {kind}: light-dark\(#\w{{6}}, (#\w{{6}})\)', text_of("interactive.css")
        )
    )
    for kind in ("fill", "stroke")
)


VISIONS = {
    "usual": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}
"""How linear RGB is seen: Machado, Oliveira and Fernandes (2009), severity 1."""


def seen(colour: str, vision: str) -> tuple[float, float, float]:
    """Return CIELAB (D65) of a colour as somebody with a vision sees it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    felt = [min(1.0, max(0.0, float(np.dot(row, linear)))) for row in VISIONS[vision]]
    to_xyz = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.072175), (0.0193339, 0.119192, 0.9503041))
    scaled = [float(np.dot(row, felt)) / white for row, white in zip(to_xyz, (0.95047, 1.0, 1.08883), strict=True)]
    x, y, z = (math.cbrt(t) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in scaled)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_are_told_apart_on_light_and_dark_pages(vision: str) -> None:
    for colours in (PALETTE, [DARK_PAGE[colour] for colour in PALETTE]):
        for first, second in itertools.combinations(colours, 2):
            assert math.dist(seen(first, vision), seen(second, vision)) >= 11, (first, second)


def test_marks_have_contrast_on_light_and_dark_pages() -> None:
    for colour in (*PALETTE, encodings.OTHERS):
        assert contrast(colour, "#ffffff") >= 4.5, colour
        assert contrast(DARK_PAGE[colour], "#12161c") >= 4.5, colour
        assert DARK_STROKES[colour] == DARK_PAGE[colour]


@pytest.mark.parametrize(
    ("colours", "carry_light"),
    [
        (encodings.COLOURS, encodings.COLOURS[-encodings.DARK_STEPS :]),
        (encodings.COLOURS, encodings.COLOURS[bisect.bisect(confusion_matrix.ENDS, confusion_matrix.DARK_FROM) :]),
        (
            confusion_difference.COLOURS,
            [confusion_difference.COLOURS[place] for place in confusion_difference.LIGHT_IN],
        ),
    ],
    ids=["steps", "confusion", "difference"],
)
def test_numbers_on_steps_of_colour_can_be_read(colours: Sequence[str], carry_light: Sequence[str]) -> None:
    for colour in colours:
        ink = encodings.LIGHT if colour in carry_light else encodings.DARK
        assert contrast(ink, colour) >= 4.5, colour
        on_dark = {encodings.LIGHT: "#12161c", encodings.DARK: "#f6f8fb"}[ink]
        assert contrast(on_dark, DARK_PAGE[colour]) >= 4.5, colour
    assert luminance(DARK_PAGE[encodings.COLOURS[0]]) < 0.05  # the least is near the page's colour
    assert set(encodings.COLOURS) == set(SEQUENTIAL)


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_conditions_differ_in_more_than_colour_and_repeat_late() -> None:
    styles = condition_scale([f"condition {i}" for i in range(50)])
    assert len({(style.colour, style.dash) for style in styles.values()}) == 50
    first = list(styles.values())[:7]
    assert len({style.dash for style in first}) == len({style.shape for style in first}) == 7
    assert first[0].colour == PALETTE[0]


def test_plugins_and_report_agree_on_dashes_and_vega_on_the_rest() -> None:
    assert PLUGIN_DASHES == DASHES
    spec = chart_spec(chart())
    assert spec["config"]["range"]["category"] == list(PALETTE)
    assert spec["config"]["range"]["symbol"] == list(SHAPES)
    assert FIGURE_WIDTH / 96 * 25.4 == pytest.approx(169, abs=1)
