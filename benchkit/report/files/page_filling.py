"""Full pages: a figure or short table that does not fit lets what follows go first, is drawn smaller, or is parted.

The report is laid out once; from the heights found then, the blocks of every section are put in an order that leaves
less of each page blank, and laid out again. Figures keep their order, tables keep theirs, nothing leaves its section or
passes a heading, and the first layout is kept where the second is no better.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

WORTH = 0.15
"""So small a share of a page may stay blank."""

LEAST_SIZE = 0.8
"""No figure is drawn smaller than this share of its size: its letters, of 8.25 points, keep 6.6."""


MUCH = 0.3
"""Where so large a share of a page would stay blank, a table of more than `MOST_WHOLE` rows goes over two pages."""

MOST_WHOLE = 5

_CHANGED = "data-fitted"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    """A block of a section, with the headings above it: its heights in CSS pixels, and what may be done with it.

    `floats` names the kind within which order is kept, or is empty for what stays in its place.
    """

    elements: list[Any]
    height: float
    above: float
    below: float
    breaks: bool
    floats: str
    picture: Any
    picture_height: float

    @property
    def headed(self) -> bool:
        """Return whether a heading stands above the block, which it must not leave."""
        return len(self.elements) > 1


@dataclass(slots=True, kw_only=True)
class _Sheet:
    """The page that is being filled: its height, how far it is filled, and the margin below what stands last."""

    height: float
    used: float = 0.0
    below: float = 0.0

    def room(self, unit: _Unit) -> float:
        """Return the height that is left for a unit on this page."""
        return self.height - self.used - (max(self.below, unit.above) if self.used else 0.0)

    def put(self, unit: _Unit) -> None:
        """Put a unit below what is there; on the next page, or over more pages, where it does not fit."""
        room = self.room(unit)
        if unit.height <= room:
            self.used = self.height - room + unit.height
        else:
            self.used = (unit.height - room if unit.breaks else unit.height) % self.height
        self.below = unit.below


def filled(lay_out: Callable[[], Any]) -> Any:
    """Return the laid out document: of two layouts the one of fewer pages, or of less blank on them.

    `lay_out` lays out the element tree that the boxes of its documents refer to; it is changed between the two.
    """
    document = lay_out()
    before = fills(document)
    if all(share >= 1 - WORTH for share in before[:-1]) or not _rearranged(document):
        return document
    again = lay_out()
    after = fills(again)
    return again if (len(after), -sum(after[:-1])) < (len(before), -sum(before[:-1])) else document


def fills(document: Any) -> list[float]:
    """Return for every page how far down what stands on it reaches, as a share of the height for content."""
    pages = [page._page_box for page in document.pages]
    return [(_lowest(page.children[0]) - page.content_box_y()) / page.height for page in pages]


def _lowest(box: Any) -> float:
    children = [child for child in getattr(box, "children", ()) if child.is_in_normal_flow()]
    own = float(box.border_box_y() + box.border_height())
    return own if not children or type(box).__name__ == "LineBox" else max(_lowest(child) for child in children)


def _rearranged(document: Any) -> bool:
    """Reorder and shrink in the document's element tree; return whether anything changed."""
    sheet = _Sheet(height=document.pages[0]._page_box.height)
    changed = False
    sections = _sections(document)
    margin = max((margin for _, margin, _ in sections.values()), default=0.0)  # left out where a page begins
    for section, (start, _, boxes) in sections.items():
        if start is not None:
            sheet.used, sheet.below = start, 0.0
        units = list(_units(section, boxes))
        if start is None and units:
            units[0] = replace(units[0], above=max(units[0].above, margin))
        moved = [element for unit in _order(units, sheet) for element in unit.elements]
        changed |= moved != list(section) or any(unit.elements[-1].get(_CHANGED) for unit in units)
        section[:] = moved
    return changed


def _sections(document: Any) -> dict[Any, tuple[float | None, float, dict[Any, list[Any]]]]:
    """Return for every section where it starts if it follows on none, its margin, and the boxes of its children."""
    found: dict[Any, tuple[float | None, float, dict[Any, list[Any]]]] = {}
    for page in document.pages:
        sheet = page._page_box
        for parent, box in _parts(sheet.children[0]):
            if box.element not in found:
                siblings = list(parent.element)
                place = siblings.index(box.element)
                fresh = place == 0 or not _is_part(siblings[place - 1])
                start = box.border_box_y() - sheet.content_box_y() if fresh else None
                found[box.element] = (start, box.margin_top, {})
            for child in box.children:
                found[box.element][2].setdefault(child.element, []).append(child)
    return found


