"""The logo of a report: what is refused, and what is left of a hostile one."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
import vl_convert
from PIL import Image

from benchkit.errors import StudyError
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.report.context.compose import logo_of
from benchkit.study.checks import check_plan
from benchkit.study.logo import KEPT_PIXELS, MOST_BYTES, logo_path, read_logo
from benchkit.study.studyfile import parse_study, read_study

HOSTILE = """<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://example.org/svg11.dtd">
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9" onload="alert(1)">
<script>alert(1)</script><style>@import url(http://example.org/a.css);</style><style>.a { fill: red }</style>
<image xlink:href="file:///etc/passwd"/><a xlink:href="javascript:alert(1)"><rect width="1"/></a>
<foreignObject><p xmlns="http://www.w3.org/1999/xhtml">x</p></foreignObject><animate attributeName="href"/>
<rect id="r" class="a" width="9" height="9" fill="url(#g)" stroke="url(http://example.org/x)"
 style="background: url(&quot;http://example.org&quot;)" onclick="alert(1)"/>
<g id="two"><use href="#r"/><use xlink:href="#r"/></g><use href="#two"/><use href="http://example.org/x.svg#y"/>
<text>A &lt;b&gt;</text></svg>"""
STUDY = """title = "t"
[data]
name = "digits"
[model]
name = "resnet"
n = 1
[train]
epochs = 1
batch_size = 8
optimizer = { name = "sgd", lr = 0.1 }
[report]
logo = "LOGO"
"""


def test_a_hostile_drawing_keeps_only_what_draws(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text(HOSTILE)
    found = read_logo(tmp_path / "a.svg")
    text = found.content.decode()
    assert found.media_type == "image/svg+xml"
    for word in ("script", "alert", "http://example", "passwd", "foreign", "image", "animate", "DOCTYPE", "onload"):
        assert word not in text.replace('xmlns="http://www.w3.org/2000/svg"', ""), word
    root = ElementTree.fromstring(text)
    assert [element.tag.rpartition("}")[2] for element in root.iter()] == [
        "svg", "style", "style", "rect", "g", "use", "use", "text",
    ]  # fmt: skip
    assert {name: root.get(name) for name in ("viewBox", "width", "height")} == {
        "viewBox": "0 0 9 9", "width": "450", "height": "450",
    }  # fmt: skip
    assert root.find("{*}rect").attrib == {"id": "r", "class": "a", "width": "9", "height": "9", "fill": "url(#g)"}  # type: ignore[union-attr]
    assert root.find("{*}text").text == "A <b>"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.svg", b'<!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg">&a;</svg>', "entities"),
        ("a.svg", b"<svg", "not an SVG"),
        ("a.svg", b"<svg/>", "has no size"),
        ("a.svg", b'<svg viewBox="0 0 1e9 1"/>', "has no size"),
        ("a.svg", b"<html/>", "outermost element is 'html'"),
        ("a.svg", "<svg/>".encode("utf-16"), "not an SVG"),
        ("a.svg", b"<svg>" + b"<g>" * 60 + b"</g>" * 60 + b"</svg>", "deep"),
        ("a.png", b"<svg/>", "not a picture in PNG or JPEG"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "not a picture in PNG or JPEG"),
        ("a.jpg", b"x" * (MOST_BYTES + 1), "expected at most"),
    ],
)
def test_what_is_no_picture_is_refused(name: str, content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StudyError, match=problem):
        read_logo(tmp_path / name)


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "CMYK")])
def test_pixels_are_written_anew_and_smaller(kind: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    Image.new(mode, (2000, 100)).save(path, kind)
    with path.open("ab") as file:
        file.write(b"<script>alert(1)</script>")
    found = read_logo(path)
    assert found.media_type == f"image/{kind.lower()}"
    assert b"script" not in found.content
    assert Image.open(io.BytesIO(found.content)).size == (KEPT_PIXELS[0], 45)


GRADIENT = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 10"><linearGradient id="g"><stop offset="0" '
    'stop-color="#ff0000"/><stop offset="1" stop-color="#0000ff"/></linearGradient>'
    '<rect width="20" height="10" fill="url(#g)"/></svg>'
)


def test_a_drawing_with_gradients_is_pixels_in_print(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text(GRADIENT)
    study = parse_study(STUDY.replace("LOGO", "a.svg"), name="s", path=tmp_path / "s.toml")
    logo = logo_of(study, [])
    assert logo is not None and logo.source.startswith("data:image/svg+xml;base64,")
    kind, _, content = logo.print_source.partition(",")
    assert kind == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")
    assert picture.size == (900, 450)
    red, _, blue = picture.getpixel((5, 200))  # type: ignore[misc]
    assert red > 245 and blue < 10


@pytest.mark.parametrize("written", ["/etc/x.png", "../x.png", "a/../../x.svg", "x.gif", "", 3])
def test_only_pictures_beside_the_study_are_taken(written: object, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="expected"):
        logo_path(written, tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "x.png").write_bytes(b"")
    (tmp_path / "study" / "x.png").symlink_to(tmp_path / "x.png")
    with pytest.raises(StudyError, match="within the study file's folder"):
        logo_path("x.png", tmp_path / "study")


def test_a_missing_logo_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(STUDY.replace("LOGO", "logo.png"))
    study = read_study(tmp_path / "s.toml")
    assert study.report.logo == (tmp_path / "logo.png").resolve()
    with pytest.raises(StudyError) as caught:
        check_plan(make_plan(study), Registry.installed())
    assert caught.value.problems == (f"report.logo: {study.report.logo} cannot be read: No such file or directory",)
    Image.new("RGB", (9, 9)).save(tmp_path / "logo.png")
    check_plan(make_plan(study), Registry.installed())


def test_a_study_says_what_is_wrong_with_its_front_matter(tmp_path: Path) -> None:
    wrong = 'logo = "../x.png"\nauthors = [" "]\nkeywords = "a"\nabstrakt = ""\n'
    (tmp_path / "s.toml").write_text(STUDY.replace('logo = "LOGO"\n', wrong))
    with pytest.raises(StudyError) as caught:
        read_study(tmp_path / "s.toml")
    found = "\n".join(caught.value.problems)
    assert "report.logo: got '../x.png'" in found
    assert "report.keywords: got 'a', expected a list" in found
    assert "report.abstrakt: unknown key (did you mean 'abstract'?)" in found


def test_a_logo_that_cannot_be_drawn_is_told_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: str) -> bytes:
        raise RuntimeError("unexpected end of stream\n\nStack backtrace:\n   0: <unknown>")

    monkeypatch.setattr(vl_convert, "svg_to_png", failing)
    (tmp_path / "a.svg").write_text(GRADIENT)
    problems: list[str] = []
    assert logo_of(parse_study(STUDY.replace("LOGO", "a.svg"), name="s", path=tmp_path / "s.toml"), problems) is None
    assert problems == ["report.logo: the logo cannot be drawn: unexpected end of stream; the report is without it"]
