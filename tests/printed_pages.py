"""How full the pages of a printed report are, and why one is not."""

from __future__ import annotations

import re
from pathlib import Path

import pypdf

TOP, BOTTOM, HEIGHT = (mm / 25.4 * 72 for mm in (20, 18, 297))
LEAST_SIZE = 0.8  # a figure is not drawn smaller


def half_empty(path: Path) -> list[tuple[int, float]]:
    """Return the pages that are less than half full for no reason, and how full they are.

    A reason is that the report ends, or that the next page begins with a figure too tall for what is left.
    """
    pages = [_texts(page) for page in pypdf.PdfReader(path).pages]
    assert len(pages) > 5
    found = []
    for place, texts in enumerate(pages[:-1]):
        full = max((share for share, _ in texts), default=0.0)
        captions = [share for share, text in pages[place + 1] if re.match(r"Figure \d+\.", text)]
        if full < 0.5 and not (captions and LEAST_SIZE * min(captions) > 1 - full):
            found.append((place + 1, round(full, 2)))
    return found


def fullness(path: Path) -> list[float]:
    """Return how far down the text of every page reaches, as a share of the height between head and foot."""
    return [max((share for share, _ in _texts(page)), default=0.0) for page in pypdf.PdfReader(path).pages]


def _texts(page: pypdf.PageObject) -> list[tuple[float, str]]:
    """Return the texts of a page between head and foot with how far down they stand, as a share of that height."""
    found: list[tuple[float, str]] = []

    def note(text: str, user: list[float], matrix: list[float], *_: object) -> None:
        place = matrix[4] * user[1] + matrix[5] * user[3] + user[5]
        if text.strip() and BOTTOM - 1 < place < HEIGHT - TOP:
            found.append(((HEIGHT - TOP - place) / (HEIGHT - TOP - BOTTOM), text.strip()))

    page.extract_text(visitor_text=note)
    return found
