"""Figures: plugins are asked for data, drawing, caption and alternative text; a failure is shown, data become CSV."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import sys
import traceback
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from altair.utils import schemapi
from altair.utils.schemapi import SchemaBase, Undefined, UndefinedType, debug_mode
from PIL import Image, UnidentifiedImageError

from benchkit.analysis.wording import metric_words
from benchkit.child import give_back_memory
from benchkit.errors import BenchkitError, ReportError
from benchkit.protocols import ImageGrid, NothingToDraw, card_of
from benchkit.registry import Registry
from benchkit.report.context.blocks import AbsentBlock, Block, FigureBlock, PictureRow, Section, picture_address
from benchkit.report.figures.chart_worker import ChartWorker
from benchkit.report.figures.drawing import Files, chart_spec, svg_files
from benchkit.report.figures.figure_files import grid_svg
from benchkit.report.tables.table import plain
from benchkit.results import SPLITS, StudyResults

_UNCHANGING = (str, int, float, bool, type(None), UndefinedType)
_whole_copy = schemapi._deep_copy


def _copied(value: Any, by_ref: set[str]) -> Any:
    """Return what Altair's copy of a value is, without its call for each of an object's many unset options.

    Altair copies every part of a chart for each chart around it: half the time of a large report's figures was that.
    """
    if type(value) in _UNCHANGING:
        return value
    if not isinstance(value, SchemaBase) or hasattr(type(value), "__deepcopy__"):
        return _whole_copy(value, by_ref)
    set_ones = {name: part for name, part in value._kwds.items() if part is not Undefined}
    copies = {name: part if name in by_ref else _copied(part, by_ref) for name, part in set_ones.items()}
    with debug_mode(False):
        return type(value)(*(_copied(part, by_ref) for part in value._args), **copies)


schemapi._deep_copy = _copied  # type: ignore[assignment]


@dataclass(slots=True, kw_only=True)
class FigureSet:
    """The figures of one report: makes blocks, keeps the pictures for print and the problems of broken plugins.

    `kept` are figures of an earlier report by their plugin, shown where a plugin draws what it observed of models. The
    `chart_worker` draws charts for print while the next figures are made (`finished` waits for them, after a call of
    `meanwhile`); without one, none is drawn. `pictures` maps the addresses of what was drawn, such as `fig:NAME.svg`,
    which a block names, to the content; with `files`, each figure is there as SVG, PDF and PNG. Without `tables`,
    blocks lack the data that they show as CSV. `problems` are lines for the user: a broken figure does not cost the
    report, but it is told.
    """

    results: StudyResults
    registry: Registry
    kept: Mapping[str, FigureBlock] = field(default_factory=dict)
    tables: bool = True
    files: bool = False
    chart_worker: ChartWorker | None = None
    meanwhile: Callable[[], object] = give_back_memory  # a child that draws needs its most for the last charts
    pictures: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)

    def block(self, plugin: str, options: Mapping[str, Any] | None = None) -> FigureBlock | AbsentBlock:
        """Return the figure of a plugin, or why it is absent: nothing to draw, or the plugin failed."""
        return self._made(plugin, options or {}, self._drawn)

    def view(self, plugin: str, options: Mapping[str, Any]) -> FigureBlock | None:
        """Return a figure with other options for the page alone, or None where there is nothing to draw."""

        def drawn(name: str, title: str, figure: Any) -> FigureBlock:
            return figure_block(name, name, title, figure, figure.data(self.results), validate=self._foreign(name))

        block = self._made(plugin, options, drawn)
        return block if isinstance(block, FigureBlock) else None

    def _made(
        self, plugin: str, options: Mapping[str, Any], drawn: Callable[[str, str, Any], FigureBlock]
    ) -> FigureBlock | AbsentBlock:
        """Return what is `drawn` of a plugin by its name and title with these options, or why it is absent."""
        title, made = plugin, None
        try:
            made = self.registry.load("figures", plugin)
            title = card_of(made).title
            if plugin in self.kept and not options and (hasattr(made, "observe") or hasattr(made, "inspect")):
                return self._earlier(plugin, title)
            return drawn(plugin, title, made(**options))  # type: ignore[operator]
        except NothingToDraw as reason:
            if plugin in self.kept and not options:
                return self._earlier(plugin, title)
            return AbsentBlock(title=title, reason=str(reason), broken=False)
        except BenchkitError as error:
            return self._broken(title, plugin, str(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a third party's must not cost the report; it is told
            return self._broken(title, plugin, f"{type(error).__name__}: {error}{_where(error, made)}")

    def _earlier(self, plugin: str, title: str) -> FigureBlock:
        return self.with_picture(replace(self.kept[plugin], name=self._name(plugin), title=title))

    def with_data(self, *plugins: str) -> list[FigureBlock | AbsentBlock]:
        """Return the figures of installed plugins that have something to draw; broken ones are told.

        Those that the study asks for itself stand where it has them.
        """
        asked = {name for name, _ in self.results.study.report.figures}
        there = self.registry.names("figures")
        blocks = [self.block(plugin) for plugin in plugins if plugin in there and plugin not in asked]
        return [block for block in blocks if isinstance(block, FigureBlock) or block.broken]

    def _broken(self, title: str, plugin: str, reason: str) -> AbsentBlock:
        self.problems.append(f"figure {plugin}: {reason}")
        self.tracebacks.append(traceback.format_exc())
        return AbsentBlock(title=title, reason=f"The figure {plugin} failed: {reason}", broken=True)

    def _drawn(self, plugin: str, title: str, figure: Any) -> FigureBlock:
        data = figure.data(self.results)
        name = self._name(plugin)
        make = figure_block if self.tables else drawn_block
        return self.with_picture(make(name, plugin, title, figure, data, validate=self._foreign(plugin)))

    def with_picture(self, block: FigureBlock) -> FigureBlock:
        """Return a figure with the address at which its picture will be, which is being drawn."""
        if self.chart_worker is None:
            return block
        if block.spec:
            self._begun[block.name] = self.chart_worker.begin(block.spec)
            return replace(block, print_source=picture_address(block.name))
        if self.files:
            try:
                made: Files | ReportError = svg_files(grid_svg(block))
            except ReportError as error:
                made = error
            self._keep_files(block, made)
        return block

    def _keep_files(self, block: FigureBlock, made: Files | ReportError) -> None:
        if isinstance(made, ReportError):
            self.problems.append(f"figure {block.plugin} as a file: {' '.join([made.what, *made.problems])}")
        else:
            self.pictures |= {picture_address(block.name, suffix): content for suffix, content in made.items()}

    def finished(self, parts: Sequence[Section]) -> list[Section]:
        """Return sections once their figures' pictures are drawn; a figure whose picture failed is absent from them."""
        if self.chart_worker is None:
            return list(parts)
        self.meanwhile()
        made = [replace(part, blocks=tuple(map(self._finished, part.blocks))) for part in parts]
        if self.files:
            charts = [block for part in made for block in part.blocks if isinstance(block, FigureBlock) and block.spec]
            drawn = [(block.spec, self.pictures[block.print_source]) for block in charts]
            for block, files in zip(charts, self.chart_worker.files(drawn), strict=True):
                self._keep_files(block, files)
        return made

    def _finished(self, block: Block) -> Block:
        if not isinstance(block, FigureBlock) or block.name not in self._begun:
            return block
        try:
            self.pictures[block.print_source] = self._begun.pop(block.name).result()
        except BenchkitError as error:
            return self._broken(block.title, block.plugin, str(error))
        return block

    def _foreign(self, plugin: str) -> bool:
        """Return whether a figure is another's: ours are held to Vega-Lite's schema by our tests, once for all."""
        return self.registry.resolve("figures", plugin)[0].distribution != "benchkit"

    def _name(self, plugin: str) -> str:
        """Return a file name and anchor for the figure, unique in the report."""
        stem = re.sub(r"[^a-z0-9]+", "-", plugin.lower()).strip("-") or "figure"
        taken = self._taken
        name, count = stem, 2
        while name in taken:
            name, count = f"{stem}-{count}", count + 1
        taken.add(name)
        return name

    _taken: set[str] = field(default_factory=set)
    _begun: dict[str, Future[bytes]] = field(default_factory=dict)


