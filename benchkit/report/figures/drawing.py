"""From an Altair chart to a Vega-Lite spec in the report's style, and from that to SVG, PNG and PDF, without a browser.

Colours are told apart under the common colour-vision deficiencies, have a contrast of at least 4.5:1 to a white page
and, as the report's styles turn them, to a near-black one, and are never black or white. In grey print some are alike:
so conditions also differ in dash and shape. Text and axes are `currentColor`: HTML gives them the page's text colour.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import vl_convert

from benchkit.errors import ReportError
from benchkit.report.page_text import needs_shaping, printable

Files = dict[str, bytes]
"""A figure's files by their suffix: `.svg`, and where it is to stand beside the report, `.pdf` and `.png`."""

Spec = dict[str, Any]

VEGA_LITE_VERSION = "6.4"
"""The Vega-Lite version that draws figures everywhere; it is the one that Altair writes specs for."""

LONG_SERIES = 200
"""From this many rows on, a spec stores its data as columns."""

PIXELS_PER_INCH = 200
"""The resolution of PNG files at the figures' printed size, in which 96 CSS pixels are an inch."""

MOST_PIXELS = 60_000_000
"""So many pixels a figure's PNG has at the most: 240 MB while it is made."""

PIXELS = 3
"""Pixels of a CSS pixel where a chart is printed as pixels: 288 to the inch."""

HOVER, NEAR = "hover", "near"
"""Layers named `hover...` serve the pointer and are left out of print; selections named `near...` belong to them."""

FONT_FAMILY = "Inter, Liberation Sans, Arial, sans-serif"
"""The font of figures; the report embeds the first of these families in HTML and in the PDF."""

FIGURE_WIDTH = 640
"""The width in CSS pixels that figures are designed for: 169 mm, the text width of an A4 page with 20 mm margins."""

INK = "#1f2328"
"""The colour of text and axes where a figure is not on the page (SVG for print, PNG, PDF)."""

PALETTE = ("#1E78B4", "#C34B00", "#0F784B", "#C32D96", "#5A3C00", "#3C3C69", "#781E3C", "#2A2AF0")
"""Colours of conditions in their order, on a white page; the report's styles turn each into its pair on a dark one."""

DASHES = ((1, 0), (6, 2), (2, 2), (8, 2, 2, 2), (12, 3), (4, 2, 1, 2, 1, 2), (1, 3))
"""Dash patterns of lines in pixels. Seven against eight colours: 56 conditions before a pair repeats."""

SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
"""Shapes of points."""

SEQUENTIAL = ("#E8EFF7", "#C7DAEC", "#A0C3E1", "#73A8D3", "#5596CB", "#2570AC", "#135590", "#0B3A69")
"""Steps of one quantity from little to much."""


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
        spec["description"] = printable(description)
    _separate_pointer(spec)
    refuse_addresses(spec)
    datasets = spec.get("datasets", {})
    packed = {name: _columns(rows) for name, rows in datasets.items() if _records(rows)}
    datasets |= {name: series for name, (series, _) in packed.items()}
    _store_columns(spec, {name: columns for name, (_, columns) in packed.items()})
    return spec


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionStyle:
    """How a condition is drawn: `colour` as #RRGGBB, `dash` in pixels, `shape` by its Vega name."""

    colour: str
    dash: tuple[int, ...]
    shape: str


def condition_scale(labels: Sequence[str]) -> dict[str, ConditionStyle]:
    """Return the style of every condition label, by its place in `labels`: the report's planned conditions in order.

    Figures get the same colours from Vega by giving their colour scale the same labels as domain.
    """
    return {
        label: ConditionStyle(
            colour=PALETTE[index % len(PALETTE)], dash=DASHES[index % len(DASHES)], shape=SHAPES[index % len(SHAPES)]
        )
        for index, label in enumerate(labels)
    }


