"""From an Altair chart to a Vega-Lite spec, and from the spec to SVG, PNG and PDF, without a browser or a network."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import vl_convert

from benchkit.errors import ReportError
from benchkit.report.figures.style import INK, vega_config
from benchkit.report.figures.svg import print_svg
from benchkit.report.page_text import needs_shaping, printable

Spec = dict[str, Any]

VEGA_LITE_VERSION = "6.4"
"""The Vega-Lite version that draws figures everywhere; it is the one that Altair writes specs for."""

LONG_SERIES = 200
"""From this many rows on, a spec stores its data as columns."""

PIXELS = 3
"""Pixels of a CSS pixel where a chart is printed as pixels: 288 to the inch."""

HOVER, NEAR = "hover", "near"
"""Layers named `hover...` serve the pointer and are left out of print; selections named `near...` belong to them."""


def chart_spec(chart: Any, *, description: str = "", validate: bool = True) -> Spec:
    """Return an Altair chart as plain Vega-Lite JSON in the report's style; the same chart gives the same bytes.

    The background is transparent, `$schema` is left out, and data of `LONG_SERIES` rows or more are stored as one row
    of columns per series and spread out again by Vega. `description` is the text for screen readers. Raises
    `ReportError` when the chart is not valid (by Vega-Lite's schema, unless `validate` is off: for large charts that
    takes seconds), holds a non-finite number or refers to data by address.
    """
    try:
        spec: Spec = _printable(json.loads(json.dumps(chart.to_dict(validate=validate), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise ReportError("a figure is not valid Vega-Lite JSON", problems=[str(error)]) from error
    spec.pop("$schema", None)
    spec["background"] = None
    spec["config"] = _merged(vega_config(), _own_config(spec.get("config", {})))
    if description:
        spec["description"] = description
    _separate_pointer(spec)
    refuse_addresses(spec)
    datasets = spec.get("datasets", {})
    packed = {name: _columns(rows) for name, rows in datasets.items() if _records(rows)}
    datasets |= {name: series for name, (series, _) in packed.items()}
    _store_columns(spec, {name: columns for name, (_, columns) in packed.items()})
    return spec


def spec_to_svg(spec: Mapping[str, Any], *, width_px: int | None = None) -> str:
    """Return the spec as SVG for print: the same spec gives the same bytes, there are no gradients and nothing outside.

    `width_px` is the whole width in CSS pixels of a single view; composed views keep the width they were made with.
    """
    register_fonts()
    svg: str = _converted(vl_convert.vegalite_to_svg, _static(spec, width_px))
    return print_svg(_pixels(svg) if needs_shaping(svg) else svg)


def _pixels(svg: str) -> str:
    """Return an SVG as pixels in an SVG of its size: the printer draws text in charts letter by letter, left to right.

    That mirrors Hebrew, and takes Arabic, Indic and combined letters apart.
    """
    size = re.search(r'<svg[^>]* width="([\d.]+)" height="([\d.]+)"', svg)
    if size is None:
        return svg
    picture: bytes = vl_convert.svg_to_png(svg.replace("currentColor", INK), scale=PIXELS)
    address = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    width, height = size.groups()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<image href="{address}" width="{width}" height="{height}"/></svg>'
    )


def _printable(node: Any) -> Any:
    if isinstance(node, str):
        return printable(node)
    if isinstance(node, list):
        return [_printable(part) for part in node]
    return {printable(key): _printable(part) for key, part in node.items()} if isinstance(node, dict) else node


def spec_to_png(spec: Mapping[str, Any], ppi: float = 200) -> bytes:
    """Return the spec as PNG on white, at `ppi` pixels per inch of its printed size (96 CSS pixels are an inch)."""
    register_fonts()
    static = _static(spec) | {"background": "white"}
    picture: bytes = _converted(vl_convert.vegalite_to_png, static, scale=72 / 96, ppi=ppi)
    return picture


def spec_to_pdf(spec: Mapping[str, Any]) -> bytes:
    """Return the spec as a one-page PDF with its fonts embedded; a CSS pixel becomes a point, so scale it to fit."""
    register_fonts()
    document: bytes = _converted(vl_convert.vegalite_to_pdf, _static(spec))
    return document


def content_key(spec: Mapping[str, Any]) -> str:
    """Return 24 hex digits of a sha256 over the spec (its style included) and all that draws it: equal keys, equal
    pictures.
    """
    text = json.dumps([*_renderer(), spec], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@cache
def _renderer() -> tuple[str, ...]:
    """Return what a picture depends on beside its spec: versions, and our own code that changes SVG for print."""
    own = hashlib.sha256(b"".join((Path(__file__).parent / name).read_bytes() for name in ("drawing.py", "svg.py")))
    return version("vl-convert-python"), VEGA_LITE_VERSION, own.hexdigest()


@cache
def register_fonts() -> None:
    """Let vl-convert find the shipped fonts."""
    folder = Path(str(files("benchkit_templates"))) / "fonts"
    if folder.is_dir():
        vl_convert.register_font_directory(str(folder))


def _converted(convert: Any, spec: Spec, **options: Any) -> Any:
    try:
        return convert(spec, vl_version=VEGA_LITE_VERSION, allowed_base_urls=[], **options)
    except ValueError as error:
        raise ReportError("a figure cannot be drawn", problems=str(error).strip().splitlines()[:2]) from error


def _static(spec: Mapping[str, Any], width_px: int | None = None) -> Spec:
    """Return a copy of the spec for a still picture: without what only pointers and screen readers meet in HTML."""
    static: Spec = json.loads(json.dumps(spec))
    gone = _drop_hover(static)
    for param in list(static.get("params", [])):
        views = param.get("views", [])
        param |= {"views": [view for view in views if view not in gone]} if views else {}
        if views and not param["views"]:
            static["params"].remove(param)
    static["config"] = {**static.get("config", {}), "aria": False}
    if width_px is not None and ("mark" in static or "layer" in static):
        static |= {"width": width_px, "autosize": {"type": "fit-x", "contains": "padding"}}
    return static


def _drop_hover(node: Any) -> set[str]:
    """Remove the layers named `hover...` below `node`, and return their names; data may have a field `layer`."""
    gone: set[str] = set()
    if isinstance(node, dict):
        layers = [part for part in node.get("layer", []) if str(part.get("name", "")).startswith(HOVER)]
        gone |= {part["name"] for part in layers}
        if layers:
            node["layer"] = [part for part in node["layer"] if part not in layers]
    charts = [part for key, part in node.items() if key not in ("data", "datasets")] if isinstance(node, dict) else node
    for part in charts if isinstance(charts, list) else ():
        gone |= _drop_hover(part)
    return gone


def _own_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the figure itself configured: Altair adds a default view size that is not the figure's choice."""
    view = {name: value for name, value in config.get("view", {}).items() if not name.startswith("continuous")}
    return {**config, "view": view}


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(under)
    for name, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = _merged(result[name], value) if both else value
    return result


