"""A study that fits a folder of photographs: what lies there, what may be asked, and the file. Imports no torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import median
from string import Template

from benchkit.data.decoding import image_sizes
from benchkit.data.importing import find_class_folders
from benchkit.errors import DataError

LEAST = 3
"""Images that a class needs for train, val and test to have one of it."""
SIDES = (32, 64, 96)
"""Side lengths in pixels that are proposed."""
LOOKED_AT = 200
"""The most images whose sizes are read."""
FEW = 2000
"""Images below which batches are small and epochs many."""
RATE = 0.1 / 128
"""SGD's learning rate for each image of a batch: He et al. (CVPR 2016) train small ResNets at 0.1 in batches of 128."""

COMPARISONS: Mapping[str, str] = {
    "norms": '"model.norm" = ["bn", "gn", "none"]',
    "regularizers": """"regularizers" = [
    { label = "none", value = [] },
    { label = "crop-flip", value = ["crop-flip"] },
    { label = "crop-flip, mixup", value = ["crop-flip", "mixup"] },
]""",
    "optimizers": """"train.optimizer" = [
    { label = "sgd", value = { name = "sgd", lr = $rate, momentum = 0.9 } },
    { label = "adamw", value = { name = "adamw", lr = 0.001 } },
]""",
    "learning-rates": '"train.optimizer.lr" = [$slower, $rate, $faster]',
}
"""What a new study can compare, and how its [factors] say that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoFolder:
    """Class folders of images: how many images each class has, and the usual length of their shorter side in pixels."""

    path: Path
    images: Mapping[str, int]
    side: int

    @property
    def total(self) -> int:
        """Return how many images there are."""
        return sum(self.images.values())

    @property
    def few(self) -> list[str]:
        """Return the classes that have too few images to be in every split."""
        return [name for name, count in self.images.items() if count < LEAST]

    @property
    def proposed_side(self) -> int:
        """Return the side length to train at: the largest of `SIDES` that images have, else the smallest."""
        return max((side for side in SIDES if side <= self.side), default=SIDES[0])


def look(folder: Path) -> PhotoFolder:
    """Return what lies in a folder of class folders; raise `DataError` where there is none that can be read."""
    path = folder.expanduser().resolve()
    layout = find_class_folders(path, lenient=True)
    everything = [file for split in layout.splits for file in layout.files(split)]
    images = Counter(
        {name: sum(len(classes.get(name, ())) for classes in layout.splits.values()) for name in layout.class_names}
    )
    sample = everything[:: max(1, len(everything) // LOOKED_AT)]
    sizes, problems = image_sizes(sample, what="reading sizes", rules=2)
    shorter = [min(size) for size in sizes if size is not None]
    if not shorter:
        raise DataError(f"{path}: none of {len(sample):,} images can be read", problems=tuple(problems[:5]))
    return PhotoFolder(path=path, images=dict(images), side=int(median(shorter)))


def study_text(title: str, photos: PhotoFolder, *, compare: str, side: int, leave_out_few: bool) -> str:
    """Return the text of a study file; `leave_out_few` leaves out the classes that cannot be split."""
    small = photos.total < FEW
    batch_size = 16 if small else 64
    rates = {"slower": RATE * batch_size * 0.32, "rate": RATE * batch_size, "faster": RATE * batch_size * 3.2}
    shown = {name: f"{rate:.3g}" for name, rate in rates.items()}
    least = f"least_per_class = {LEAST}\n" if photos.few and leave_out_few else ""
    return Template(
        files("benchkit_templates").joinpath("study-folder.toml.txt").read_text(encoding="utf-8")
    ).substitute(
        title=_quoted(title),
        source=_quoted(str(photos.path)),
        side=side,
        least=least,
        epochs=30 if small else 15,
        batch_size=batch_size,
        rate=shown["rate"],
        factors=Template(COMPARISONS[compare]).substitute(shown),
        question=_quoted(f"Which of these {compare.replace('-', ' ')} tells the images apart best?"),
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
