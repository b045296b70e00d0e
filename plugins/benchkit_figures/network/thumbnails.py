"""Small pictures for image grids: enlarged without smoothing, with heat over them or maps beside each other."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 96
"""About how many pixels a thumbnail is wide; small images are enlarged by whole factors."""

HEAT = ((13, 8, 60), (92, 1, 166), (178, 42, 143), (225, 100, 98), (252, 166, 54), (240, 249, 33))
"""From little to much: dark blue over red to yellow, with rising lightness (after the colour map plasma)."""

INK, PAPER = (31, 35, 40), (255, 255, 255)
STRIP = 15
TILE = 32
LEVELS = 31
"""Steps of heat in a mosaic: few enough for small files."""


def rgb(image: np.ndarray) -> np.ndarray:
    """Return an image uint8 (H, W, C), C = 1 or 3, as (H, W, 3); of other channel counts, the first."""
    return image if image.shape[2] == 3 else np.repeat(image[:, :, :1], 3, axis=2)


def enlarged(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Return (H, W, 3) with every pixel repeated until it is about `side` wide; larger images are averaged down."""
    longest = max(image.shape[:2])
    if longest > side:
        size = [max(1, round(length * side / longest)) for length in image.shape[1::-1]]
        return np.asarray(Image.fromarray(image).resize((size[0], size[1]), Image.Resampling.BOX))
    times = max(1, side // longest)
    return np.repeat(np.repeat(image, times, axis=0), times, axis=1)


def heated(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return an image (H, W, C) in grey under heat, uint8 (h, w): the more heat, the less of it shows through."""
    large = enlarged(rgb(image)).astype(np.float64)
    smooth = Image.fromarray(heat).resize((large.shape[1], large.shape[0]), Image.Resampling.BILINEAR)
    share = np.asarray(smooth, dtype=np.float64)[:, :, None] / 255
    grey = large.mean(axis=2, keepdims=True).repeat(3, axis=2)
    strength = 0.25 + 0.4 * share
    return np.asarray(np.round((1 - strength) * grey + strength * coloured(share[:, :, 0])), dtype=np.uint8)


def coloured(share: np.ndarray) -> np.ndarray:
    """Return the colour (..., 3), float64 in 0..255, of shares in [0, 1]."""
    steps, ends = np.asarray(HEAT, dtype=np.float64), np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(share, ends, steps[:, channel]) for channel in range(3)], axis=-1)


def mosaic(maps: np.ndarray, gap: int = 1) -> np.ndarray:
    """Return maps uint8 (F, h, w) side by side in about as many rows as columns, in heat colours, (H, W, 3).

    Each map is enlarged by a whole factor to about `TILE` pixels; white lines lie between.
    """
    times = max(1, TILE // max(maps.shape[1:]))
    maps = maps.repeat(times, axis=1).repeat(times, axis=2)
    count, height, width = maps.shape
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for index, tile in enumerate(maps):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = np.round(coloured(np.round(tile / 255.0 * LEVELS) / LEVELS))
    return sheet


def with_words(image: np.ndarray, words: str) -> np.ndarray:
    """Return an image (H, W, 3) above a white strip with a word or two."""
    picture = Image.new("RGB", (image.shape[1], image.shape[0] + STRIP), PAPER)
    picture.paste(Image.fromarray(image), (0, 0))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.truetype(Path(str(files("benchkit_templates"))) / "fonts" / "Inter-Regular.ttf", 11)
    middle = (image.shape[1] - draw.textlength(words, font=font)) / 2
    draw.text((middle, image.shape[0] + 1), words, fill=INK, font=font)
    return np.asarray(picture)


def jpeg(image: np.ndarray) -> bytes:
    """Return (H, W, 3) as JPEG."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=82, optimize=True, subsampling=0)
    return out.getvalue()


def png(image: np.ndarray) -> bytes:
    """Return (H, W, 3) as PNG in at most 256 colours."""
    out = io.BytesIO()
    Image.fromarray(image).quantize(256).save(out, "PNG", optimize=True)
    return out.getvalue()


def picture_rows(words: str, pictures: Sequence[bytes], columns: int) -> list[tuple[str, tuple[bytes, ...]]]:
    """Return pictures in rows of an image grid under the same words; the last row is filled up with white."""
    blank = jpeg(np.full((8, 8, 3), 255, dtype=np.uint8))
    rows = [tuple(pictures[start : start + columns]) for start in range(0, len(pictures), columns)]
    return [(words, (*row, *[blank] * (columns - len(row)))) for row in rows]
