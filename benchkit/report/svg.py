"""SVG as Vega writes it, made fit for print: stable ids, no gradients, no colours of a page, nothing from outside."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from benchkit.errors import ReportError
from benchkit.report.style import INK

_STRIPS = 48
_GRADIENT = re.compile(r'<linearGradient id="([^"]+)"([^>]*)>(.*?)</linearGradient>', re.DOTALL)
_STOP = re.compile(r'<stop offset="([^"]+)" stop-color="([^"]+)"')
_ID = re.compile(r'\bid="([^"]+)"')
_USE = re.compile(r'(\bid="|url\(#|href="#)([^")]+)')
_RECTANGLE = re.compile(r"M([-\d.]+),([-\d.]+)h([-\d.]+)v([-\d.]+)h-[-\d.]+Z")

Colour = tuple[float, float, float]


def print_svg(svg: str) -> str:
    """Return the SVG with ids numbered from 0, gradients drawn as solid strips and `currentColor` as ink.

    Vega counts ids up per process; PDF viewers disagree about gradients. Raises `ReportError` when the picture refers
    to anything outside itself.
    """
    outside = re.findall(r'href="(?!#|data:)([^"]*)"', svg)
    if outside:
        raise ReportError("a figure refers to something outside itself", problems=outside)
    svg = _without_gradients(svg)
    return _stable_ids(svg).replace("currentColor", INK)


def _stable_ids(svg: str) -> str:
    """Return the SVG with ids by their place; one pass, because a figure may have hundreds of clip paths."""
    places = {name: place for place, name in enumerate(dict.fromkeys(_ID.findall(svg)))}

    def renamed(found: re.Match[str]) -> str:
        place = places.get(found[2])
        return found[0] if place is None else f"{found[1]}id-{place}"

    return _USE.sub(renamed, svg)


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
    for place in range(_STRIPS):
        start, size = length * place / _STRIPS, length / _STRIPS
        size += 0 if place == _STRIPS - 1 else size / 2  # overlapping strips leave no hairlines between them
        share = (place + 0.5) / _STRIPS
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
