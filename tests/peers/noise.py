"""Random images as a data set, for benchkit as a plugin file and for the scripts beside it.

Arithmetic takes as long on noise as on photographs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchkit import Split, Splits, card


def images_of(count: int, side: int, channels: int, seed: int = 0) -> Split:
    """Return uint8 images (count, side, side, channels) and labels in 0..9."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    return Split(images=images, labels=np.arange(count, dtype=np.int64) % 10)


@card(title="Noise", summary="Random images in ten classes.")
def noise(root: Path, *, count: int = 1280, side: int = 32, channels: int = 3) -> Splits:
    """Return `count` images to train on, and small splits to validate and test."""
    small = images_of(100, side, channels, seed=1)
    return Splits(
        train=images_of(count, side, channels),
        val=small,
        test=small,
        class_names=tuple("abcdefghij"),
        licence="none",
        citation="none",
        fingerprint=f"noise-{count}-{side}-{channels}",
    )


PLUGINS = {"benchkit.datasets": {"noise": noise}}
