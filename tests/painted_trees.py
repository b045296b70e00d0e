"""Trees of small painted images, in which tests know every colour."""

from __future__ import annotations

import hashlib
from pathlib import Path

from PIL import Image

Colour = tuple[int, int, int]


def paint(file: Path, colour: Colour, size: tuple[int, int] = (40, 30)) -> Path:
    """Write an image of one colour, (width, height)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file, quality=95)
    return file


def shade(*parts: int) -> Colour:
    """Return a colour that belongs to the parts."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return (digest[0], digest[1], digest[2])