def _where(error: BaseException, plugin: object) -> str:
    """Return the file and line of a plugin's package in which an error arose, else those that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    name = getattr(plugin, "__module__", "")
    own = {Path(f) for m in (name, name.partition(".")[0]) if (f := getattr(sys.modules.get(m), "__file__", None))}
    own |= {file.parent for file in own if file.name == "__init__.py"}
    inside = [frame for frame in frames if own & {Path(frame.filename), *Path(frame.filename).parents}]
    frame = (inside or frames)[-1]
    return f" ({Path(frame.filename).name}, line {frame.lineno})"


def figure_block(name: str, plugin: str, title: str, figure: Any, data: Any, *, validate: bool = True) -> FigureBlock:
    """Return what `drawn_block` does, with the data as CSV beside it."""
    return replace(drawn_block(name, plugin, title, figure, data, validate=validate), data=data_tables(data))


def drawn_block(name: str, plugin: str, title: str, figure: Any, data: Any, *, validate: bool = True) -> FigureBlock:
    """Return what a figure draws of its data, as a block without a picture for print and without the data.

    With `validate`, the chart is held to Vega-Lite's schema while it is made.
    """
    with debug_mode(validate):
        picture = figure.draw(data)
    alt_text, caption = _text("alt_text", figure.alt_text(data)), _text("caption", figure.caption(data))
    grid = picture if isinstance(picture, ImageGrid) else None
    spec = {} if grid else chart_spec(picture, description=alt_text, validate=validate)
    return FigureBlock(
        number=0,
        name=name,
        plugin=plugin,
        title=title,
        caption=caption,
        alt_text=alt_text,
        spec=json.dumps(spec, separators=(",", ":"), allow_nan=False) if spec else "",
        print_source="",
        columns=grid.columns if grid else (),
        pictures=_pictures(grid) if grid else (),
        data=(),
        shows=_shows(data),
    )


def _text(of: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BenchkitError(f"its {of} returned {type(value).__name__}, expected text")
    return value


def _shows(data: Any) -> str:
    """Return the metric or the split that a figure's data name, in words."""
    metric, split = getattr(data, "metric", ""), getattr(data, "split", "")
    if isinstance(metric, str) and "." in metric:
        return metric_words(metric)
    return f"{split} images" if isinstance(split, str) and split in SPLITS else ""


