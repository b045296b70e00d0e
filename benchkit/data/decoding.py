"""Decoding image files in parallel into an array that the caller provides."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from benchkit.data.progress import report_progress

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""File name endings, in lower case, that count as images."""

Part = TypeVar("Part")
_CHUNK = 256
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_DEEP_MODES = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What came of decoding: a SHA-256 digest of every image's pixels, in order, and what could not be used, and why.

    The digest of a file with a problem is empty.
    """

    digests: list[bytes]
    problems: list[str]


def decode_images(files: Sequence[Path], out: np.ndarray, *, what: str, resize: bool = False) -> Decoded:
    """Decode `files` into `out`, uint8 (N, H, W, C), and return digests and problems.

    C = 3 converts every image to RGB and drops transparency, C = 1 converts to grey (ITU-R 601-2 luma). With `resize`
    images become (H, W) bilinearly with antialiasing, without keeping their aspect; else another size is a problem.
    EXIF orientation is not applied. Threads share the work: libraries decode outside Python's interpreter lock, and
    for tiny images processes were not faster.
    """
    if out.shape[-1] not in (1, 3):
        raise ValueError(f"images have 1 or 3 channels, not {out.shape[-1]}")

    def decode_chunk(start: int) -> Decoded:
        digests, problems = [], []
        for index in range(start, min(start + _CHUNK, len(files))):
            try:
                out[index] = _pixels(files[index], out.shape[1:], resize=resize)
            except _UNREADABLE as error:
                problems.append(f"{files[index]}: {error or type(error).__name__}")
                digests.append(b"")
            else:
                digests.append(hashlib.sha256(out[index]).digest())
        return Decoded(digests=digests, problems=problems)

    digests: list[bytes] = []
    problems: list[str] = []
    for part in _in_threads(decode_chunk, len(files), what):
        digests.extend(part.digests)
        problems.extend(part.problems)
    return Decoded(digests=digests, problems=problems)


def image_sizes(files: Sequence[Path], *, what: str) -> tuple[list[tuple[int, int] | None], list[str]]:
    """Return (H, W) of every file from its header, None where it cannot be read, and the problems."""

    def read_chunk(start: int) -> tuple[list[tuple[int, int] | None], list[str]]:
        sizes: list[tuple[int, int] | None] = []
        problems = []
        for file in files[start : start + _CHUNK]:
            try:
                with Image.open(file) as image:
                    sizes.append((image.height, image.width))
            except _UNREADABLE as error:
                sizes.append(None)
                problems.append(f"{file}: {error or type(error).__name__}")
        return sizes, problems

    sizes: list[tuple[int, int] | None] = []
    problems: list[str] = []
    for part, bad in _in_threads(read_chunk, len(files), what):
        sizes.extend(part)
        problems.extend(bad)
    return sizes, problems


def pixel_digests(images: np.ndarray) -> list[bytes]:
    """Return the SHA-256 digest of the pixels of each image of uint8 (N, H, W, C)."""
    return [hashlib.sha256(image.tobytes()).digest() for image in images]


def _in_threads(work: Callable[[int], Part], total: int, what: str) -> Iterator[Part]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(min(32, cores))
    starts = range(0, total, _CHUNK)
    report_progress(0, total, what)
    try:
        for start, part in zip(starts, pool.map(work, starts), strict=True):
            yield part
            report_progress(min(start + _CHUNK, total), total, what)
    finally:
        pool.shutdown(cancel_futures=True)  # else Ctrl-C would wait for all files


def _pixels(file: Path, shape: tuple[int, ...], *, resize: bool) -> np.ndarray:
    height, width, channels = shape
    with Image.open(file) as opened:
        if opened.mode in _DEEP_MODES:
            raise ValueError(f"mode {opened.mode} holds more than 8 bits a channel; convert it to 8 bits")
        image: Image.Image = opened
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert("L" if channels == 1 else "RGB")
        if resize and image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        if image.size != (width, height):
            raise ValueError(f"{image.height}x{image.width} pixels (height x width), expected {height}x{width}")
        return np.asarray(image, dtype=np.uint8).reshape(shape)