def vega_config() -> dict[str, Any]:
    """Return the Vega-Lite configuration that every figure is drawn with."""
    text = {"labelColor": "currentColor", "titleColor": "currentColor", "titleFontWeight": 600}
    quiet = {"labelFontSize": 11, "titleFontSize": 11, "labelFont": FONT_FAMILY, "titleFont": FONT_FAMILY}
    lines = {"domainColor": "currentColor", "domainOpacity": 0.5, "tickColor": "currentColor", "tickOpacity": 0.5}
    grid = {"gridColor": "#808080", "gridOpacity": 0.2}
    return {
        "font": FONT_FAMILY,
        "view": {"stroke": None, "continuousWidth": FIGURE_WIDTH - 70, "continuousHeight": 260},
        "axis": {
            **text,
            **quiet,
            **lines,
            **grid,
            "titlePadding": 8,
            "tickSize": 4,
            "labelLimit": 200,
            "labelFlush": False,
        },
        "axisX": {"grid": False},
        "axisQuantitative": {"labelOverlap": "greedy", "labelSeparation": 4},
        "legend": {**text, **quiet, "symbolStrokeWidth": 2, "labelLimit": 220, "symbolLimit": 60, "titleLimit": 300},
        "header": {**text, **quiet, "labelFontWeight": 600, "labelPadding": 4, "titlePadding": 4},
        "title": {"color": "currentColor", "font": FONT_FAMILY, "fontSize": 11, "fontWeight": 600, "offset": 6},
        "text": {"color": "currentColor", "font": FONT_FAMILY, "fontSize": 11},
        "rule": {"color": "currentColor"},
        "line": {"strokeWidth": 1.8, "strokeCap": "butt", "strokeJoin": "round"},
        # Vega-Lite's default of 0.7 costs a transparency group for every point in the PDF.
        **{mark: {"opacity": 1} for mark in ("point", "circle", "square", "tick")},
        "concat": {"spacing": 18},
        "facet": {"spacing": 14},
        "range": {"category": list(PALETTE), "symbol": list(SHAPES), "ordinal": list(SEQUENTIAL)},
    }


def spec_to_svg(spec: Mapping[str, Any]) -> str:
    """Return the spec as SVG for print: equal bytes for equal specs, without gradients and anything outside."""
    svg: str = _drawn(vl_convert.vegalite_to_svg, _static(spec))
    return print_svg(_pixels(svg) if needs_shaping(svg) else svg)


def _pixels(svg: str) -> str:
    """Return an SVG as pixels in an SVG of its size: the printer draws text in charts letter by letter, left to right.

    That mirrors Hebrew, and takes Arabic, Indic and combined letters apart.
    """
    size = _SIZE.search(svg)
    if size is None:
        return svg
    _check_size(svg, PIXELS)
    picture: bytes = converted(vl_convert.svg_to_png, svg.replace("currentColor", INK), scale=PIXELS)
    address = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    width, height = size.groups()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<image href="{address}" width="{width}" height="{height}"/></svg>'
    )


def is_pixels(svg: str) -> bool:
    """Return whether `spec_to_svg` gave the picture as pixels."""
    return re.match(r"<svg[^>]*><image ", svg) is not None


def _printable(node: Any) -> Any:
    if isinstance(node, str):
        return printable(node)
    if isinstance(node, list):
        return [_printable(part) for part in node]
    return {printable(key): _printable(part) for key, part in node.items()} if isinstance(node, dict) else node


def chart_files(spec: str, svg: str) -> Files:
    """Return what `svg_files` makes of a chart's SVG for print; of one that is pixels Vega draws `.pdf` and `.png` anew
    from the spec, JSON, so that the PDF keeps text.
    """
    if is_pixels(svg):
        return {".svg": svg.encode(), ".pdf": spec_to_pdf(json.loads(spec)), ".png": spec_to_png(json.loads(spec))}
    return svg_files(svg)