def _pictures(grid: ImageGrid) -> tuple[PictureRow, ...]:
    return tuple(PictureRow(caption=caption, sources=tuple(map(_address, images))) for caption, images in grid.rows)


def _address(image: bytes) -> str:
    """Return a picture as a data address; raise `BenchkitError` unless it is a whole PNG or JPEG, grey or RGB."""
    try:
        with Image.open(io.BytesIO(image), formats=("PNG", "JPEG")) as picture:
            picture.load()
            kind, mode = str(picture.format).lower(), picture.mode
    except UnidentifiedImageError as error:
        raise BenchkitError("an image grid holds bytes that are neither PNG nor JPEG") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BenchkitError(f"an image grid holds a picture that cannot be read: {error}") from error
    if mode == "CMYK":
        raise BenchkitError("an image grid holds a CMYK picture, expected grey or RGB: programs differ in its colours")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


Row = dict[str, Any]


def data_tables(data: Any) -> tuple[tuple[str, str], ...]:
    """Return (name, CSV) for every kind of record in a figure's data, the deepest nesting of records first.

    Records are dataclasses; a record inside another repeats the other's plain fields. A tuple of fixed length becomes
    numbered columns; tuples of open length that a record has several of at one length become rows, a single one a
    text of values parted by blanks (names by semicolons) in the record's own row, and a table of its own where it holds
    tuples. A field with `metadata={"apart": True}` never stands in rows with others, whatever its length. Beside
    records, tuples of nothing but text say what is shown in which order, and are left out, as pictures are.
    """
    tables: dict[str, list[Row]] = {}
    _collect(data, "", {}, tables)
    return tuple((name or "values", _csv(rows)) for name, rows in tables.items() if rows and any(rows))


