"""How full the pages of a printed report are."""

from __future__ import annotations

from pathlib import Path

import pypdf


def printed_fills(path: Path) -> list[float]:
    """Return for every page of a report how far down its text reaches, as a share of the height between the margins."""
    top, bottom, height = (mm / 25.4 * 72 for mm in (24, 22, 297))
    shares = []
    for page in pypdf.PdfReader(path).pages:
        lowest = [height - top]

        def note(text: str, user: list[float], matrix: list[float], *_: object, found: list[float] = lowest) -> None:
            place = matrix[4] * user[1] + matrix[5] * user[3] + user[5]
            if text.strip() and place > bottom - 1:  # below stands the page's number
                found.append(place)

        page.extract_text(visitor_text=note)
        shares.append((height - top - min(lowest)) / (height - top - bottom))
    return shares
