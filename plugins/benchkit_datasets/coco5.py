"""Five classes of COCO 2017: one dominant object of each image, cut out."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchkit import DataError, Range, Splits, card
from benchkit.preparation import About, Box, Draft, listed, prepare, treatment_notes, unpacked
from benchkit_datasets.coco_annotations import DominanceRule, Dominant, dominant_objects
from benchkit_datasets.published import decode_splits

CLASSES = ("boat", "cake", "couch", "dog", "motorcycle")
CITATION = (
    "Lin, T.-Y., Maire, M., Belongie, S., Hays, J., Perona, P., Ramanan, D., Dollar, P., Zitnick, C. L. Microsoft "
    "COCO: Common Objects in Context. ECCV 2014."
)
LICENCE = "Annotations CC BY 4.0; the photographs under the licences of their photographers on Flickr."
PAGE = "https://cocodataset.org/#download"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What determines the content; see `coco5`."""

    size: int
    train_images: int
    val_images: int
    test_images: int
    min_share: float
    min_side: int
    context: float

    def check(self) -> None:
        """Raise `DataError` with every option that is out of range."""
        counts = {"train_images": self.train_images, "val_images": self.val_images, "test_images": self.test_images}
        problems = [
            f"{name} = {count}: expected 0 or a multiple of {len(CLASSES)}, as many images of each class"
            for name, count in counts.items()
            if count < 0 or count % len(CLASSES)
        ]
        if not 8 <= self.size <= 1024:
            problems.append(f"size = {self.size}: expected 8 to 1024 pixels")
        if not 0 <= self.min_share <= 1 or not 0 <= self.context <= 1 or self.min_side < 1:
            problems.append(
                f"min_share = {self.min_share}, context = {self.context}, min_side = {self.min_side}: expected shares "
                "in 0..1 and at least 1 pixel"
            )
        if problems:
            raise DataError("coco5 was given wrong options", problems=problems)


@card(
    title="COCO-5",
    summary="Boats, cakes, couches, dogs and motorcycles: the dominant objects of COCO 2017's images, cut out.",
    reference=CITATION,
    url="https://arxiv.org/abs/1405.0312",
    ranges={
        "size": Range(low=8, high=1024),
        "train_images": Range(low=0, high=100_000),
        "val_images": Range(low=0, high=100_000),
        "test_images": Range(low=0, high=10_000),
        "min_share": Range(low=0.0, high=1.0),
        "min_side": Range(low=1, high=1024),
        "context": Range(low=0.0, high=1.0),
    },
)
def coco5(
    root: Path,
    *,
    source: Path | None = None,
    size: int = 64,
    train_images: int = 0,
    val_images: int = 2000,
    test_images: int = 0,
    min_share: float = 0.1,
    min_side: int = 64,
    context: float = 0.1,
    partial: bool = False,
) -> Splits:
    """Return the objects as (size, size, 3): train and val cut from train2017, test from val2017.

    The dominant object of an image is its largest box among the non-crowd annotations of the five classes. It counts
    if it takes `min_share` of the image or more, neither side is below `min_side` pixels, and no box of another of the
    five classes is more than half as large. The cut is a square around the box, `context` of its longer side wider on
    each side, moved into the image; where the image is smaller, the cut is as high or as wide as that.

    `val_images` and `train_images` take as many of each class, those whose file names have the smallest SHA-256, val
    first; `train_images` 0 takes all that the rarest class leaves, of each class. `test_images` 0 takes all.
    `source` is a folder with COCO's own annotations/instances_train2017.json and instances_val2017.json and the image
    folders train2017 and val2017. `partial` passes over images that are not there and takes what it can.

    Raises:
        DataError: the set is neither prepared nor given, annotations cannot be used, images are missing, cannot be
            read, or are too few; all are named.
    """
    options = _Options(
        size=size,
        train_images=train_images,
        val_images=val_images,
        test_images=test_images,
        min_share=min_share,
        min_side=min_side,
        context=context,
    )
    options.check()

    def build(draft: Draft) -> About:
        if source is None:
            raise DataError(
                "coco5 is not prepared, and COCO 2017 is too large to be downloaded by the way",
                hint=f"fetch train2017.zip, val2017.zip and annotations_trainval2017.zip from {PAGE}, unpack them into "
                "one folder, then run `benchkit data import coco5 FOLDER`",
            )
        with unpacked(Path(source).expanduser(), draft.scratch) as folder:
            notes = _write(draft, folder, options, partial=partial)
        return About(class_names=CLASSES, licence=LICENCE, citation=CITATION, notes=notes)

    return prepare(Path(root), "coco5", build, options=asdict(options))


