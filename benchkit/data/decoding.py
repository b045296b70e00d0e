"""Decoding image files in parallel into an array that the caller provides."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from benchkit.data.mapped import READ, let_go
from benchkit.data.prepared import report_progress

if TYPE_CHECKING:  # Pillow is imported where a file is decoded: a worker decodes none
    from PIL import Image

IMAGE_SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"}
    | {".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""File name endings, in lower case, that count as images."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels; edges between pixels are resampled, not rounded."""
BoxOf = Callable[[int, int, int], Box]
"""The box to cut out: index of the file, height and width of its image in; raises `ValueError` with a reason."""
Fit = Literal["squash", "crop", "pad"]
"""How an image of another shape becomes (H, W): squashed, its largest middle part of that shape, or padded in black."""

Part = TypeVar("Part")
_CHUNK = 256
_DECODERS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Those of Pillow that read pixels by themselves: for an EPS file, whatever its name, Pillow starts Ghostscript."""
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
)
DECODING = 2
"""The number of today's rules by which a file becomes pixels, part of the key of sets that are read by them.

1: mode by mode as Pillow converts it, sideways and without alpha. 2: as a person sees it (`benchkit.data.appearance`).
"""
DARK = 16
"""Of 256 levels of grey, the one below which an image of 16 bits used the lower 12 of them at most."""
_TREATMENTS = {
    "orientation": "with an EXIF orientation, which is not applied",
    "turned": "turned as their EXIF data say",
    "cmyk": "in CMYK, converted to RGB",
    "profile": "in CMYK, converted by their own colour profiles",
    "transparency": "with an alpha channel or a transparent colour, which is dropped",
    "white": "with transparency, laid on white",
    "deep": "of 16 bits a channel, of which the upper 8 are used",
    "dark": "of these with values in the lower 12 bits alone, so all but black: spread them over 16, or save 8 bits",
    "animation": "with several frames, of which the first is used",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What came of decoding: a SHA-256 digest of every image's pixels, in order, and what could not be used, and why.

    The digest of a file with a problem is empty. `treated` counts the images that lost something on the way or were
    changed, by what was done (see `treatment_notes`).
    """

    digests: list[bytes]
    problems: list[str]
    treated: Mapping[str, int] = field(default_factory=dict)


