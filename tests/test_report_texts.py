"""Any text of a study, a failure, a file or a class: formats lay it out or write its code, and it reads right."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import altair as alt
import pypdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_results import complete, unfinished

from benchkit.analysis.summary import summarize
from benchkit.capsule import read_capsule
from benchkit.capsule.reading import results_of
from benchkit.registry import Registry
from benchkit.report.context.blocks import CodeBlock, Fact, FactsBlock, Paragraph, ReportContext, Section, table_block
from benchkit.report.context.compose import compose, settings_in_words
from benchkit.report.context.sections import models_used
from benchkit.report.figures.drawing import chart_spec, spec_to_svg
from benchkit.report.files.exports import encoded, table_files, to_json
from benchkit.report.files.html import font_files, render_print
from benchkit.report.files.pdf import Limits, render_pdf
from benchkit.report.page_text import PIECE, printable, private_results, shown
from benchkit.report.tables.table import Column, Table, label, table_layout
from benchkit.report.write import write_report
from benchkit.verify.opening import open_report
from benchkit.verify.recomputed import recomputed_checks

TEXTS = st.text(st.characters(), max_size=60) | st.text(
    st.sampled_from(
        [
            *"a1 .\n\t\r<>&-",
            *"\x00\x07\x1b\x7f\x85\u2028\ufffe",
            *"\u202e\u0301\u05d0\u0627\u0915\u4e2d\ud83d\U0001f600\u201c\u201d",
        ]
    ),
    max_size=60,
)
NASTY = (
    "first line\nsecond line",
    "tab\tand\vvertical\fform\rreturn",
    "bell\x07 escape\x1b[31m nul\x00 delete\x7f",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u05d0\u05d1\u05d2\u05d3",
    "\u0633\u0644\u0627\u0645 12",
    "\u202eevil\u202c",
    "\u4e2d\u6587 \ud55c\uad6d\uc5b4 \u0e20\u0e32\u0e29\u0e32 \u0939\u093f\u0928\u094d\u0926\u0940",
    "e\u0301 Z\u0351\u036b\u0343\u0363A\u0328\u0330",
    "surrogate \udc80",
    "\ufffe\uffff\ufeff\u2028\u2029",
)


def page_of(*blocks: object) -> ReportContext:
    part = Section(number=1, name="part", title="Part", blocks=tuple(blocks))  # type: ignore[arg-type]
    return ReportContext(
        title="t", question="", description="", authors="", study_name="s", generator="benchkit", dated="", banners=(),
        answer=(), facts=(), sections=(part,),
    )  # fmt: skip


def table_of(*texts: str) -> Table:
    columns = (Column(key="name", heading="Name", align="left"), Column(key="number", heading="Number"))
    return Table(columns=columns, rows=tuple((label(text), label("1")) for text in texts))


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_a_page_holds_every_text_whole(text: str) -> None:
    markup = str(shown(text))
    assert html.unescape(re.sub(r"</?(bdi|span)>", "", markup)) == printable(text)
    markup.encode()
    ElementTree.fromstring(f"<p>{markup}</p>")  # XML holds fewer characters than HTML
    assert printable("plain \u05d0 \U0001f600 \u0301\n\t") == "plain \u05d0 \U0001f600 \u0301\n\t"
    assert printable("\x07\x00\udc80\uffff") == r"\x07\x00\udc80\uffff"


@given(st.lists(TEXTS, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_tables_of_any_text_are_laid_out_and_written(texts: list[str]) -> None:
    table = table_of(*texts)
    assert sum(table_layout(table).widths) == pytest.approx(169.5, abs=0.1)
    block = replace(table_block("x", texts[0], texts[-1], table), number=1)
    files = table_files(page_of(block))
    rows = list(csv.reader(io.StringIO(files["tables/01-x.csv"], newline="")))
    assert [row[0].removeprefix("'") for row in rows[1:]] == [text.removeprefix("'") for text in texts]
    assert files["tables/01-x.md"].count("\n|") == len(texts) + 2
    for text in files.values():
        encoded(text).decode()
    whole = [text for text in texts if not any("\ud800" <= letter <= "\udfff" for letter in text)]
    assert json.loads(encoded(to_json({"texts": whole})))["texts"] == whole


def test_a_pdf_of_any_text_is_made(tmp_path: Path) -> None:
    chart = (
        alt.Chart(alt.InlineData(values=[{"x": text, "y": 1} for text in NASTY])).mark_bar().encode(y="x:N", x="y:Q")
    )
    svg = spec_to_svg(chart_spec(chart, description=NASTY[0])).encode()
    blocks = [Paragraph(text=text) for text in NASTY]
    table = replace(table_block("x", "t", NASTY[0], table_of(*NASTY)), number=1)
    page = page_of(*blocks, table, CodeBlock(title=NASTY[0], text="\n".join(NASTY)))
    html_text = render_print(page).replace("</main>", '<img src="fig:chart.svg" alt="x"></main>')
    content = render_pdf(html_text, {**font_files(), "fig:chart.svg": svg}, notes=[])
    text = "".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages)
    assert r"bell\x07 escape\x1b[31m nul\x00 delete\x7f" in text
    assert r"surrogate \udc80" in text


def test_a_failure_with_a_line_break_is_in_the_pdf(tmp_path: Path) -> None:
    results = unfinished(tmp_path / "trials")
    trials = tuple(
        replace(trial, outcome=replace(trial.outcome, reason=NASTY[0] + NASTY[2])) if trial.outcome else trial
        for trial in results.trials
    )
    written = write_report(replace(results, trials=trials), tmp_path, "pdf", registry=Registry.installed())
    assert written.error is None
    text = "".join(page.extract_text() for page in pypdf.PdfReader(tmp_path / "synthetic-norms.pdf").pages)
    assert re.search(r"first line\s+second\s+line\s*bell\\x07", text)


def test_names_from_right_to_left_keep_the_number_after_their_quotes() -> None:
    assert shown("“\u05d0\u05d1” 157.7 & “bn”") == "“<bdi>\u05d0\u05d1</bdi>” 157.7 &amp; “bn”"
    assert shown("“\u05d0\u05d1 12” 3") == "“<bdi>\u05d0\u05d1 12</bdi>” 3"
    assert shown("best: \u05d0\u05d1 \u05d2, 7") == "best: <bdi>\u05d0\u05d1 \u05d2</bdi>, 7"
    content = render_pdf(render_print(page_of(Paragraph(text="“\u05d0\u05d1\u05d2” 157.7 rest"))), font_files())
    text = pypdf.PdfReader(io.BytesIO(content)).pages[-1].extract_text()
    assert re.search("\u201c.*\u201d\\s*157\\.7 rest", text)


def test_charts_with_shaped_text_are_drawn_by_what_can_shape_it() -> None:
    """The printer draws text in SVG letter by letter: Hebrew is mirrored, Arabic letters are not joined."""

    def drawn(name: str) -> str:
        chart = alt.Chart(alt.InlineData(values=[{"x": name}])).mark_text(limit=0).encode(text="x:N")
        return spec_to_svg(chart_spec(chart))

    assert "<text" in drawn("plain \u4e2d \u00e9") and "<image" not in drawn("plain")
    for name in ("\u05d0\u05d1\u05d2", "\u0633\u0644\u0627\u0645", "\u0939\u093f\u0928\u094d\u0926\u0940", "e\u0301"):
        svg = drawn(name)
        assert "<text" not in svg and 'href="data:image/png;base64,' in svg


def test_long_text_is_cut_into_pieces_so_that_printing_it_is_linear() -> None:
    for count in (10, 100, 1000):
        names = ", ".join(f"Common_name_of_a_species_that_is_somewhat_long_number_{n:04d}__" for n in range(count))
        pieces = re.findall("<span>(.*?)</span>", str(shown(names))) or [names]
        assert "".join(pieces) == names
        assert max(map(len, pieces)) <= PIECE
        assert len(pieces) <= len(names) / PIECE * 1.1 + 1
    assert max(map(len, re.findall("<span>(.*?)</span>", str(shown("x" * 10_000))))) == 10_000  # a word stays whole


@pytest.mark.slow
def test_a_thousand_class_names_of_sixty_letters_are_printed() -> None:
    names = ", ".join(f"Common_name_of_a_species_that_is_somewhat_long_number_{n:04d}__" for n in range(1000))
    page = page_of(
        FactsBlock(title="Data", facts=(Fact(name="class names", value=names), Fact(name="train", value="3"))),
        Paragraph(text=names),
        CodeBlock(title="Study", text=names.replace(", ", "\n")),
    )
    content = render_pdf(render_print(page), font_files(), limits=Limits(seconds=120))
    text = "".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages)
    assert len(re.findall(r"number_\s*\d{4}", text)) == 3000


def test_characters_without_a_font_are_named() -> None:
    notes: list[str] = []
    page = page_of(Paragraph(text="known \u00e9, unknown \U000f1234 and \U000f1235"))
    content = render_pdf(render_print(page), font_files(), notes=notes)
    assert "unknown [U+F1234] and [U+F1235]" in pypdf.PdfReader(io.BytesIO(content)).pages[-1].extract_text()
    (line,) = notes
    assert "the code of 2 characters" in line and "U+F1234" in line and "U+F1235" in line and "fonts-noto" in line
    render_pdf(render_print(page_of(Paragraph(text="known"))), font_files(), notes=notes)
    assert len(notes) == 1


@pytest.mark.slow
def test_an_honest_pdf_holds_whatever_its_fonts_lack(tmp_path: Path) -> None:
    labels = ("bn \U0001f600\U000f1234", "\u05d0\u05d1\u05d2\u05d3", "\ud55c\uad6d\uc5b4 \u0e20\u0e32", "bell")
    results = complete(tmp_path / "trials", labels, repeats=2, epochs=3)
    written = write_report(results, tmp_path, "pdf", registry=Registry.installed())
    assert written.error is None and "the code of" in written.notes[0]
    report = open_report(tmp_path / "synthetic-norms.pdf")
    capsule = read_capsule(report.capsule)
    studies = [results_of(capsule, 0, tmp_path / "again")]
    checks = list(recomputed_checks(report, capsule, studies))
    assert {check.name: check.state for check in checks} == {"numbers": "holds", "sentences": "holds"}, checks
    forged = replace(report, text=report.text.replace("7", "9"))
    assert "fails" in {check.state for check in recomputed_checks(forged, capsule, studies)}


def test_the_first_page_names_what_was_trained(tmp_path: Path) -> None:
    results = complete(tmp_path / "trials", ("bn", "gn"), repeats=2, epochs=2)
    base = {**results.study.settings, "model": {"name": "nobody-trained-this"}}
    models = iter(("timm:first", "timm:second"))
    conditions = tuple(
        replace(one, settings={**one.settings, "model": {"name": next(models)}}) for one in results.conditions
    )
    given = replace(results, study=replace(results.study, settings=base), conditions=conditions)
    facts = {fact.name: fact.value for fact in compose(given, summarize(results)).facts}
    assert facts["Model"] == "timm:first and timm:second"
    assert facts["Data"] == "digits"


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"weights": ""}, {"weights": "hub"}, "timm:net (n = 2)"),
        ({"weights": "hub"}, {"weights": "hub"}, "timm:net (n = 2, weights = hub)"),
        ({"weights": ""}, {"weights": ""}, "timm:net (n = 2)"),
        ({}, {"weights": "hub"}, "timm:net (n = 2)"),
    ],
)
def test_the_first_page_names_a_model_with_options_that_all_conditions_share(
    tmp_path: Path, first: dict[str, str], second: dict[str, str], told: str
) -> None:
    results = complete(tmp_path / "trials", ("bn", "gn"), repeats=1, epochs=1)
    options = iter((first, second))
    conditions = tuple(
        replace(one, settings={**one.settings, "model": {"name": "timm:net", "n": 2, **next(options)}})
        for one in results.conditions
    )
    assert models_used(replace(results, conditions=conditions)) == [told]


def test_names_of_classes_are_printable_before_anything_is_made_of_them(tmp_path: Path) -> None:
    results = replace(complete(tmp_path, ("bn",), repeats=1, epochs=2), class_names=("a\udc80", "b\x07"))
    assert private_results(results).class_names == (r"a\udc80", r"b\x07")


def test_options_are_settings_in_prose() -> None:
    told = settings_in_words("In small: --set data.n=5000 --set a.b=x:y\n--set train.epochs=12. Or --set c=0.5, too.")
    assert told == "In small: data.n = 5000, a.b = x:y,\ntrain.epochs = 12. Or c = 0.5, too."
