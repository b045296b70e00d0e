"""Data sets that each break one promise, for the tests of the conformance kit; another process imports them too."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchkit import DataError, Split, Splits
from benchkit.preparation import About, Draft, fingerprint_of, prepare


def arrays(count: int = 30) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    return {
        split: (generator.integers(0, 256, (number, 5, 4, 1), dtype=np.uint8), np.arange(number, dtype=np.int64) % 3)
        for split, number in (("train", count), ("test", 9))
    }


def sound(root: Path, *, change: Callable[[dict[str, Any]], Any] | None = None, notes: tuple[str, ...] = ()) -> Splits:
    """Return noise in three classes."""

    def build(draft: Draft) -> About:
        found = arrays()
        if change is not None:
            change(found)
        for split, (images, labels) in found.items():
            draft.write(split, images=images, labels=labels)
        return About(class_names=("a", "b", "c"), licence="CC0-1.0", citation="made up", notes=list(notes))

    return prepare(root, "sound", build)


def plain(root: Path) -> Splits:
    """Return noise in three classes."""
    return sound(root)


def in_memory(**changes: Any) -> Splits:
    """Return splits that are made anew at each call, without files."""
    found = {split: Split(images=images, labels=labels) for split, (images, labels) in arrays().items()}
    splits = Splits(
        **found, class_names=("a", "b", "c"), licence="CC0-1.0", citation="made up", fingerprint="", notes=()
    )
    splits = replace(splits, **changes)
    return replace(splits, fingerprint=changes.get("fingerprint") or fingerprint_of(splits))


def crashes_offline(root: Path) -> Splits:
    """Download, and let the network's error through."""
    import urllib.request

    urllib.request.urlopen("https://example.org/images.zip").read()
    return sound(root)


def float_images(root: Path) -> Splits:
    """Return images in 0..1."""
    images, labels = arrays()["train"]
    return in_memory(train=Split(images=images / np.float32(255), labels=labels))


def no_licence(root: Path) -> Splits:
    """State no licence."""
    return in_memory(licence="")


def labels_from_one(root: Path) -> Splits:
    """Count labels from 1."""
    images, labels = arrays()["train"]
    return in_memory(train=Split(images=images, labels=labels + 1))


def class_without_images(root: Path) -> Splits:
    """Name a fourth class."""
    return in_memory(class_names=("a", "b", "c", "d"))


def leaks(root: Path) -> Splits:
    """Put two training images into test."""

    def change(found: dict[str, Any]) -> None:
        found["test"][0][:2] = found["train"][0][:2]

    return sound(root, change=change)


def leaks_much(root: Path) -> Splits:
    """Put five training images into test, and say so."""

    def change(found: dict[str, Any]) -> None:
        found["test"][0][:5] = found["train"][0][:5]

    return sound(root, change=change, notes=("5 test images also occur in train.",))


def invented_fingerprint(root: Path) -> Splits:
    """Call the content by a name."""
    return in_memory(fingerprint="version 1")


def shuffled_globally(root: Path) -> Splits:
    """Shuffle with NumPy's global generator."""

    def change(found: dict[str, Any]) -> None:
        order = np.random.permutation(30)
        found["train"] = (found["train"][0][order], found["train"][1][order])

    return sound(root, change=change)


def by_hash(root: Path) -> Splits:
    """Order images by Python's hash of text."""

    def change(found: dict[str, Any]) -> None:
        order = sorted(range(30), key=lambda place: hash(f"image {place}"))
        found["train"] = (found["train"][0][order], found["train"][1][order])

    return sound(root, change=change)


def rewrites(root: Path) -> Splits:
    """Write its files at each call."""
    root.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in arrays().items():
        np.savez(root / f"{split}.npz", images=images, labels=labels)
    return in_memory()


def in_place(root: Path) -> Splits:
    """Write files one by one, and serve what is there."""
    root.mkdir(parents=True, exist_ok=True)
    if not list(root.glob("*.npy")):
        images, labels = arrays()["train"]
        for place in range(30):
            np.save(root / f"{place:02}-{labels[place]}.npy", images[place])
    files = sorted(root.glob("*.npy"))
    labels = np.array([int(file.stem[-1]) for file in files], dtype=np.int64)
    return in_memory(train=Split(images=np.stack([np.load(file) for file in files]), labels=labels))


def single_images(root: Path) -> Splits:
    """Have one image in all."""
    images, labels = arrays()["train"]
    return in_memory(train=Split(images=images[:1], labels=labels[:1]))


def written_from_one(root: Path) -> Splits:
    """Write labels that count from 1."""

    def change(found: dict[str, Any]) -> None:
        found["train"] = (found["train"][0], found["train"][1] + 1)

    return sound(root, change=change)


def smaller_test(root: Path) -> Splits:
    """Write test images of another size."""

    def change(found: dict[str, Any]) -> None:
        found["test"] = (found["test"][0][:, :3], found["test"][1])

    return sound(root, change=change)


def written_as_floats(root: Path) -> Splits:
    """Write images in 0..1."""

    def change(found: dict[str, Any]) -> None:
        found["train"] = (found["train"][0] / np.float32(255), found["train"][1])

    return sound(root, change=change)


def channels_first(root: Path) -> Splits:
    """Write images (N, C, H, W), of five rows."""

    def change(found: dict[str, Any]) -> None:
        for split, (images, labels) in found.items():
            found[split] = (np.tile(images, 2).reshape(len(images), 1, 5, 8), labels)

    return sound(root, change=change)


def needs_files(root: Path, *, source: Path | None = None) -> Splits:
    """Refuse, as a data set does whose files are elsewhere."""
    raise DataError("the images are not here", hint="download them")


def silent(root: Path) -> Splits:
    """Refuse without a word of help."""
    raise DataError("no")


def unlucky(root: Path) -> Splits:
    """Depend on the process."""
    return in_memory(citation=f"made by {os.getpid()}, {random.random()}")
