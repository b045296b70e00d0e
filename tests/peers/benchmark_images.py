"""The images of the benchmark as a data set, for benchkit as a plugin file and for the scripts beside it.

They are CIFAR-10's and MNIST's where both have been prepared (`benchkit data prepare cifar10 mnist`), else random ones
of the same shapes: arithmetic takes as long on noise as on photographs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchkit import Split, Splits, card
from benchkit.data.prepared import open_splits, read_manifest
from benchkit.preparation import data_root

SCORED = 100
"""Images to validate and to test on."""

SETS = {3: "cifar10", 1: "mnist"}
"""The real data set by the number of channels."""


def source(root: Path) -> str:
    """Return whose images those below a data root are, in words."""
    real = all(read_manifest(root / name) for name in SETS.values())
    return "CIFAR-10 and MNIST" if real else "random images"


def images_of(count: int, side: int, channels: int, split: str = "train") -> Split:
    """Return uint8 images (count, side, side, channels) and labels in 0..9, the same ones each time.

    Real images are the first of the train or test `split`, each pixel repeated where `side` is a multiple of theirs.
    """
    folder = data_root() / SETS[channels]
    manifest = read_manifest(folder)
    if manifest is None or source(data_root()) == "random images":
        images = np.random.default_rng(split == "test").integers(0, 256, (count, side, side, channels), dtype=np.uint8)
        return Split(images=images, labels=np.arange(count, dtype=np.int64) % 10)
    real: Split = getattr(open_splits(folder, manifest), split)
    images, times = np.asarray(real.images[:count]), side // real.images.shape[1]
    return Split(images=images.repeat(times, 1).repeat(times, 2), labels=np.asarray(real.labels[:count]))


def split_of(count: int, side: int, channels: int, split: str) -> Split:
    """Return the images of a split that every contender has: `count` to train on, `SCORED` others for the rest."""
    return images_of(count, side, channels) if split == "train" else images_of(SCORED, side, channels, "test")


@card(title="Pictures", summary="CIFAR-10's or MNIST's first images, or random ones where these are not prepared.")
def pictures(root: Path, *, count: int = 1280, side: int = 32, channels: int = 3) -> Splits:
    """Return `count` images to train on, and a hundred others to validate and to test."""
    few = split_of(count, side, channels, "test")
    return Splits(
        train=split_of(count, side, channels, "train"),
        val=few,
        test=few,
        class_names=tuple("abcdefghij"),
        licence="CIFAR-10: none stated; MNIST: CC BY-SA 3.0",
        citation="none",
        fingerprint=f"{source(root)} {count}-{side}-{channels}",
    )


PLUGINS = {"benchkit.datasets": {"pictures": pictures}}
