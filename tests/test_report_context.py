"""The contract between context and templates: every field documented, and templates that use only those fields."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest
from jinja2 import nodes
from synthetic_results import complete

from benchkit.analysis.candidates import until_decided_command
from benchkit.analysis.summary import recorded_data, summarize
from benchkit.registry import Registry
from benchkit.report.context import blocks
from benchkit.report.context.blocks import AbsentBlock, Block, Page, Paragraph, ReportContext, Section
from benchkit.report.context.compose import compose
from benchkit.report.context.sections import commands, images_used, names_used
from benchkit.report.figures.figure_set import FigureSet
from benchkit.report.files import html
from benchkit.report.files.html import embedded, environment
from benchkit.report.tables import table
from benchkit.results import Trial

CLASSES = [
    found
    for module in (blocks, table)
    for found in vars(module).values()
    if dataclasses.is_dataclass(found) and isinstance(found, type) and found.__module__ == module.__name__
]
NAMES = sorted(environment().loader.list_templates())  # type: ignore[union-attr]
TEMPLATES = [name for name in NAMES if name.endswith(".j2")]


@pytest.mark.parametrize("found", CLASSES, ids=lambda found: found.__name__)
def test_every_field_has_a_help_text(found: type) -> None:
    for field in dataclasses.fields(found):
        assert field.metadata.get("help"), f"{found.__name__}.{field.name}"


@pytest.mark.parametrize("found", CLASSES, ids=lambda found: found.__name__)
def test_the_context_is_frozen(found: type) -> None:
    assert found.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(found)


def test_templates_use_only_documented_names() -> None:
    known = {field.name for found in CLASSES for field in dataclasses.fields(found)}
    known |= {name for found in CLASSES for name, value in vars(found).items() if isinstance(value, property)}
    macros = {"draw", "lists", "index0", "all", "side", "contents", "records", "chooser", "first", "last", "place"}
    macros |= {"points", "widths", "inline"}  # of the layout that the filter `printed` gives
    for name in TEMPLATES:
        source = environment().loader.get_source(environment(), name)[0]  # type: ignore[union-attr]
        used = {node.attr for node in environment().parse(source).find_all(nodes.Getattr)}
        assert used <= known | macros, f"{name}: {sorted(used - known - macros)}"


def test_templates_escape_and_refuse_unknown_names() -> None:
    assert environment().autoescape is True
    assert environment().undefined is jinja2.StrictUndefined
    known = {"embedded", "join", "length", "lower", "packed", "printed", "prose", "select", "shown", "tojson"}
    for name in TEMPLATES:
        source = environment().loader.get_source(environment(), name)[0]  # type: ignore[union-attr]
        used = {node.name for node in environment().parse(source).find_all(nodes.Filter)}
        assert used <= known, name


def test_every_kind_of_block_is_drawn() -> None:
    source = environment().loader.get_source(environment(), "blocks.html.j2")[0]  # type: ignore[union-attr]
    drawn = {node.value for node in environment().parse(source).find_all(nodes.Const) if isinstance(node.value, str)}
    for block in typing.get_args(Block):
        (kind,) = [field.default for field in dataclasses.fields(block) if field.name == "kind"]
        assert kind in drawn


def test_text_is_escaped_in_both_media() -> None:
    report = ReportContext(
        title="<b>&</b>", question='"><script>', description="", authors="", study_name="s", generator="g", dated="",
        banners=(), answer=("{{ 7 * 7 }}",), facts=(),
        sections=(Section(number=1, name="n", title="{% raw %}", blocks=(Paragraph(text="<img src=x>"),)),),
    )  # fmt: skip
    for text in (html.render_html(report), html.render_print(report)):
        assert "<title>&lt;b&gt;&amp;&lt;/b&gt;</title>" in text
        assert "{{ 7 * 7 }}" in text
        assert "<img src=x>" not in text
        assert "&#34;&gt;&lt;script&gt;" in text


def test_embedded_json_cannot_end_its_element() -> None:
    assert embedded('{"a": "</script><!--\u2028&"}') == '{"a": "\\u003c/script\\u003e\\u003c!--\\u2028\\u0026"}'
    assert {field.name for field in dataclasses.fields(Page)} == {"medium", "policy", "style", "scripts", "templates"}


def test_the_images_used_are_told_beside_those_of_the_whole_set(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn", "gn"), repeats=1, epochs=2)

    def with_train(trial: Trial, n: int) -> Trial:
        assert trial.outcome is not None
        metrics = {**trial.outcome.metrics, "train": dataclasses.replace(trial.outcome.metrics["val"], n=n)}
        return dataclasses.replace(trial, outcome=dataclasses.replace(trial.outcome, metrics=metrics))

    trials = tuple(with_train(trial, n) for trial, n in zip(results.trials, (800, 1600), strict=True))
    first = trials[0].outcome
    assert first is not None
    (fact,) = images_used(dataclasses.replace(results, trials=trials))
    n = {split: f"{first.metrics[split].n:,}" for split in ("val", "test")}  # type: ignore[index]
    assert fact.value == f"train 800 to 1,600, val {n['val']}, test {n['test']}"
    assert images_used(dataclasses.replace(results, trials=())) == ()


@pytest.mark.parametrize(
    ("sweep", "report"),
    [
        ("benchkit sweep s.toml -w ws --jobs 2", "benchkit report synthetic-norms -w ws"),
        ("benchkit sweep s '--workspace=my ws' --plugin a.py --allow-shadow",
         "benchkit report synthetic-norms '--workspace=my ws' --plugin a.py --allow-shadow"),
        ("benchkit sweep s --only norm=gn", "benchkit report synthetic-norms"),
        ("benchkit sweep 'unclosed", "benchkit report synthetic-norms"),
    ],
)  # fmt: skip
def test_a_report_is_made_where_its_sweep_was(tmp_path: Path, sweep: str, report: str) -> None:
    results = replace(complete(tmp_path, ("bn",), repeats=1, epochs=1), command=sweep)
    assert commands(results) == f"{sweep}\n{report}"


def test_options_that_bear_on_no_result_are_not_among_the_commands(tmp_path: Path) -> None:
    given = "benchkit sweep s --watch --jobs 2 --hours 3 --stop-by=8h --json -w ws --lease 30 --until-decided --profile"
    results = replace(complete(tmp_path, ("bn",), repeats=1, epochs=1), command=given)
    sweep, report = commands(results).splitlines()
    assert sweep == "benchkit sweep s --jobs 2 -w ws --until-decided"
    assert report == "benchkit report synthetic-norms -w ws"


def test_images_of_ones_own_are_told_by_the_name_of_their_folder(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn",), repeats=1, epochs=1)
    for source, told in (
        ("~/all/birds/", "birds (image-folder)"),
        ("set.zip", "set.zip (image-folder)"),
        ("..", "image-folder"),
    ):
        data = {"name": "image-folder", "source": source}
        trees = [replace(one, settings={**one.settings, "data": data}) for one in results.conditions]
        assert names_used(replace(results, conditions=tuple(trees)), "data") == [told]


@pytest.mark.parametrize(
    ("sweep", "decided"),
    [
        ("benchkit sweep s -w ws --only model.norm=gn --jobs 2", "benchkit sweep s -w ws --jobs 2 --until-decided"),
        ("benchkit sweep 'unclosed", "benchkit sweep synthetic-norms --until-decided"),
        ("", "benchkit sweep synthetic-norms --until-decided"),
    ],
)  # fmt: skip
def test_the_command_that_decides_is_that_of_the_sweep(tmp_path: Path, sweep: str, decided: str) -> None:
    results = replace(complete(tmp_path, ("bn",), repeats=1, epochs=1), command=sweep)
    assert until_decided_command(results) == decided


def test_what_there_is_no_data_for_takes_no_room(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn",), repeats=1, epochs=1)
    figures = (("grad-cam", {}),)  # nothing was inspected
    asked = replace(results, study=replace(results.study, report=replace(results.study.report, figures=figures)))
    report = compose(asked, summarize(asked), FigureSet(results=asked, registry=Registry.installed()))
    absent = [(part.name, block.title) for part in report.sections for block in part.blocks
              if isinstance(block, AbsentBlock)]  # fmt: skip
    assert [name for name, _ in absent] == ["figures"]  # what the study asks for is told to be missing
    bare = replace(results, trials=tuple(replace(trial, history=()) for trial in results.trials))
    names = [part.name for part in compose(bare, summarize(bare)).sections]
    assert "training" not in names and "results" in names


def test_sentences_of_the_data_are_joined_as_sentences_and_names_by_commas() -> None:
    told = recorded_data({"notes": ["Split by hash.", "2 were turned."], "class_names": ["cat", "dog"]})
    assert list(told) == [("notes", "Split by hash. 2 were turned."), ("class names", "cat, dog")]
