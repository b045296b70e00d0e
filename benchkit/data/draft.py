"""A data set while it is being prepared: arrays are written to a folder that nobody reads yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from benchkit.data.prepared import SPLIT_NAMES, SplitManifest, group_file, image_file, label_file
from benchkit.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a build says of its data set: class names in label order, licence, citation, and notes for the report."""

    class_names: Sequence[str]
    licence: str
    citation: str
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """Where a build puts its arrays. `folder` belongs to the build alone and vanishes when it fails."""

    folder: Path
    written: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def scratch(self) -> Path:
        """Return a folder for temporary files; it is removed when the build ends."""
        path = self.folder / "scratch"
        path.mkdir(exist_ok=True)
        return path

    def write(self, split: str, images: np.ndarray, labels: Sequence[int] | np.ndarray) -> None:
        """Write a split: uint8 images (N, H, W, C) and N labels in 0..K-1.

        Raises:
            DataError: a wrong type or shape, or a split that is not train, val or test.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise DataError(f"{split}: images are {images.dtype} {images.shape}, expected uint8 (N, H, W, C)")
        if len(images) != len(labels):
            raise DataError(f"{split}: {len(images):,} images but {len(labels):,} labels")
        height, width, channels = images.shape[1:]
        self.allocate(split, labels, (height, width, channels))[:] = images

    def allocate(
        self, split: str, labels: Sequence[int] | np.ndarray, shape: tuple[int, int, int]
    ) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
        """Write a split's labels and return its images to fill, memory-mapped uint8 (N, H, W, C), for large data.

        Raises:
            DataError: labels that are no integers, no images, or a split that is not train, val or test.
        """
        numbers = np.asarray(labels)
        if split not in SPLIT_NAMES or split in self.written:
            raise DataError(f"split {split!r} cannot be written", hint=f"write each of {', '.join(SPLIT_NAMES)} once")
        if numbers.ndim != 1 or numbers.size == 0 or not np.issubdtype(numbers.dtype, np.integer):
            raise DataError(f"{split}: labels are {numbers.dtype} {numbers.shape}, expected integers (N,), N > 0")
        np.save(label_file(self.folder, split), numbers.astype(np.int64))
        self.written[split] = numbers
        images: np.memmap[tuple[int, ...], np.dtype[np.uint8]] = open_memmap(
            image_file(self.folder, split), mode="w+", dtype=np.uint8, shape=(len(numbers), *shape)
        )
        return images

    def group(self, split: str, groups: Sequence[int]) -> None:
        """Write which images of a split that was written belong together: numbers, -1 for an image of its own."""
        np.save(group_file(self.folder, split), np.asarray(groups, dtype=np.int64))

    def checked(self, about: About) -> dict[str, SplitManifest]:
        """Return what was written, split by split.

        Raises:
            DataError: train or test is missing, sizes differ between splits, labels or class names are wrong.
        """
        names = tuple(about.class_names)
        problems = [f"no {split} split" for split in ("train", "test") if split not in self.written]
        if len(names) < 2 or len(set(names)) != len(names):
            problems.append(f"class names must be two or more, all different: {names}")
        splits = {}
        for split in SPLIT_NAMES:
            if split not in self.written:
                continue
            labels = self.written[split]
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= len(names):
                problems.append(f"{split}: labels {low}..{high}, expected 0..{len(names) - 1} for {len(names)} classes")
                continue
            splits[split] = self._split(split, labels, len(names))
        if len({split.shape for split in splits.values()}) > 1:
            shapes = ", ".join(f"{name} {split.shape}" for name, split in splits.items())
            problems.append(f"images (H, W, C) differ between splits: {shapes}")
        if problems:
            raise DataError("the data set is not complete", problems=problems)
        return splits

    def _split(self, split: str, labels: np.ndarray, classes: int) -> SplitManifest:
        images = np.load(image_file(self.folder, split), mmap_mode="r")
        height, width, channels = images.shape[1:]
        return SplitManifest(
            count=len(labels),
            shape=(height, width, channels),
            class_counts=tuple(np.bincount(labels, minlength=classes).tolist()),
            image_bytes=image_file(self.folder, split).stat().st_size,
            label_bytes=label_file(self.folder, split).stat().st_size,
        )


Build = Callable[[Draft], About]
"""Writes all splits into a draft and says what the data set is."""
