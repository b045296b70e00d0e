"""Cutting rectangles out of image files in parallel and resizing them into an array that the caller provides."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchkit.preparation import report_progress

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels; edges between pixels are resampled, not rounded."""
BoxOf = Callable[[int, int, int], Box]
"""The box to cut out: index of the file, height and width of its image in; raises `ValueError` with a reason."""

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def central_square(_: int, height: int, width: int) -> Box:
    """Return the largest square in the middle of an image."""
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return (left, top, left + side, top + side)


def cut_images(files: Sequence[Path], box_of: BoxOf, out: np.ndarray, *, what: str) -> list[str]:
    """Write the RGB pixels of each file's box to `out`, uint8 (N, H, W, 3), and return what could not be used, and why.

    Boxes become (H, W) bilinearly with antialiasing, without keeping their aspect. EXIF orientation is not applied.
    """
    height, width = out.shape[1:3]

    def cut(index: int) -> str:
        try:
            with Image.open(files[index]) as opened:
                box = box_of(index, opened.height, opened.width)
                image = opened.convert("RGB").resize((width, height), Image.Resampling.BILINEAR, box=box)
            out[index] = np.asarray(image)
        except _UNREADABLE as error:
            return f"{files[index]}: {error or type(error).__name__}"
        return ""

    problems = []
    report_progress(0, len(files), what)
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        for done, problem in enumerate(pool.map(cut, range(len(files))), start=1):
            problems += [problem] if problem else []
            if done % 256 == 0 or done == len(files):
                report_progress(done, len(files), what)
    return problems
