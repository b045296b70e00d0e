"""The author's own text: read from the study file or a file beside it, and shown without anything that acts."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_results import complete

from benchkit.analysis.summary import summarize
from benchkit.capsule.making import study_text
from benchkit.errors import StudyError
from benchkit.report.context.blocks import MarkdownBlock, Paragraph, ReportContext
from benchkit.report.context.compose import compose
from benchkit.report.files.html import render_html, render_print
from benchkit.report.page_text import rendered
from benchkit.results import StudyResults
from benchkit.study.origin import MOST_LETTERS, by_place, read_author_text
from benchkit.study.studyfile import parse_study
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


TEXT = {
    "introduction": "Why *this*.",
    "results": "Read [here](https://a.b).",
    "limitations": "One set.",
    "search": "None.",
}


def reported(results: StudyResults, **changed: object) -> ReportContext:
    """Return what a report says without its figures, with other settings of the report."""
    study = replace(results.study, report=replace(results.study.report, **changed))  # type: ignore[arg-type]
    results = replace(results, study=study)
    return compose(results, summarize(results))


def test_the_text_stands_at_its_places(tmp_path: Path) -> None:
    report = reported(complete(tmp_path, ("bn", "gn"), repeats=2, epochs=1), text=TEXT)
    parts = {part.name: part for part in report.sections}
    assert [part.name for part in report.sections][:3] == ["introduction", "findings", "results"]
    assert parts["introduction"].title == "Introduction"
    assert parts["results"].blocks[0] == MarkdownBlock(text=TEXT["results"])
    assert [type(block) for block in parts["limitations"].blocks] == [Paragraph, MarkdownBlock]
    assert parts["search"].blocks == (MarkdownBlock(text="None."),)  # a study without search has no such section
    for page in (render_html(report), render_print(report)):
        assert '<div class="prose"><p>Why <em>this</em>.</p>\n</div>' in page


@pytest.mark.parametrize(("repeats", "words"), [(1, "trained once"), (3, "trained 3 times")])
def test_every_report_says_what_its_numbers_hold_for(tmp_path: Path, repeats: int, words: str) -> None:
    report = reported(complete(tmp_path, ("bn", "gn"), repeats=repeats, epochs=1))
    (limits,) = next(part for part in report.sections if part.name == "limitations").blocks
    assert isinstance(limits, Paragraph)
    assert limits.text.startswith("The numbers hold for digits and resnet; ")
    assert words in limits.text
    assert next(fact.value for fact in report.facts if fact.name == "Model") == "resnet (n = 2)"


def test_few_validation_images_are_a_limit(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn",), repeats=1, epochs=1)

    def limits(images: int) -> str:
        trials = []
        for one in results.trials:
            assert one.outcome is not None
            val = replace(one.outcome.metrics["val"], n=images)
            trials.append(replace(one, outcome=replace(one.outcome, metrics={**one.outcome.metrics, "val": val})))
        report = reported(replace(results, trials=tuple(trials)))
        (text,) = next(part for part in report.sections if part.name == "limitations").blocks
        assert isinstance(text, Paragraph)
        return text.text

    assert limits(11).endswith("by, 11 validation images are few: one is 9.1 points of accuracy.")
    assert "validation" not in limits(100)


def test_the_text_of_a_study_file_is_kept_by_its_capsule(tmp_path: Path) -> None:
    source = complete(tmp_path, ("bn",), repeats=1, epochs=1).study.source
    (tmp_path / "own.md").write_text('# Limitations\nOne "set".\n')
    path = tmp_path / "s.toml"
    study = parse_study(f'{source}\n[report]\ntext = "own.md"\ncarbon = 380\n', name="s", path=path)
    assert (study.report.text, study.report.carbon) == ({"limitations": 'One "set".'}, 380)
    again = parse_study(study_text(study), name="s")
    assert again.report == study.report
    assert "text" not in study_text(parse_study(source, name="s"))
    with pytest.raises(StudyError) as told:
        parse_study(f"{source}\n[report]\ncarbon = -1\n", name="s")
    assert "report.carbon" in told.value.problems[0]


def drawing(results: StudyResults, energy: float) -> StudyResults:
    trials = []
    for trial in results.trials:
        assert trial.outcome is not None and trial.outcome.cost is not None
        cost = replace(trial.outcome.cost, energy=energy)
        trials.append(replace(trial, outcome=replace(trial.outcome, cost=cost)))
    return replace(results, trials=tuple(trials))


def test_energy_and_carbon_are_told_where_they_are_known(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn", "gn"), repeats=2, epochs=1)

    def told(energy: float, **changed: object) -> str:
        cost = next(part for part in reported(drawing(results, energy), **changed).sections if part.name == "cost")
        return next(block.text for block in cost.blocks if isinstance(block, Paragraph))

    assert "kWh" not in told(0.0, carbon=380.0)
    assert told(1.8e6).endswith("The devices of these 4 trials drew 2 kWh.")  # 4 of 0.5 kWh
    assert told(1.8e6, carbon=380.0).endswith("drew 2 kWh, 760 g of CO2 at the 380 g a kWh that the study states.")