def _separate_pointer(spec: Spec) -> None:
    """Keep the pointer's selections on hover layers and the others off them.

    In concatenated layers Altair attaches a selection to every named layer beside the one it was added to.
    """
    for param in spec.get("params", []):
        pointer = param["name"].startswith(NEAR)
        own = [view for view in param.get("views", []) if view.startswith(HOVER) == pointer]
        if own:
            param["views"] = own


def refuse_addresses(node: Any) -> None:
    """Raise when any `url` in the spec is more than a `data:` address: a report must need nothing but itself."""
    if isinstance(node, list):
        for part in node:
            refuse_addresses(part)
    elif isinstance(node, dict):
        url = node.get("url")
        if isinstance(url, str) and not url.startswith("data:"):
            raise ReportError("a figure refers to data by address", problems=[f"url: {url}"])
        for part in node.values():
            refuse_addresses(part)


def _store_columns(node: Any, packed: Mapping[str, list[str]]) -> None:
    """Turn every long list of records below `node` into columns, with the transform that spreads them at its side.

    `packed` tells the columns of the named data sets that are stored so already. The transform must stand where the
    data stand: inside a facet's layer, Vega-Lite recurses without end.
    """
    for part in node if isinstance(node, list) else node.values() if isinstance(node, dict) else ():
        _store_columns(part, packed)
    data = node.get("data") if isinstance(node, dict) else None
    if not isinstance(data, dict) or data.get("format"):
        return
    columns = packed.get(data.get("name", ""), [])
    if _records(data.get("values")):
        data["values"], columns = _columns(data["values"])
    if columns:
        node["transform"] = [{"flatten": columns}, *node.get("transform", [])]


def _records(rows: Any) -> bool:
    if not isinstance(rows, list) or len(rows) < LONG_SERIES or not isinstance(rows[0], dict):
        return False
    plain = (str, int, float, bool, type(None))
    return all(row.keys() == rows[0].keys() and all(isinstance(v, plain) for v in row.values()) for row in rows)


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return one row per run of equal text fields, its other fields as lists, and the names of those fields."""
    text = [name for name in rows[0] if all(isinstance(row[name], str) for row in rows)]
    long = [name for name in rows[0] if name not in text]
    runs = [list(run) for _, run in itertools.groupby(rows, key=lambda row: [row[name] for name in text])]
    if not long or len(runs) > len(rows) / 4:  # text that changes from row to row is a column like any other
        text, long, runs = [], list(rows[0]), [list(rows)]
    series = [
        {name: run[0][name] for name in text} | {name: [_short(row[name]) for row in run] for name in long}
        for run in runs
    ]
    return series, long


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
