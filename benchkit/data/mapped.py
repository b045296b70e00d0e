"""What the system is told of images in mapped files: which are needed soon, and which no longer."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator

import numpy as np

LARGE = 2**30
"""Bytes of images from which on they may not all stay in memory."""

READ = 2**23
"""Bytes of images that one pass over all of them handles at a time."""

PIECE = 2**19
"""Bytes that are asked for at a time: of more, Linux reads the beginning alone."""

Ask = Callable[[Iterable[int]], None]
"""Asks the system to read the images at some rows into memory, and does not wait for them."""


def asking(images: np.ndarray) -> Ask | None:
    """Return what asks for images uint8 (N, H, W, C) of a mapped file; None where they are few or in no such file.

    Left to itself, the system reads an image when it is touched, and with it megabytes around that no random order
    needs: what is trained on waits for the disk. After each `LARGE` bytes the process lets go of the file's pages;
    the system may keep them.
    """
    found = _mapping(images)
    if found is None or images.nbytes < LARGE or not hasattr(mmap, "MADV_WILLNEED"):
        return None
    mapping, first = found
    size = images.nbytes // len(images)
    asked = 0

    def ask(rows: Iterable[int]) -> None:
        nonlocal asked
        for row in rows:
            start = first + row * size
            for piece in range(start - start % mmap.PAGESIZE, start + size, PIECE):
                mapping.madvise(mmap.MADV_WILLNEED, piece, min(PIECE, start + size - piece))
            asked += size
        if asked >= LARGE:
            let_go(images)
            asked = 0

    return ask


def parts(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield images (N, H, W, C) in their order, some megabytes at a time, and let go of each part afterwards."""
    step = max(1, READ // max(1, images[:1].nbytes))
    for start in range(0, len(images), step):
        part = images[start : start + step]
        yield part
        let_go(part)


def let_go(images: np.ndarray) -> None:
    """Take images out of this process's memory until they are touched again; only those of files mapped as they are.

    What was written stays, in the system's memory and then on disk. Copy-on-write maps are left alone: they would lose
    it.
    """
    found = _mapping(images)
    if found is None or getattr(images, "mode", "c") == "c" or not hasattr(mmap, "MADV_DONTNEED"):
        return
    mapping, first = found
    start = first - first % mmap.PAGESIZE
    mapping.madvise(mmap.MADV_DONTNEED, start, first + images.nbytes - start)


def _mapping(images: np.ndarray) -> tuple[mmap.mmap, int] | None:
    """Return the map that contiguous images lie in, and how many bytes from its beginning; None for other memory."""
    owner = images.base
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if not isinstance(owner, mmap.mmap) or not images.flags.c_contiguous or not images.size:
        return None
    return owner, images.ctypes.data - np.frombuffer(owner, np.uint8).ctypes.data