def svg_files(svg: str) -> Files:
    """Return a picture as `.svg`, as a one-page `.pdf` and as `.png` on white.

    The same picture gives the same bytes of SVG and PNG; vl-convert writes the parts of a PDF in any order. Raises
    `ReportError` when it cannot be drawn, or is so large that its pixels would fill the memory.
    """
    _check_size(svg, PIXELS_PER_INCH / 96)
    white = svg.replace(">", '><rect width="100%" height="100%" fill="white"/>', 1)
    # Without its own resolution, a CSS pixel would become a point.
    pixels = converted(vl_convert.svg_to_png, white, scale=72 / 96, ppi=PIXELS_PER_INCH)
    return {".svg": svg.encode(), ".pdf": converted(vl_convert.svg_to_pdf, svg), ".png": pixels}


def _check_size(svg: str, pixels: float) -> None:
    """Raise `ReportError` for a picture that has too many pixels, of which its CSS pixels have so many a side."""
    if (size := _SIZE.search(svg)) is None:
        return
    width, height = (float(side) for side in size.groups())
    if width * height * pixels**2 > MOST_PIXELS:
        most = f"at most {MOST_PIXELS / pixels**2 / 1e6:.1f} million in all"
        raise ReportError(f"a figure of {width:,.0f} x {height:,.0f} CSS pixels is too large for a PNG ({most})")


def spec_to_png(spec: Mapping[str, Any]) -> bytes:
    """Return the spec as PNG on white."""
    static = _static(spec) | {"background": "white"}
    picture: bytes = _drawn(vl_convert.vegalite_to_png, static, scale=72 / 96, ppi=PIXELS_PER_INCH)
    return picture


def spec_to_pdf(spec: Mapping[str, Any]) -> bytes:
    """Return the spec as a one-page PDF with its fonts embedded; a CSS pixel becomes a point, so scale it to fit."""
    document: bytes = _drawn(vl_convert.vegalite_to_pdf, _static(spec))
    return document


def content_key(spec: str) -> str:
    """Return 24 hex digits of a sha256 over the spec as JSON (its style included) and all that draws it: equal keys,
    equal pictures.
    """
    return hashlib.sha256("\n".join([*_renderer(), spec]).encode()).hexdigest()[:24]


@cache
def _renderer() -> tuple[str, ...]:
    """Return what a picture depends on beside its spec: versions, and our own code that changes SVG for print."""
    own = hashlib.sha256(Path(__file__).read_bytes())
    return version("vl-convert-python"), VEGA_LITE_VERSION, own.hexdigest()


@cache
def register_fonts() -> None:
    """Let vl-convert find the shipped fonts."""
    folder = Path(str(files("benchkit_templates"))) / "fonts"
    if folder.is_dir():
        vl_convert.register_font_directory(str(folder))


def converted(convert: Any, picture: str | Spec, **options: Any) -> Any:
    """Return what a function of vl-convert makes of a picture; raise `ReportError` where it fails."""
    register_fonts()
    try:
        return convert(picture, **options)
    except (ValueError, RuntimeError) as error:  # the one for charts, the other, with its stack, for pictures
        problems = str(error).partition("\n\n")[0].strip().splitlines()[:2]
        raise ReportError("a figure cannot be drawn", problems=problems) from error


def _drawn(convert: Any, spec: Spec, **options: Any) -> Any:
    options |= {"vl_version": VEGA_LITE_VERSION, "allowed_base_urls": []}
    try:
        return converted(convert, spec, **options)
    except ReportError:
        # Vega cuts a long label between the two halves of an emoji, which vl-convert cannot read.
        whole = json.dumps(spec, ensure_ascii=False)
        plain = re.sub("[\U00010000-\U0010ffff]", "\N{WHITE SQUARE}", whole)
        if plain == whole:
            raise
        return converted(convert, json.loads(plain), **options)