def _is_part(element: Any) -> bool:
    return element is not None and "part" in element.get("class", "").split()


def _parts(box: Any) -> Iterator[tuple[Any, Any]]:
    for child in getattr(box, "children", ()):
        if _is_part(child.element):
            yield box, child
        else:
            yield from _parts(child)


def _units(section: Any, boxes: Mapping[Any, list[Any]]) -> Iterator[_Unit]:
    """Return the blocks of a section, each with the headings that stand above it."""
    waiting: list[Any] = []
    for element in section:
        waiting.append(element)
        introduces = element.tag == "p" and len(waiting) == 2 and waiting[0].tag == "h2"
        if element.tag in ("h2", "h3") or introduces or element not in boxes:
            continue
        yield _unit(waiting, boxes)
        waiting = []
    if waiting:
        yield _unit(waiting, boxes)


def _unit(elements: list[Any], boxes: Mapping[Any, list[Any]]) -> _Unit:
    """Return the unit of a block, which is the last of the elements."""
    laid = [boxes[element] for element in elements if element in boxes]
    between = sum(max(one[-1].margin_bottom, other[0].margin_top) for one, other in itertools.pairwise(laid))
    words = elements[-1].get("class", "").split()
    whole = {"finding", "short", "figure"} & set(words)
    picture = next((box for part in boxes.get(elements[-1], ()) for box in _drawings(part)), None)
    return _Unit(
        elements=elements,
        height=between + sum(box.border_height() for parts in laid for box in parts),
        above=laid[0][0].margin_top if laid else 0.0,
        below=laid[-1][-1].margin_bottom if laid else 0.0,
        breaks=not whole,
        floats=words[0] if elements[-1].tag == "figure" and whole else "",
        picture=None if picture is None else picture.element,
        picture_height=0.0 if picture is None else picture.height,
    )


def _drawings(box: Any) -> Iterator[Any]:
    if box.element is not None and box.element.tag == "img" and box.element.get("class") == "drawing":
        yield box
    for child in getattr(box, "children", ()):
        yield from _drawings(child)


def _order(units: Sequence[_Unit], sheet: _Sheet) -> list[_Unit]:
    """Return the units in the order that leaves less blank, and fill the sheet with them."""
    placed: list[_Unit] = []
    waiting: list[_Unit] = []

    def place(unit: _Unit) -> None:
        unit = _fitted(unit, sheet)
        sheet.put(unit)
        placed.append(unit)

    for at, unit in enumerate(units):
        if unit.floats and not unit.headed and any(other.floats == unit.floats for other in waiting):
            waiting.append(unit)
            continue
        if waiting and (unit.headed or not (unit.breaks or unit.height <= sheet.room(unit))):
            while waiting:
                place(waiting.pop(0))
        if _may_wait(unit, units[at + 1 :], sheet):
            waiting.append(unit)
            continue
        place(unit)
        while waiting and waiting[0].height <= sheet.room(waiting[0]):
            place(waiting.pop(0))
    while waiting:
        place(waiting.pop(0))
    return placed


def _fitted(unit: _Unit, sheet: _Sheet) -> _Unit:
    """Draw a figure so much smaller that it fits on the page, where that is little enough; let a longer table break."""
    room, block = sheet.room(unit), unit.elements[-1]
    missing = unit.height - room + 1
    if missing <= 1:
        return unit
    if unit.picture is not None and missing <= (1 - LEAST_SIZE) * unit.picture_height:
        unit.picture.set("style", f"max-height: {unit.picture_height - missing:.0f}px")
        block.set(_CHANGED, "smaller")
        return replace(unit, height=room - 1)
    if unit.floats and room >= MUCH * sheet.height and sum(1 for _ in block.iter("tr")) > MOST_WHOLE:
        block.set("class", block.get("class", "").replace("short", ""))
        block.set(_CHANGED, "parted")
        return replace(unit, breaks=True)
    return unit


def _may_wait(unit: _Unit, later: Sequence[_Unit], sheet: _Sheet) -> bool:
    """Return whether a unit leaves much of the page blank that one of the later ones, of another kind, would fill."""
    room = sheet.room(unit)
    smaller = unit.picture is not None and unit.height - room + 1 <= (1 - LEAST_SIZE) * unit.picture_height
    if not unit.floats or unit.headed or smaller or unit.height <= room or room <= WORTH * sheet.height:
        return False
    until = itertools.takewhile(lambda other: not other.headed, later)
    fills_it = next((other for other in until if other.floats != unit.floats), None)
    if fills_it is None:
        return False
    return fills_it.height <= room or (fills_it.breaks and fills_it.height <= room + sheet.height / 2)
