"""Figures in the report: plugins that draw, have nothing to draw, or fail; and the data behind them."""

from __future__ import annotations

import base64
import csv
import inspect
import io
import json
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import altair
import pytest
from PIL import Image
from synthetic_results import complete

from benchkit.errors import PluginError, ReportError
from benchkit.protocols import ImageGrid, NothingToDraw, card
from benchkit.registry.registry import Entry
from benchkit.report.context.blocks import AbsentBlock, Block, FigureBlock, Section
from benchkit.report.figures import figure_set as figure_set_module
from benchkit.report.figures.chart_worker import ChartWorker
from benchkit.report.figures.drawing import spec_to_svg
from benchkit.report.figures.figure_set import FigureSet, data_tables
from benchkit.results import StudyResults

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    epoch: int
    mean: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    condition: str
    points: tuple[Point, ...]
    values: tuple[float, ...]
    at: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    title: str
    curves: tuple[Curve, ...]


CURVES = Curves(
    title="=t",
    curves=(
        Curve(condition="bn", points=(Point(epoch=1, mean=(0.1, 0.2)),), values=(0.5, 0.6), at=(1, 2)),
        Curve(condition="gn", points=(Point(epoch=1, mean=(0.3, 0.4)),), values=(0.7,), at=(1,)),
    ),
)


@card(title="Two points", summary="Two points.")
@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPoints:
    size: int = 2

    def data(self, results: StudyResults) -> Curves:
        return CURVES

    def draw(self, data: Curves) -> Any:
        return altair.Chart(altair.Data(values=[{"x": 1, "y": 2}])).mark_point().encode(x="x:Q", y="y:Q")

    def caption(self, data: Curves) -> str:
        return "Two <points>."

    def alt_text(self, data: Curves) -> str:
        return "A point at 1 and 2."


class Nothing(TwoPoints):
    def data(self, results: StudyResults) -> Curves:
        raise NothingToDraw("no repeat has a history")


class Broken(TwoPoints):
    def draw(self, data: Curves) -> Any:
        raise ZeroDivisionError("division by zero")


class Pictures(TwoPoints):
    def draw(self, data: Curves) -> Any:
        return ImageGrid(columns=("a", "b"), rows=(("row", (PNG, PNG)),))


class NoPictures(TwoPoints):
    def draw(self, data: Curves) -> Any:
        return ImageGrid(columns=("a",), rows=(("row", (b"<svg onload=alert(1)>",)),))


def jpeg(mode: str) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (8, 8)).save(out, "JPEG")
    return out.getvalue()


class Shows(TwoPoints):
    """Shows one picture, of the bytes that it is given."""

    picture = b""

    def draw(self, data: Curves) -> Any:
        return ImageGrid(columns=("a",), rows=(("row", (self.picture,)),))


class NoCaption(TwoPoints):
    def caption(self, data: Curves) -> Any:
        return None


class NoAltText(TwoPoints):
    def alt_text(self, data: Curves) -> Any:
        return 3


class Leaves(TwoPoints):
    def data(self, results: StudyResults) -> Curves:
        raise SystemExit(5)


@dataclass
class FewPlugins:
    """Stands for a registry with these figures."""

    figures: dict[str, object]
    distribution: str = "few"

    def load(self, kind: str, name: str) -> object:
        if name not in self.figures:
            raise PluginError(f"there is no figure {name!r}")
        return self.figures[name]

    def names(self, kind: str) -> tuple[str, ...]:
        return tuple(self.figures)

    def resolve(self, kind: str, name: str) -> tuple[Entry, None]:
        return Entry(kind=kind, name=name, value=f"few:{name}", distribution=self.distribution, version="1"), None


@pytest.fixture
def figure_set(tmp_path: Path) -> FigureSet:
    plugins = {
        "two-points": TwoPoints, "nothing": Nothing, "broken": Broken, "pictures": Pictures, "none": NoPictures,
        "no-caption": NoCaption, "no-alt-text": NoAltText, "leaves": Leaves,
        **{name: type(name, (Shows,), {"picture": jpeg(mode)}) for name, mode in (("cmyk", "CMYK"), ("grey", "L"))},
        "cut": type("Cut", (Shows,), {"picture": jpeg("RGB")[:-30]}),
    }  # fmt: skip
    results = complete(tmp_path, ("bn",), repeats=1, epochs=2)
    return FigureSet(results=results, registry=FewPlugins(dict(plugins)))  # type: ignore[arg-type]


