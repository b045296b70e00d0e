"""The author's own text: read from the study file or a file beside it, and shown without anything that acts."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchkit.report.markdown import plain_text, rendered
from benchkit.study.author_text import MOST_LETTERS, by_place, read_author_text
from benchkit.study.tree import Problems


class Elements(HTMLParser):
    """The elements of some HTML, with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(written: object, folder: Path | None = None) -> tuple[dict[str, str], list[str]]:
    problems = Problems()
    return read_author_text(written, problems, folder), problems.lines


def test_markdown_becomes_html_below_the_headings_of_the_report() -> None:
    page = rendered(
        "# Data\n\nTwo *words* and a [link](https://example.org).\n\n## Part\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    assert "<h3>Data</h3>" in page and "<h4>Part</h4>" in page
    assert "<em>words</em>" in page and "<td>2</td>" in page
    assert '<a href="https://example.org" rel="noreferrer">link</a>' in page


@pytest.mark.parametrize("source", [
    "<script>alert(1)</script>", "<b onclick=x>", "a <img src=x onerror=y> b", "[x](javascript:alert(1))",
    "![picture](https://example.org/a.png)", "[x](data:text/html;base64,AAAA)", "<javascript:alert(1)>",
    "[x](JaVaScRiPt:a)", "[a]: file:///etc/passwd\n\n[a]",
])  # fmt: skip
def test_nothing_of_the_text_can_act_or_load(source: str) -> None:
    for tag, attributes in Elements(rendered(source)).found:
        assert tag in ("p", "a", "em", "strong")
        assert set(attributes) <= {"href", "rel"}
        assert str(attributes.get("href", "http")).startswith(("http", "mailto:"))


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab <>&\"'()[]!*_`#|-\n\\:/jshtp", max_size=80))
def test_any_text_gives_elements_of_text_alone(source: str) -> None:
    allowed = set("p a em strong code pre ul ol li h3 h4 h5 h6 hr br blockquote table thead tbody tr th td".split())
    for tag, attributes in Elements(rendered(source)).found:
        assert tag in allowed
        assert set(attributes) <= {"href", "rel", "title", "start", "class", "style"}
        assert str(attributes.get("href", "#")).startswith(("http", "mailto:", "#"))


def test_plain_text_has_the_words_without_their_marks() -> None:
    assert plain_text("# Data\n\nTwo *words*,\nand `code`.\n\n- one\n- [two](https://a.b)\n") == (
        "Data\nTwo words, and code.\none\ntwo"
    )


def test_texts_are_read_by_place_in_the_order_of_the_report() -> None:
    found, problems = read({"limitations": " one set ", "introduction": "why", "results": "  "})
    assert (list(found.items()), problems) == ([("introduction", "why"), ("limitations", "one set")], [])


def test_what_is_wrong_with_texts_is_told() -> None:
    found, problems = read({"limitation": "x", "results": 3, "method": "x" * (MOST_LETTERS + 1)})
    assert found == {}
    assert len(problems) == 3
    assert "did you mean" in problems[0] and "limitations" in problems[0]
    assert "expected text" in problems[1] and f"at most {MOST_LETTERS:,}" in problems[2]
    assert "expected a table of text" in read(3)[1][0]


def test_a_file_beside_the_study_gives_each_place_its_part(tmp_path: Path) -> None:
    text = "\n# Limitations\n\nOne set.\n\n```\n# results\n```\n\n## Seeds\n\nThree.\n\n# Discussion #\nLong.\n"
    (tmp_path / "study.md").write_text(text)
    found, problems = read("study.md", tmp_path)
    assert problems == []
    assert found == {
        "discussion": "Long.",
        "limitations": "One set.\n\n```\n# results\n```\n\n## Seeds\n\nThree.",
    }


@pytest.mark.parametrize(("text", "told"), [
    ("words\n# results\n", "before the first heading"), ("# results\na\n# Results\nb", "stands twice"),
    ("# Conclusions\n", "conclusion"),
])  # fmt: skip
def test_headings_of_a_file_that_name_no_place_are_told(text: str, told: str) -> None:
    problems = Problems()
    by_place(text, problems)
    assert len(problems) == 1 and told in problems.lines[0]


def test_only_a_markdown_file_of_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out.md").write_text("# results\nsecret")
    for name in ("../out.md", str(tmp_path / "out.md"), "study.toml"):
        assert "beside the study file" in read(name, tmp_path / "in")[1][0]
    assert "cannot be read" in read("none.md", tmp_path)[1][0]
    (tmp_path / "bad.md").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in read("bad.md", tmp_path)[1][0]
    assert "beside the study file" in read("out.md", None)[1][0]
