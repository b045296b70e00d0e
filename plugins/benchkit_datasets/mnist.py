"""MNIST: handwritten digits."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from benchkit import DataError, Splits, card
from benchkit_datasets.published import Arrays, PublishedSet, fetch, serve

CITATION = (
    "LeCun, Y., Bottou, L., Bengio, Y., Haffner, P. Gradient-based learning applied to document recognition. "
    "Proceedings of the IEEE 86(11), 1998."
)
MOST_BYTES = 16 + 60_000 * 28 * 28
"""The largest of the files, unpacked: the training images."""
_PREFIXES = {"train": "train", "test": "t10k"}


@card(
    title="MNIST",
    summary="60,000 training and 10,000 test images of handwritten digits, 28x28 pixels, grey.",
    reference=CITATION,
    url="http://yann.lecun.com/exdb/mnist/",
)
def mnist(root: Path, *, source: Path | None = None, partial: bool = False) -> Splits:
    """Return MNIST: (28, 28, 1), labels as in torchvision.

    `source` is torchvision's `MNIST/raw` (the idx files, with or without .gz), class folders `0` to `9` of images below
    train and test, or an archive of either; without it the original is downloaded. `partial` accepts fewer images.
    """
    return serve(_MNIST, root, source, partial=partial)


def _read(folder: Path) -> Arrays | None:
    for pattern in ("train-images*", "*/train-images*", "*/*/train-images*", "*/*/*/train-images*"):
        for file in sorted(folder.glob(pattern)):
            if file.is_file():
                return {split: _read_split(file.parent, prefix) for split, prefix in _PREFIXES.items()}
    return None


def _read_split(folder: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    images = _read_idx(_idx_file(folder, prefix, "images", 3), dimensions=3)
    labels = _read_idx(_idx_file(folder, prefix, "labels", 1), dimensions=1)
    if len(images) != len(labels):
        raise DataError(f"{folder}: {len(images):,} {prefix} images but {len(labels):,} labels")
    return images[..., None], labels.astype(np.int64)


def _idx_file(folder: Path, prefix: str, what: str, dimensions: int) -> Path:
    stems = [f"{prefix}-{what}{mark}idx{dimensions}-ubyte" for mark in "-."]
    for name in [*stems, *(f"{stem}.gz" for stem in stems)]:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} holds no {stems[0]} (nor {stems[0]}.gz)")


def _read_idx(file: Path, *, dimensions: int) -> np.ndarray:
    """Return uint8 numbers of an idx file: magic 0x0000 08 D, D big-endian sizes, then the bytes."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    if len(content) > MOST_BYTES:
        raise DataError(f"{file} unpacks to more than {MOST_BYTES:,} bytes, which no file of MNIST has")
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{file} is no idx file of {dimensions} dimensions of bytes")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) - header != math.prod(shape) or (dimensions == 3 and shape[1:] != (28, 28)):
        raise DataError(f"{file}: {len(content) - header:,} bytes for the shape {shape}, expected images of 28x28")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _download(folder: Path) -> Path:
    from torchvision.datasets import MNIST

    raw = folder / "MNIST" / "raw"
    for filename, md5 in MNIST.resources:
        fetch([f"{mirror}{filename}" for mirror in MNIST.mirrors], raw, filename=filename, md5=md5, name="mnist")
    return folder


_MNIST = PublishedSet(
    name="mnist",
    title="MNIST",
    class_names=tuple("0123456789"),
    class_counts={
        "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
    },
    shape=(28, 28, 1),
    content={
        "train": "eb18b676b54f79b47404548a27126712d6b45b4dbc4bf5549fd4c25f32115415",
        "test": "1ddd5cb512a13c9c0324016949aaf338bb32040c6252aa71a4d64f7dfda9ee07",
    },
    licence="CC BY-SA 3.0",
    citation=CITATION,
    read=_read,
    download=_download,
)
