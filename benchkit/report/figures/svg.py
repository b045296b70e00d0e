"""SVG as Vega writes it, made fit for print: stable ids, no gradients, no colours of a page, nothing from outside."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from benchkit.errors import ReportError
from benchkit.report.figures.style import INK

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
_RECTANGLE = re.compile(r"M([-\d.]+),([-\d.]+)h([-\d.]+)v([-\d.]+)h-[-\d.]+Z")

Colour = tuple[float, float, float]


def print_svg(svg: str) -> str:
    """Return the SVG with ids numbered from 0, gradients drawn as solid strips and `currentColor` as ink.

    Vega counts ids up per process; PDF viewers disagree about gradients. Equal clip paths become one, defined before
    they are used, because the printer looks for them one by one from the start. Only tags are changed, never text: a
    label may look like an attribute. Raises `ReportError` when the picture refers to anything outside itself.
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

    return _TAG.sub(lambda tag: _USE.sub(renamed, _SILENT.sub("", tag[0])).replace("currentColor", INK), svg)


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