def _static(spec: Mapping[str, Any]) -> Spec:
    """Return a copy of the spec for a still picture: without what only pointers and screen readers meet in HTML."""
    static: Spec = json.loads(json.dumps(spec))
    gone = _drop_hover(static)
    for param in list(static.get("params", [])):
        views = param.get("views", [])
        param |= {"views": [view for view in views if view not in gone]} if views else {}
        if views and not param["views"]:
            static["params"].remove(param)
    static["config"] = {**static.get("config", {}), "aria": False}
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


_SIZE = re.compile(r'<svg[^>]* width="([\d.]+)" height="([\d.]+)"')
_STRIPS = 48
_GRADIENT = re.compile(r'<linearGradient id="([^"]+)"([^>]*)>(.*?)</linearGradient>', re.DOTALL)
_STOP = re.compile(r'<stop offset="([^"]+)" stop-color="([^"]+)"')
_TAG = re.compile(r'<[A-Za-z/][^<>"]*(?:"[^"]*"[^<>"]*)*>')
_ID = re.compile(r'\bid="([^"]+)"')
_USE = re.compile(r'(\bid="|url\(#|href="#)([^")]+)')
_OUTSIDE = re.compile(r'href="(?!#|data:)([^"]*)"')
_CLIP = re.compile(r'<clipPath id="([^"]+)">(.*?)</clipPath>', re.DOTALL)
_CLIPPED = re.compile(r'clip-path="url\(#([^")]+)\)"')
_SILENT = re.compile(r' (?:role|aria-[a-z]+|pointer-events)="[^"]*"')
_UNSEEN = re.compile(r'<path class="(?:background|foreground)" d="[^"<>]*"(?: display="none")?/>')
_ALIKE = re.compile(
    r'(<g transform="[^"<>]*"><g><g class="[^"<>]*"(?: clip-path="[^"<>]*")?>)(?:<path [^<>]*/>)+</g></g></g>'
    r"(?:\1(?:<path [^<>]*/>)+</g></g></g>)+"
)
_PLACE = re.compile(r' (?:d|transform|[xy][12]?)="[^"]*"')
_FAR = re.compile(r"(?<![\d.])(?:\d{6,}(?:\.\d+)?(?:e\+?\d+)?|\d+(?:\.\d+)?e\+\d+)")
_RECTANGLE = re.compile(r"M([-\d.]+),([-\d.]+)h([-\d.]+)v([-\d.]+)h-[-\d.]+Z")

Colour = tuple[float, float, float]


def print_svg(svg: str) -> str:
    """Return the SVG with ids numbered from 0, gradients drawn as solid strips and `currentColor` as ink.

    Vega counts ids up per process; PDF viewers disagree about gradients. Equal clip paths become one, defined before
    they are used, because the printer looks for them one by one from the start. What lies beyond the axes lies 100,000
    pixels away at the most: PDF viewers hang at 1e28, where a diverging loss leads a clipped line. Only tags are
    changed, never text: a label may look like an attribute. Raises `ReportError` when the picture refers to anything
    outside itself.
    """
    tags = _TAG.findall(svg)
    outside = [address for tag in tags for address in _OUTSIDE.findall(tag)]
    if outside:
        raise ReportError("a figure refers to something outside itself", problems=outside)
    svg = _definitions_first(_without_gradients(svg))
    names = _stable_names(svg)

    def renamed(use: re.Match[str]) -> str:
        name = names.get(use[2])
        return use[0] if name is None else f"{use[1]}{name}"

    def plain(tag: re.Match[str]) -> str:
        near = _PLACE.sub(lambda place: _FAR.sub("100000", place[0]), _SILENT.sub("", tag[0]))
        return _USE.sub(renamed, near).replace("currentColor", INK)

    return _lean(_TAG.sub(plain, svg))


