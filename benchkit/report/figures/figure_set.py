"""Figures: plugins are asked for data, drawing, caption and alternative text; what fails is shown as absent."""

from __future__ import annotations

import base64
import json
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from altair.utils.schemapi import debug_mode

from benchkit.analysis.wording import metric_words
from benchkit.errors import BenchkitError
from benchkit.protocols import ImageGrid, NothingToDraw, card_of
from benchkit.registry import Registry
from benchkit.report.context.blocks import AbsentBlock, FigureBlock, PictureRow
from benchkit.report.figures.chart_worker import ChartWorker
from benchkit.report.figures.drawing import chart_spec, spec_to_svg
from benchkit.report.figures.figure_data import data_tables
from benchkit.results import SPLITS, StudyResults


@dataclass(slots=True, kw_only=True)
class FigureSet:
    """The figures of one report: makes blocks, keeps the pictures for print and the problems of broken plugins.

    Without a `registry` no plugin is loaded, and every figure is absent: so for JSON alone, and where a report is only
    checked. `pictures` maps the address that a block names (`fig:NAME.svg`) to the SVG; it stays empty unless
    `for_print`. The `chart_worker` draws them, or this process where there is none. `problems` are lines for the
    user: a broken figure does not cost the report, but it is told.
    """

    results: StudyResults
    registry: Registry | None
    for_print: bool = True
    chart_worker: ChartWorker | None = None
    pictures: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)

    def block(self, plugin: str, options: Mapping[str, Any] | None = None) -> FigureBlock | AbsentBlock:
        """Return the figure of a plugin, or why it is absent: nothing to draw, or the plugin failed."""
        if self.registry is None:
            return AbsentBlock(title=plugin, reason="not asked for", broken=False)
        title, made = plugin, None
        try:
            made = self.registry.load("figures", plugin)
            title = card_of(made).title
            return self._drawn(plugin, title, made(**(options or {})))  # type: ignore[operator]
        except NothingToDraw as reason:
            return AbsentBlock(title=title, reason=str(reason), broken=False)
        except BenchkitError as error:
            return self._broken(title, plugin, str(error))
        except Exception as error:  # noqa: BLE001 - a third party's figure must not cost the report; it is told
            return self._broken(title, plugin, f"{type(error).__name__}: {error}{_where(error, made)}")

    def view(self, plugin: str, options: Mapping[str, Any]) -> FigureBlock | None:
        """Return a figure with other options for the page alone, or None where there is nothing to draw."""
        if self.registry is None:
            return None
        made: Any = None
        try:
            made = self.registry.load("figures", plugin)
            figure = made(**options)
            data = figure.data(self.results)
            return figure_block(plugin, plugin, card_of(made).title, figure, data, validate=self._foreign(plugin))
        except NothingToDraw:
            return None
        except Exception as error:  # noqa: BLE001 - as in `block`
            self._broken(plugin, plugin, f"{type(error).__name__}: {error}{_where(error, made)}")
            return None

    def _broken(self, title: str, plugin: str, reason: str) -> AbsentBlock:
        self.problems.append(f"figure {plugin}: {reason}")
        self.tracebacks.append(traceback.format_exc())
        return AbsentBlock(title=title, reason=f"The figure {plugin} failed: {reason}", broken=True)

    def _drawn(self, plugin: str, title: str, figure: Any) -> FigureBlock:
        data = figure.data(self.results)
        block = figure_block(self._name(plugin), plugin, title, figure, data, validate=self._foreign(plugin))
        if not self.for_print or not block.spec:
            return block
        address = f"fig:{block.name}.svg"
        self.pictures[address] = self.svg(json.loads(block.spec))
        return replace(block, print_source=address)

    def _foreign(self, plugin: str) -> bool:
        """Return whether a figure is another's: ours are held to Vega-Lite's schema by our tests, once for all."""
        assert self.registry is not None
        return self.registry.resolve("figures", plugin)[0].distribution != "benchkit"

    def svg(self, spec: Mapping[str, Any]) -> bytes:
        """Return a chart as SVG for print, from the chart_worker's child process where there is one."""
        return self.chart_worker.svg(spec) if self.chart_worker else spec_to_svg(spec).encode()

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
    """Return what a figure draws of its data, as a block without a picture for print.

    With `validate`, the chart is held to Vega-Lite's schema while it is made.
    """
    with debug_mode(validate):
        picture = figure.draw(data)
    alt_text = figure.alt_text(data)
    grid = picture if isinstance(picture, ImageGrid) else None
    spec = {} if grid else chart_spec(picture, description=alt_text, validate=validate)
    return FigureBlock(
        number=0,
        name=name,
        plugin=plugin,
        title=title,
        caption=figure.caption(data),
        alt_text=alt_text,
        spec=json.dumps(spec, separators=(",", ":"), allow_nan=False) if spec else "",
        print_source="",
        columns=grid.columns if grid else (),
        pictures=_pictures(grid) if grid else (),
        data=data_tables(data),
        shows=_shows(data),
    )


def _shows(data: Any) -> str:
    """Return the metric or the split that a figure's data name, in words."""
    metric, split = getattr(data, "metric", ""), getattr(data, "split", "")
    if isinstance(metric, str) and "." in metric:
        return metric_words(metric)
    return f"{split} images" if isinstance(split, str) and split in SPLITS else ""


def _pictures(grid: ImageGrid) -> tuple[PictureRow, ...]:
    return tuple(PictureRow(caption=caption, sources=tuple(map(_address, images))) for caption, images in grid.rows)


def _address(image: bytes) -> str:
    """Return a picture as a data address; raise `BenchkitError` unless it is PNG or JPEG."""
    kinds: Sequence[tuple[bytes, str]] = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"))
    for start, kind in kinds:
        if image.startswith(start):
            return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
    raise BenchkitError("an image grid holds bytes that are neither PNG nor JPEG")