def cut(box: tuple[float, float, float, float], height: int, width: int, context: float) -> Box:
    """Return what is cut out around a box (left, top, width, height): a square where the image has room for it."""
    left, top, wide, high = box
    side = max(wide, high) * (1 + 2 * context)
    across, down = min(side, width), min(side, height)
    x = min(max(left + wide / 2 - across / 2, 0), width - across)
    y = min(max(top + high / 2 - down / 2, 0), height - down)
    return (x, y, min(x + across, width), min(y + down, height))


def _write(draft: Draft, folder: Path, options: _Options, *, partial: bool) -> list[str]:
    splits, notes = _chosen(folder, options, partial=partial)
    folders = {split: folder / ("val2017" if split == "test" else "train2017") for split in splits}
    files = {
        split: ([folders[split] / item.file_name for item in objects], [item.label for item in objects])
        for split, objects in splits.items()
    }
    boxes = {split: functools.partial(_box_of, objects, options.context) for split, objects in splits.items()}
    decoded = decode_splits(draft, files, options.size, what="cutting coco5", fit=boxes)
    return [*notes, *treatment_notes(list(decoded.values()))]


def _box_of(objects: Sequence[Dominant], context: float, index: int, height: int, width: int) -> Box:
    """Return what is cut out of an image; raise `ValueError` where its object's box leaves it."""
    left, top, wide, high = box = objects[index].box
    if min(left, top) < 0 or left + wide > width + 1 or top + high > height + 1:
        raise ValueError(f"{height}x{width} pixels (height x width), but its box {box} leaves it")
    return cut(box, height, width, context)


def _chosen(folder: Path, options: _Options, *, partial: bool) -> tuple[dict[str, list[Dominant]], list[str]]:
    """Return the objects of each split, and notes on what is missing."""
    rule = DominanceRule(min_share=options.min_share, min_side=options.min_side)
    problems: list[str] = []
    surplus: list[str] = []
    objects = {}
    for split_folder in ("train2017", "val2017"):
        annotated = dominant_objects(folder / "annotations" / f"instances_{split_folder}.json", CLASSES, rule)
        there = {path.name for path in (folder / split_folder).glob("[!.]*")}
        absent = [item.file_name for item in annotated.objects if item.file_name not in there]
        problems += [f"{folder / split_folder / name} is not there" for name in absent]
        surplus += [f"{split_folder}/{name}" for name in there - annotated.file_names]
        objects[split_folder] = _by_class([item for item in annotated.objects if item.file_name in there])
    if problems and not partial:
        raise DataError(
            f"{len(problems):,} annotated images are missing",
            problems=listed(problems),
            hint="unpack train2017.zip and val2017.zip again, or use --partial to pass over them (it will be noted)",
        )
    notes = [f"This is only a part of COCO's images: {len(problems):,} are missing."] if problems else []
    if surplus:
        notes.append(f"Files that the annotations do not list, left out: {len(surplus):,}, among them {min(surplus)}.")
    splits, short = _split(objects["train2017"], objects["val2017"], options)
    if short and not partial:
        raise DataError("COCO 2017 has too few dominant objects for this", problems=short)
    return splits, [*notes, *(f"Fewer images than asked for: {line}." for line in short)]


def _by_class(objects: Sequence[Dominant]) -> list[list[Dominant]]:
    """Return the objects of each class in the order of the SHA-256 of their file names."""
    ranked = sorted(objects, key=lambda item: hashlib.sha256(item.file_name.encode()).digest())
    return [[item for item in ranked if item.label == label] for label in range(len(CLASSES))]


def _split(
    train: Sequence[Sequence[Dominant]], test: Sequence[Sequence[Dominant]], options: _Options
) -> tuple[dict[str, list[Dominant]], list[str]]:
    """Return the splits, and a line for every class that has too few objects."""
    in_val = options.val_images // len(CLASSES)
    left = min(len(objects) for objects in train) - in_val
    in_train = options.train_images // len(CLASSES) or max(left, 1)
    in_test = options.test_images // len(CLASSES) or max(len(objects) for objects in test)
    splits = {
        "train": [item for objects in train for item in objects[in_val : in_val + in_train]],
        "val": [item for objects in train for item in objects[:in_val]],
        "test": [item for objects in test for item in objects[:in_test]],
    }
    asked = {"train": in_train, "val": in_val, "test": in_test if options.test_images else 1}
    short = [f"{split}: {line}" for split, number in asked.items() for line in _short(splits[split], number)]
    return {split: objects for split, objects in splits.items() if objects or split != "val"}, short


def _short(objects: Sequence[Dominant], asked: int) -> list[str]:
    counts: Mapping[int, int] = Counter(item.label for item in objects)
    return [
        f"{counts.get(label, 0):,} of {asked:,} images of class {name!r}"
        for label, name in enumerate(CLASSES)
        if counts.get(label, 0) < asked
    ]