def decode_images(
    files: Sequence[Path],
    out: np.ndarray,
    *,
    what: str,
    resize: bool = False,
    fit: Fit | BoxOf = "squash",
    rules: int = 1,
) -> Decoded:
    """Decode `files` into `out`, uint8 (N, H, W, C), and return digests and problems.

    C = 3 converts every image to RGB, C = 1 to grey (ITU-R 601-2 luma). With `resize` images become (H, W) bilinearly
    with antialiasing, in the way that `fit` names, or cut to the box that it returns; else another size is a problem.
    `rules` 2 reads images as a person sees them; 1, for sets that were prepared so, drops transparency, does not apply
    EXIF orientation and refuses 16 bits of grey. Threads share the work: libraries decode outside Python's interpreter
    lock, and for tiny images processes were not faster.
    """
    from benchkit.data.appearance import DEEP_MODES, losses, seen

    if out.shape[-1] not in (1, 3):
        raise ValueError(f"images have 1 or 3 channels, not {out.shape[-1]}")
    held = max(1, READ // max(1, out[:1].nbytes))  # images in memory at a time, for each thread

    def decode(index: int) -> tuple[bytes, str, list[str]]:
        try:
            with _opened(files[index]) as image:
                deep = ";16" in str(getattr(image, "tile", "")) or image.mode in DEEP_MODES  # gone once it is read
                shown, done = (seen if rules > 1 else _converted)(image, out.shape[3])
                fitted = _fitted(shown, index, out.shape[1:3], fit if resize else None)
                out[index] = np.asarray(fitted, dtype=np.uint8).reshape(out.shape[1:])
                done += losses(image, deep=deep, dark=deep and int(out[index].max()) < DARK)
            return hashlib.sha256(out[index]).digest(), "", done
        except _UNREADABLE as error:
            return b"", _problem(files[index], error), []
        finally:
            if (index + 1) % held == 0:
                let_go(out[index + 1 - held : index + 1])

    digests: list[bytes] = []
    problems: list[str] = []
    treated = Counter[str]()
    for digest, problem, done in _in_threads(decode, len(files), what):
        digests.append(digest)
        problems += [problem] * bool(problem)
        treated.update(done)
        if len(digests) % _CHUNK == 0:  # what a thread let go of, another one may have been at
            let_go(out[len(digests) - _CHUNK : len(digests)])
    let_go(out)
    return Decoded(digests=digests, problems=problems, treated=dict(treated))


def image_sizes(files: Sequence[Path], *, what: str, rules: int = 1) -> tuple[list[tuple[int, int] | None], list[str]]:
    """Return (H, W) of every file from its header, None where it cannot be read, and the problems.

    With `rules` 2 it is the size in which `decode_images` sees the image by these rules: upright.
    """
    from benchkit.data.appearance import seen_size

    def read(index: int) -> tuple[tuple[int, int] | None, str]:
        try:
            with _opened(files[index]) as image:
                return seen_size(image) if rules > 1 else (image.height, image.width), ""
        except _UNREADABLE as error:
            return None, _problem(files[index], error)

    found = list(_in_threads(read, len(files), what))
    return [size for size, _ in found], [problem for _, problem in found if problem]


def treatment_notes(decoded: Sequence[Decoded]) -> list[str]:
    """Return a note for a report on the images that were changed when they were decoded; none where none were."""
    counts = Counter[str]()
    for part in decoded:
        counts.update(part.treated)
    counted = [f"{counts[name]:,} {words}" for name, words in _TREATMENTS.items() if counts[name]]
    return [f"Images that were changed when they were decoded: {'; '.join(counted)}."] if counted else []


def pixel_digests(images: np.ndarray) -> list[bytes]:
    """Return the SHA-256 digest of the pixels of each image of uint8 (N, H, W, C)."""
    return [hashlib.sha256(image.tobytes()).digest() for image in images]


def _in_threads(work: Callable[[int], Part], total: int, what: str) -> Iterator[Part]:
    """Yield what `work` makes of each number below `total`, in order; a thread does some of them at a time."""

    def chunk(start: int) -> list[Part]:
        return [work(index) for index in range(start, min(start + _CHUNK, total))]

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(min(32, cores))
    starts = range(0, total, _CHUNK)
    report_progress(0, total, what)
    with warnings.catch_warnings():
        # Pillow's warnings name no file; what they warn of either raises later or does not change pixels.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            for start, part in zip(starts, pool.map(chunk, starts), strict=True):
                yield from part
                report_progress(min(start + _CHUNK, total), total, what)
        finally:
            pool.shutdown(cancel_futures=True)  # else Ctrl-C would wait for all files


@cache
def _decoders() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    return tuple(name for name in _DECODERS if name in Image.OPEN)


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    from PIL import Image

    if file.stat().st_size == 0:
        raise ValueError("the file is empty (0 bytes)")
    try:
        with Image.open(file, formats=_decoders()) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error


def _problem(file: Path, error: BaseException) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"{file}: no image by its content; {', '.join(_decoders())} can be read"
    return f"{file}: {error or type(error).__name__}"


def _converted(image: Image.Image, channels: int) -> tuple[Image.Image, list[str]]:
    """Return an image by the rules 1, in mode L or RGB, and what was done, as keys of `_TREATMENTS`."""
    from benchkit.data.appearance import DEEP_MODES, orientation

    if image.mode in DEEP_MODES:
        raise ValueError(f"mode {image.mode} holds more than 8 bits a channel; convert it to 8 bits")
    shown, done = image, list[str]()
    if image.mode == "CMYK":
        done.append("cmyk")
    if image.mode == "P" and "transparency" in image.info:
        shown = image.convert("RGBA")
    shown = shown.convert("L" if channels == 1 else "RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        done.append("transparency")
    if orientation(image) != 1:
        done.append("orientation")
    return shown, done


def _fitted(image: Image.Image, index: int, shape: tuple[int, ...], fit: Fit | BoxOf | None) -> Image.Image:
    """Return the image in the shape (H, W), which it must have already where `fit` is None."""
    from PIL import Image

    (height, width), size = shape, image.size
    if callable(fit):
        box = fit(index, image.height, image.width)
        return image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    if size == (width, height):
        return image
    if fit is None:
        raise ValueError(f"{image.height}x{image.width} pixels (height x width), expected {height}x{width}")
    if fit == "crop":
        box = middle_box(image.height, image.width, height / width)
        return image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    if fit == "pad":
        scale = min(width / image.width, height / image.height)
        inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        sheet = Image.new(image.mode, (width, height))
        small = image.resize(inner, Image.Resampling.BILINEAR)
        sheet.paste(small, ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return sheet
    return image.resize((width, height), Image.Resampling.BILINEAR)


def middle_box(height: int, width: int, aspect: float = 1.0) -> Box:
    """Return the largest box in the middle of an image whose height over width is `aspect`, in whole pixels."""
    across = min(width, max(1, round(height / aspect)))
    down = min(height, max(1, round(width * aspect)))
    left, top = (width - across) // 2, (height - down) // 2
    return (left, top, left + across, top + down)
