"""Own templates: what they may replace, what is wrong with them, and the page that documents what they see."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchkit.cli import main
from benchkit.errors import ReportError
from benchkit.report.context.blocks import Paragraph, ReportContext, Section
from benchkit.report.files.html import (
    check_templates,
    context_classes,
    describe_context,
    render_html,
    render_print,
    template_folder,
    template_names,
)

REPORT = ReportContext(
    title="{{ 7 * 7 }}{% include 'cover.html.j2' %}", question="q", description="", authors="", study_name="s",
    generator="g", dated="", banners=(), answer=(), facts=(),
    sections=(Section(number=1, name="n", title="<b>", blocks=(Paragraph(text="words"),)),),
)  # fmt: skip


def own(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_a_partial_and_a_style_sheet_are_replaced(tmp_path: Path) -> None:
    own(tmp_path, cover__html__j2="<h1>Ours: {{ report.title }}</h1>", own__css="h1 { color: #123456 }")
    check_templates(tmp_path)
    for page in (render_html(REPORT, tmp_path), render_print(REPORT, tmp_path)):
        assert "<h1>Ours: {{ 7 * 7 }}{% include &#39;cover.html.j2&#39; %}</h1>" in page  # data are no templates
        assert "h1 { color: #123456 }" in page
        assert "Short answer" not in page
        assert "<p>words</p>" in page
    assert "Short answer" in render_html(REPORT)


def test_shipped_templates_can_be_extended(tmp_path: Path) -> None:
    own(
        tmp_path,
        report__html__j2='{% extends "shipped/report.html.j2" %}{% block cover %}'
        "<p>Own cover</p>{{ super() }}{% endblock %}",
        blocks__html__j2='{% import "shipped/blocks.html.j2" as shipped %}{% macro draw(block, medium) %}'
        '<div class="own">{{ shipped.draw(block, medium) }}</div>{% endmacro %}'
        "{% macro lists(report) %}{{ shipped.lists(report) }}{% endmacro %}",
    )
    page = render_html(REPORT, tmp_path)
    assert "<p>Own cover</p>" in page and "Short answer" in page
    assert '<div class="own"><p>words</p></div>' in page


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    own(tmp_path, covr__html__j2="", report__html__j2="{% if %}", screen__css="</style>", __hidden="")
    (tmp_path / "print.css").write_bytes(b"\xff")
    with pytest.raises(ReportError) as caught:
        check_templates(tmp_path)
    found = "\n".join(caught.value.problems)
    assert "covr.html.j2: no file of the report has this name (did you mean 'cover.html.j2'?)" in found
    assert "report.html.j2, line 1: Expected an expression" in found
    assert "screen.css: holds </style>" in found
    assert "print.css: cannot be read" in found
    assert len(caught.value.problems) == 4
    with pytest.raises(ReportError, match="no such folder"):
        check_templates(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\n\n{{ report.titel }}", "line 3"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("\n{{ report.title.__class__.__mro__ }}", "SecurityError"),
        ('{% include "/etc/passwd" %}', "TemplateNotFound"),
    ],
)
def test_a_template_that_fails_is_named_with_its_line(text: str, problem: str, tmp_path: Path) -> None:
    own(tmp_path, cover__html__j2=text)
    with pytest.raises(ReportError) as caught:
        render_html(REPORT, tmp_path)
    assert f"{tmp_path / 'cover.html.j2'}, line {text.count(chr(10)) + 1}" in caught.value.what
    assert problem in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_page_of_fields_is_what_the_code_says() -> None:
    page = (template_folder() / "report" / "README.md").read_text(encoding="utf-8")
    assert page == describe_context(), "run: benchkit templates describe > templates/report/README.md"
    for found in context_classes():
        chapter = page.partition(f"\n## {found.__name__}\n")[2].partition("\n## ")[0]
        for field in dataclasses.fields(found):
            assert f"| `{field.name}` |" in chapter, f"{found.__name__}.{field.name}"
    assert {"ReportContext", "Page", "FigureBlock", "Cell", "Logo"} <= {found.__name__ for found in context_classes()}


def test_templates_are_listed_copied_and_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["templates", "list"]) == 0
    assert capsys.readouterr().out.split() == [*template_names(), "container", "kubernetes", "slurm"]
    assert main(["templates", "copy", "cover.html.j2", str(tmp_path / "own")]) == 0
    check_templates(tmp_path / "own")
    assert main(["templates", "copy", "cover.html.j2", str(tmp_path / "own")]) == 2
    assert main(["templates", "copy", "cover.html", str(tmp_path)]) == 2
    assert "did you mean 'cover.html.j2'?" in capsys.readouterr().err
    assert main(["templates", "describe"]) == 0
    assert capsys.readouterr().out == describe_context()