def _definitions_first(svg: str) -> str:
    """Return the SVG with its clip paths at its head, each shape once; the names of the others lead to it."""
    clips = _CLIP.findall(svg)
    if not clips:
        return svg
    first = {content: name for name, content in reversed(clips)}
    same = {name: first[content] for name, content in clips}
    drawn = "".join(f'<clipPath id="{name}">{content}</clipPath>' for content, name in first.items())
    rest = _CLIP.sub("", svg).replace("<defs></defs>", "")

    def led(tag: re.Match[str]) -> str:
        return _CLIPPED.sub(lambda use: f'clip-path="url(#{same.get(use[1], use[1])})"', tag[0])

    head, _, body = _TAG.sub(led, rest).partition(">")
    return f"{head}><defs>{drawn}</defs>{body}"


def _lean(svg: str) -> str:
    """Return the SVG without shapes that show nothing, and with the lines of a series in one group.

    Vega frames each line on its own: of a chart with a panel for each of 40 conditions that is five elements of six.
    """

    def joined(run: re.Match[str]) -> str:
        return f"{run[1]}{run[0].removeprefix(run[1]).replace(f'</g></g></g>{run[1]}', '')}"

    return _ALIKE.sub(joined, _UNSEEN.sub("", svg))


def _stable_names(svg: str) -> dict[str, str]:
    ids = [name for tag in _TAG.findall(svg) for name in _ID.findall(tag)]
    return {name: f"id-{number}" for number, name in enumerate(dict.fromkeys(ids))}


def _without_gradients(svg: str) -> str:
    for name, direction, content in _GRADIENT.findall(svg):
        stops = [(float(offset), _colour(colour)) for offset, colour in _STOP.findall(content)]
        marks = re.compile(rf'<path d="([^"]*)"([^>]*?) fill="url\(#{re.escape(name)}\)"([^>]*?)/>')
        vertical = 'x1="0" x2="0"' in direction
        svg = marks.sub(lambda mark, s=stops, v=vertical: _strips(mark, s, v), svg)  # type: ignore[misc]
        svg = svg.replace(f"url(#{name})", _text(_between(stops, 0.5)))
    return _GRADIENT.sub("", svg).replace("<defs></defs>", "")


def _strips(mark: re.Match[str], stops: Sequence[tuple[float, Colour]], vertical: bool) -> str:
    path, before, after = mark.groups()
    shape = _RECTANGLE.fullmatch(path)
    if shape is None:
        return f'<path d="{path}"{before} fill="{_text(_between(stops, 0.5))}"{after}/>'
    x, y, width, height = (float(part) for part in shape.groups())
    length, parts = (height if vertical else width), []
    for strip in range(_STRIPS):
        start, size = length * strip / _STRIPS, length / _STRIPS
        size += 0 if strip == _STRIPS - 1 else size / 2  # overlapping strips leave no hairlines between them
        share = (strip + 0.5) / _STRIPS
        colour = _text(_between(stops, 1 - share if vertical else share))
        left, top, wide, high = (x, y + start, width, size) if vertical else (x + start, y, size, height)
        parts.append(f'<rect x="{left:.2f}" y="{top:.2f}" width="{wide:.2f}" height="{high:.2f}" fill="{colour}"/>')
    return f"<g>{''.join(parts)}</g>"


def _between(stops: Sequence[tuple[float, Colour]], share: float) -> Colour:
    for (low, first), (high, second) in itertools.pairwise(stops):
        if low <= share <= high and high > low:
            part = (share - low) / (high - low)
            red, green, blue = (a + (b - a) * part for a, b in zip(first, second, strict=True))
            return red, green, blue
    return stops[-1][1]


def _colour(text: str) -> Colour:
    if text.startswith("#"):
        digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:4])
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)
    red, green, blue = (float(part) for part in re.findall(r"[\d.]+", text)[:3])
    return red, green, blue


def _text(colour: Colour) -> str:
    return "#" + "".join(f"{round(part):02x}" for part in colour)