class Wrong(TwoPoints):
    def draw(self, data: Curves) -> Any:
        return altair.Chart(altair.Data(values=[{"x": 1}])).mark_point(size="large").encode(x="x:Q")


def test_charts_of_others_are_held_to_the_schema(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn",), repeats=1, epochs=2)
    block = FigureSet(results=results, registry=FewPlugins({"wrong": Wrong})).block("wrong")  # type: ignore[arg-type]
    assert isinstance(block, AbsentBlock) and "size" in block.reason


def test_an_error_names_the_line_of_the_plugin(tmp_path: Path) -> None:
    class Deep(TwoPoints):
        def data(self, results: StudyResults) -> Curves:
            json.loads("no JSON")  # raised in json/decoder.py
            return CURVES

    line = inspect.getsourcelines(Deep.data)[1] + 1
    results = complete(tmp_path, ("bn",), repeats=1, epochs=2)
    figures = FigureSet(results=results, registry=FewPlugins({"deep": Deep}))  # type: ignore[arg-type]
    block = figures.block("deep")
    assert isinstance(block, AbsentBlock) and f"(test_report_figures.py, line {line})" in block.reason
    assert figures.view("deep", {}) is None and figures.problems[1].endswith(f"(test_report_figures.py, line {line})")


def test_without_tables_a_figure_is_the_same_but_for_its_data(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn",), repeats=1, epochs=2)
    whole, slim = (
        FigureSet(results=results, registry=FewPlugins({"two": TwoPoints}), tables=tables).block("two")  # type: ignore[arg-type]
        for tables in (True, False)
    )
    assert isinstance(whole, FigureBlock) and whole.data and slim == replace(whole, data=())


def test_a_quick_copy_of_a_chart_is_altairs_and_shares_nothing_that_can_change(monkeypatch: pytest.MonkeyPatch) -> None:
    base = altair.Chart(altair.Data(values=[{"x": 1}])).encode(x=altair.X("x:Q", axis=altair.Axis(ticks=False)))
    near = altair.selection_point(name="near", on="pointerover")
    faint = altair.when(near).then(altair.value(1)).otherwise(altair.value(0))
    layers = altair.layer(base.mark_line(size=3), base.mark_point().encode(opacity=faint).add_params(near), name="both")
    quick = layers.copy()
    monkeypatch.setattr("altair.utils.schemapi._deep_copy", figure_set_module._whole_copy)
    theirs = layers.copy()
    assert quick.to_dict() == theirs.to_dict() and list(quick._kwds) == list(theirs._kwds)
    assert [list(one._kwds) for one in quick.layer] == [list(one._kwds) for one in theirs.layer]
    quick.layer[0].mark.size = 5
    quick.layer[0].encoding.x.axis.ticks = True
    assert layers.to_dict() == theirs.to_dict()


def test_figures_are_made_while_pictures_are_drawn_and_one_that_fails_is_absent(tmp_path: Path) -> None:
    class Later:
        def __init__(self) -> None:
            self.begun: list[Future[bytes]] = []

        def begin(self, spec: object) -> Future[bytes]:
            self.begun.append(Future())
            return self.begun[-1]

    results, later = complete(tmp_path, ("bn",), repeats=1, epochs=2), Later()
    figures = FigureSet(results=results, registry=FewPlugins({"two": TwoPoints}), chart_worker=later)  # type: ignore[arg-type]
    blocks = [figures.block("two"), figures.block("two")]
    assert all(isinstance(block, FigureBlock) for block in blocks) and not figures.pictures
    later.begun[0].set_result(b"<svg/>")
    later.begun[1].set_exception(ReportError("a figure took longer than 9 s to draw"))
    (done,) = figures.finished([section_of(*blocks)])
    first, second = done.blocks
    assert first == blocks[0] and figures.pictures == {"fig:two.svg": b"<svg/>"}
    assert isinstance(second, AbsentBlock) and second.broken and "longer than 9 s" in second.reason
    assert figures.problems == ["figure two: a figure took longer than 9 s to draw"]


def test_our_own_charts_are_the_same_unchecked(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn",), repeats=1, epochs=2)
    checked, unchecked = (
        FigureSet(results=results, registry=FewPlugins({"two": TwoPoints}, whose)).block("two")  # type: ignore[arg-type]
        for whose in ("few", "benchkit")
    )
    assert checked == unchecked and isinstance(checked, FigureBlock)


def section_of(*blocks: Block) -> Section:
    return Section(number=1, name="a", title="A", blocks=blocks)


def test_a_chart_becomes_a_spec_and_a_picture_for_print(figure_set: FigureSet) -> None:
    with ChartWorker() as figure_set.chart_worker:
        block = figure_set.block("two-points")
        assert isinstance(block, FigureBlock)
        assert json.loads(block.spec)["description"] == "A point at 1 and 2."
        assert block.title == "Two points"
        assert figure_set.finished([section_of(block)]) == [section_of(block)]
    assert figure_set.pictures.keys() == {block.print_source} == {"fig:two-points.svg"}
    assert figure_set.pictures[block.print_source].decode() == spec_to_svg(json.loads(block.spec))
    assert figure_set.problems == []


def test_figures_become_files_where_they_are_asked_for(figure_set: FigureSet) -> None:
    figure_set.files = True
    with ChartWorker() as figure_set.chart_worker:
        blocks = [figure_set.block(name) for name in ("two-points", "pictures", *3 * ("two-points",))]
        figure_set.finished([section_of(*blocks)])
    names = ("two-points", "pictures", "two-points-2", "two-points-3", "two-points-4")
    suffixes = (".svg", ".pdf", ".png")
    assert figure_set.pictures.keys() == {f"fig:{name}{suffix}" for name in names for suffix in suffixes}
    one, two = (spec_to_svg(json.loads(blocks[place].spec)).encode() for place in (0, 4))
    assert one == two  # the first file is made here, the last one by the child
    for suffix, start in ((".svg", b"<svg"), (".png", b"\x89PNG"), (".pdf", b"%PDF")):
        first, last = (figure_set.pictures[f"fig:{name}{suffix}"] for name in ("two-points", "two-points-4"))
        assert first.startswith(start) and (first == last or suffix == ".pdf")


def test_a_figure_that_cannot_become_a_file_is_told_and_stays(
    figure_set: FigureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChartWorker, "files", lambda _, charts: [ReportError("too large", problems=["a"])])
    monkeypatch.setattr(figure_set_module, "grid_svg", lambda block: "<svg/")
    figure_set.files = True
    with ChartWorker() as figure_set.chart_worker:
        part = section_of(figure_set.block("pictures"), figure_set.block("two-points"))
        assert figure_set.finished([part]) == [part]
    grid, chart = figure_set.problems
    assert grid == "figure pictures as a file: a figure cannot be drawn unexpected end of stream"
    assert chart == "figure two-points as a file: too large a" and figure_set.pictures.keys() == {"fig:two-points.svg"}


def test_the_same_plugin_twice_gets_two_names(figure_set: FigureSet) -> None:
    first, second = figure_set.block("two-points"), figure_set.block("two-points", {"size": 3})
    assert isinstance(first, FigureBlock)
    assert isinstance(second, FigureBlock)
    assert (first.name, second.name) == ("two-points", "two-points-2")


def test_without_a_worker_no_picture_is_made(figure_set: FigureSet) -> None:
    block = figure_set.block("two-points")
    assert isinstance(block, FigureBlock) and not block.print_source
    assert figure_set.finished([section_of(block)]) == [section_of(block)] and figure_set.pictures == {}


def test_nothing_to_draw_is_said_and_is_no_problem(figure_set: FigureSet) -> None:
    block = figure_set.block("nothing")
    assert block == AbsentBlock(title="Two points", reason="no repeat has a history", broken=False)
    assert figure_set.problems == []


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("broken", {}, "ZeroDivisionError: division by zero"),
        ("unknown", {}, "there is no figure 'unknown'"),
        ("two-points", {"colour": "red"}, "colour"),
        ("none", {}, "neither PNG nor JPEG"),
        ("no-caption", {}, "its caption returned NoneType, expected text"),
        ("no-alt-text", {}, "its alt_text returned int, expected text"),
        ("leaves", {}, "SystemExit: 5"),
        ("cmyk", {}, "a CMYK picture, expected grey or RGB"),
        ("cut", {}, "a picture that cannot be read: "),
    ],
)
def test_a_figure_that_fails_is_told_and_costs_no_report(
    figure_set: FigureSet, name: str, options: dict[str, Any], words: str
) -> None:
    block = figure_set.block(name, options)
    assert isinstance(block, AbsentBlock)
    assert block.broken
    assert words in block.reason
    assert len(figure_set.problems) == len(figure_set.tracebacks) == 1


def test_figures_that_show_themselves_take_no_room_without_data_and_stand_where_the_study_has_them(
    figure_set: FigureSet,
) -> None:
    shown = figure_set.with_data("two-points", "nothing", "broken", "not-installed")
    assert [type(block) for block in shown] == [FigureBlock, AbsentBlock]
    report = replace(figure_set.results.study.report, figures=(("two-points", {}),))
    asked = replace(figure_set.results, study=replace(figure_set.results.study, report=report))
    assert replace(figure_set, results=asked).with_data("two-points", "nothing") == []


def test_a_grey_picture_is_shown(figure_set: FigureSet) -> None:
    assert isinstance(figure_set.block("grey"), FigureBlock)


def test_a_figure_that_has_nothing_to_draw_now_is_as_the_earlier_page_has_it(figure_set: FigureSet) -> None:
    earlier = figure_set.block("two-points")
    assert isinstance(earlier, FigureBlock)
    again = replace(figure_set, kept={"nothing": earlier, "two-points": earlier}).block("nothing")
    assert isinstance(again, FigureBlock) and again.spec == earlier.spec and again.name == "nothing"


def test_an_image_grid_carries_its_pictures(figure_set: FigureSet) -> None:
    block = figure_set.block("pictures")
    assert isinstance(block, FigureBlock)
    assert block.columns == ("a", "b")
    (row,) = block.pictures
    assert base64.b64decode(row.sources[0].partition(",")[2]) == PNG


def test_records_series_and_fixed_tuples_become_tables() -> None:
    tables = {name: list(csv.reader(io.StringIO(text))) for name, text in data_tables(CURVES)}
    assert tables["curves.points"] == [
        ["title", "condition", "epoch", "mean_1", "mean_2"],
        ["'=t", "bn", "1", "0.1", "0.2"],
        ["'=t", "gn", "1", "0.3", "0.4"],
    ]
    assert tables["curves.values"] == [
        ["title", "condition", "values", "at"],
        ["'=t", "bn", "0.5", "1"],
        ["'=t", "bn", "0.6", "2"],
        ["'=t", "gn", "0.7", "1"],
    ]


def test_a_plain_record_is_one_row() -> None:
    ((name, text),) = data_tables(Point(epoch=3, mean=(0.123456789, 2.0)))
    assert (name, text) == ("values", "epoch,mean_1,mean_2\r\n3,0.1234568,2.0\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    condition: str
    counts: tuple[tuple[int, ...], ...]
    pairs: tuple[tuple[int, float], ...] = field(metadata={"apart": True})
    names: tuple[str, ...] = field(metadata={"apart": True})
    photos: tuple[bytes, ...] = (b"\xff\xd8",)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenData:
    labels: tuple[str, ...]
    shown: tuple[str, ...]
    matrices: tuple[Taken, ...]


@pytest.mark.parametrize("pairs", [((1, 2.5),), ((1, 2.5), (0, 1.0)), ((1, 2.5), (0, 1.0), (2, 0.5))])
def test_no_series_is_lost_or_put_beside_another_by_its_length(pairs: tuple[tuple[int, float], ...]) -> None:
    one = Taken(condition="bn", counts=((9, 1), (0, 8)), pairs=pairs, names=("a, b", "c"))
    tables = dict(data_tables(TakenData(labels=("bn",), shown=("c",), matrices=(one,))))
    assert tables == {
        "matrices.pairs": "condition,index,pairs_1,pairs_2\r\n"
        + "".join(f"bn,{at},{true},{share}\r\n" for at, (true, share) in enumerate(pairs)),
        "matrices.values": "condition,index,counts_1,counts_2\r\nbn,0,9,1\r\nbn,1,0,8\r\n",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    conditions: tuple[str, ...] = field(metadata={"apart": True})
    rates: tuple[float, ...]


def test_names_of_as_many_conditions_as_epochs_are_no_rows_of_epochs() -> None:
    ((_, text),) = data_tables(Rates(conditions=("lr=1, bn", "gn"), rates=(0.1, 0.2)))
    assert text == 'conditions,rates\r\n"lr=1, bn; gn",0.1 0.2\r\n'