def _collect(record: Any, name: str, above: Row, tables: dict[str, list[Row]]) -> None:
    own, nested, series = _parted(record)
    texts, series, apart = _in_one_table(series, _apart(type(record)))
    here = {**above, **{_joined(name, key): value for key, value in own.items()}}
    for key, children in nested.items():
        for child in children:
            _collect(child, _joined(name, key), here, tables)
    for key, some in {"values": series, **{key: {key: values} for key, values in apart.items()}}.items():
        if some and not (nested and all(isinstance(item, str) for values in some.values() for item in values)):
            tables.setdefault(_joined(name, key), []).extend(_exploded(some, here, name))
    if (own or texts) and not nested and not series:
        tables.setdefault(name, []).append({**here, **{_joined(name, key): text for key, text in texts.items()}})


def _parted(record: Any) -> tuple[Row, dict[str, Sequence[Any]], dict[str, Sequence[Any]]]:
    """Return a record's plain fields, its fields that hold records, and its series."""
    own: Row = {}
    nested: dict[str, Sequence[Any]] = {}
    series: dict[str, Sequence[Any]] = {}
    for key, value, is_open in _fields(record):
        if is_dataclass(value) and not isinstance(value, type):
            nested[key] = [value]
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            if value and all(is_dataclass(item) for item in value):
                nested[key] = value
            elif is_open and value:
                series.update({} if isinstance(value[0], bytes) else {key: value})
            else:
                own.update(_spread(key, value))
        elif isinstance(value, Mapping):
            own.update({f"{key}_{name}": item for name, item in value.items()})
        elif not isinstance(value, bytes):
            own[key] = value
    return own, nested, series


def _in_one_table(series: Row, apart: Collection[str]) -> tuple[Row, Row, Row]:
    """Return plain series without a partner of their length, as text; the longest with partners; and all others."""
    lengths = {key: len(values) for key, values in series.items() if key not in apart}
    alone = [key for key in series if key in apart or list(lengths.values()).count(lengths[key]) == 1]
    texts = {key: _series_text(series[key]) for key in alone if not _is_deep(series[key])}
    rest = {key: values for key, values in series.items() if key not in texts}
    longest = max((lengths.get(key, 0) for key in rest), default=0)
    together = {key: values for key, values in rest.items() if lengths.get(key) == longest}
    return texts, together, {key: values for key, values in rest.items() if key not in together}


def _series_text(values: Sequence[Any]) -> str:
    return ("; " if isinstance(values[0], str) else " ").join(str(plain(item)) for item in values)


def _is_deep(values: Sequence[Any]) -> bool:
    return isinstance(values[0], Sequence) and not isinstance(values[0], str)


def _fields(record: Any) -> Iterator[tuple[str, Any, bool]]:
    for name, is_open in _field_kinds(type(record)):  # type: ignore[arg-type]
        yield name, getattr(record, name), is_open


def _apart(cls: Any) -> frozenset[str]:
    return frozenset(part.name for part in fields(cls) if part.metadata.get("apart"))


@cache
def _field_kinds(cls: Any) -> tuple[tuple[str, bool], ...]:
    hints = get_type_hints(cls)
    return tuple((part.name, _is_open(hints.get(part.name))) for part in fields(cls))


def _is_open(hint: Any) -> bool:
    """Return whether a type is a sequence of open length, such as tuple[float, ...]."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_is_open(part) for part in get_args(hint))
    return get_origin(hint) is not tuple or Ellipsis in get_args(hint)


def _spread(key: str, value: Any) -> Row:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return {f"{key}_{number}": item for number, item in enumerate(value, 1)}
    return {key: value}


def _exploded(series: Mapping[str, Sequence[Any]], above: Row, name: str) -> list[Row]:
    length = max(len(values) for values in series.values())
    rows = []
    for index in range(length):
        row = dict(above)
        for key, values in series.items():
            row.update(_spread(_joined(name, key), values[index]))
        rows.append(row if len(series) > 1 else {**above, _joined(name, "index"): index, **row})
    return rows


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _csv(rows: Sequence[Row]) -> str:
    heads = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([plain(head) for head in _short(heads)])
    for row in rows:
        writer.writerow([_written(row.get(key)) for key in heads])
    return out.getvalue()


def _short(heads: Sequence[str]) -> list[str]:
    """Return headings without the path of their record where the last part is unique."""
    last = [head.rpartition(".")[2] for head in heads]
    return [tail if last.count(tail) == 1 else head for head, tail in zip(heads, last, strict=True)]


def _written(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}")
    return plain(value) if isinstance(value, str) or value is None else value
