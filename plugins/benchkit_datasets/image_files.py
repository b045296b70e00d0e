"""Image files of one's own, from wherever they were listed: decoded as arrays, and all that is wrong named at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from benchkit import DataError, Range
from benchkit.preparation import Decoded, Draft, Fit, decode_images, image_sizes, listed, treatment_notes

RANGES = {
    "size": Range(low=0, high=4096),
    "channels": Range(low=1, high=3),
    "test_fraction": Range(low=0.01, high=0.9),
    "val_fraction": Range(low=0, high=0.9),
    "least_per_class": Range(low=0, high=1_000_000),
}
"""Of the options that all data sets of own images have."""

FITS = ("squash", "crop", "pad")
SPLITS = ("train", "val", "test")
MIXED_SIZE = 64
"""Pixels a side that images get where they are of many sizes, none that of half of them, and none is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """One image: where it lies, its name among the others, its class, and its split and group where they are given."""

    path: Path
    name: str
    label: str
    split: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Image files and where they were found; `classes` are all that were named there, `problems` lines on them."""

    place: Path
    files: tuple[ImageFile, ...]
    classes: tuple[str, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReading:
    """How files become arrays: pixels a side (0 as they are), channels, and what is left out or accepted."""

    size: int
    channels: int
    fit: str
    rules: int
    skip_broken: bool
    allow_duplicates: bool
    least_per_class: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """Files by split, as they are served; classes that cannot be divided and groups in several splits; and notes.

    Without classes of fewer than `least` images there were none that cannot be divided.
    """

    splits: Mapping[str, tuple[ImageFile, ...]]
    problems: tuple[str, ...] = ()
    torn: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    least: int = 2


def write_files(
    draft: Draft, found: Found, reading: ImageReading, divide: Callable[[Sequence[ImageFile]], Division]
) -> tuple[tuple[str, ...], list[str]]:
    """Decode all images into the draft and return the class names in label order, and notes.

    Raises:
        DataError: whatever is wrong, kind by kind, with the number of images of each class and what to do.
    """
    faults = {"classes": list(found.problems)}
    files: tuple[ImageFile, ...] = found.files
    broken: tuple[ImageFile, ...] = ()
    if reading.skip_broken:
        files, broken, emptied = _readable(files, reading.rules)
        faults["classes"] += emptied
    files, few = _without_small(files, found.classes, reading.least_per_class)
    if few and len({file.label for file in files}) < 2:
        faults["classes"].append(f"fewer than two classes have {reading.least_per_class} images (data.least_per_class)")
    division = divide(files)
    faults["small"], faults["torn"] = list(division.problems), list(division.torn)
    names = tuple(sorted({*found.classes, *(file.label for file in found.files)} - few.keys()))
    splits = {split: each for split, each in division.splits.items() if each}
    shape, odd, unreadable = _shape([file.path for each in splits.values() for file in each], reading)
    if unreadable or not splits:
        faults["broken"] = unreadable
        raise _refusal(found, faults, shape, division.least)
    sized = []
    if shape[0] == 0:
        reading, shape = replace(reading, size=MIXED_SIZE), (MIXED_SIZE, MIXED_SIZE, reading.channels)
        sized = [f"Images are of many sizes: all became {MIXED_SIZE}x{MIXED_SIZE} pixels (data.size, data.fit)."]
    decoded = _decoded(draft, splits, names, shape, reading)
    problems = [problem for part in decoded.values() for problem in part.problems]
    faults["sizes"] = [problem for problem in problems if problem.partition(": ")[0] in odd]
    faults["broken"] = [problem for problem in problems if problem.partition(": ")[0] not in odd]
    leaks, twice, differing = _duplicates(splits, decoded)
    faults["duplicates"] = [] if reading.allow_duplicates else leaks
    if any(faults.values()):
        raise _refusal(found, faults, shape, division.least)
    notes = [*_left_out(broken, few, reading), *division.notes, *sized]
    if differing:
        told = ", ".join(listed(differing, 4))
        notes.append(f"Images that are in two classes, pixel for pixel: {len(differing):,}, {told}.")
    if leaks:
        notes.append(f"Images found in more than one split, pixel for pixel: {len(leaks):,}.")
    if twice:
        drawn = "" if "val" in splits else ", from which validation images are drawn"
        notes.append(f"Images found again within train{drawn}, pixel for pixel: {twice:,}.")
    return names, [*notes, *found.notes, *treatment_notes(list(decoded.values()))]


def _decoded(
    draft: Draft,
    splits: Mapping[str, Sequence[ImageFile]],
    names: Sequence[str],
    shape: tuple[int, int, int],
    reading: ImageReading,
) -> dict[str, Decoded]:
    decoded, numbers = {}, {name: number for number, name in enumerate(names)}
    for split, files in splits.items():
        images = draft.allocate(split, [numbers[file.label] for file in files], shape)
        (draft.folder / f"{split}-files.json").write_text(json.dumps([file.name for file in files]), encoding="utf-8")
        decoded[split] = decode_images(
            [file.path for file in files],
            images,
            what=f"decoding {split}",
            resize=reading.size > 0,
            fit=cast(Fit, reading.fit),
            rules=reading.rules,
        )
    groups = {name: number for number, name in enumerate(sorted({f.group for each in splits.values() for f in each}))}
    for split, files in splits.items() if groups.keys() - {""} else ():
        draft.group(split, [groups[file.group] if file.group else -1 for file in files])
    return decoded


def _left_out(broken: Sequence[ImageFile], few: Mapping[str, int], reading: ImageReading) -> list[str]:
    notes = []
    if few:
        told = ", ".join(listed([f"{name} {count:,}" for name, count in few.items()]))
        notes.append(f"Classes left out because they have fewer than {reading.least_per_class} images: {told}.")
    if broken:
        name = broken[0].path.name.encode("utf-8", "replace").decode()
        notes.append(f"Images left out because they cannot be read: {len(broken):,}, among them {name}.")
    return notes


def _refusal(found: Found, faults: Mapping[str, list[str]], shape: tuple[int, int, int], least: int) -> DataError:
    """Return the error that says what is wrong, how many of each kind, and what helps against each."""
    labels = {file.label for file in found.files}
    kinds = {
        "classes": (
            "classes that do not fit",
            "give each split the same classes, each with two images or more"
            + ", or set data.least_per_class = 1 to leave empty ones out" * bool(set(found.classes) - labels),
        ),
        "small": (
            "classes too small to be split",
            f"set data.least_per_class = {least} to leave classes of fewer than {least} images out, or add images",
        ),
        "torn": (
            "groups that are in several splits",
            "give all images of a group the same split; with data.group, names that are the same up to it are a group",
        ),
        "sizes": (
            f"images that are not {shape[0]}x{shape[1]} (height x width) like most",
            "set data.size = 64, for example, to resize all images to 64x64 pixels once",
        ),
        "broken": ("images that cannot be read", "set data.skip_broken = true to leave broken images out"),
        "duplicates": (
            "images that are in more than one split, pixel for pixel",
            "remove one of each pair, or set data.allow_duplicates = true to accept a test set that leaks",
        ),
    }
    lines = {kind: faults[kind] for kind in kinds if faults.get(kind)}
    return DataError(
        f"{found.place}: {'; '.join(f'{kinds[kind][0]}: {len(each):,}' for kind, each in lines.items())}",
        problems=[*(line for each in lines.values() for line in listed(each)), *_counts(found)],
        hint="; ".join(kinds[kind][1] for kind in lines),
    )


def _counts(found: Found) -> list[str]:
    """Return a line for each split with the number of images of each class, cut where they are many."""
    counted = Counter((file.split, file.label) for file in found.files)
    names = sorted({*found.classes, *(file.label for file in found.files)})
    return [
        f"images found{f' in {split}' if split else ''}: "
        + ", ".join(listed([f"{name} {counted[split, name]:,}" for name in names]))
        for split in dict.fromkeys(file.split for file in found.files)
    ]


def _readable(files: Sequence[ImageFile], rules: int) -> tuple[tuple[ImageFile, ...], tuple[ImageFile, ...], list[str]]:
    """Return the files that can be decoded, the others, and a line for each class that is left empty."""
    # One pixel each: what is asked here is only whether all of the file can be decoded.
    pixels, paths = np.empty((len(files), 1, 1, 3), np.uint8), [file.path for file in files]
    tried = decode_images(paths, pixels, what="trying images", resize=True, rules=rules)
    whole = tuple(file for file, digest in zip(files, tried.digests, strict=True) if digest)
    broken = tuple(file for file, digest in zip(files, tried.digests, strict=True) if not digest)
    left = Counter((file.split, file.label) for file in whole)
    emptied = [
        f"{split or 'all'}, class {name!r}: none of {count:,} images can be read"
        for (split, name), count in Counter((file.split, file.label) for file in files).items()
        if not left[split, name]
    ]
    return whole, broken, emptied


def _without_small(
    files: Sequence[ImageFile], classes: Iterable[str], least: int
) -> tuple[tuple[ImageFile, ...], dict[str, int]]:
    """Return the files of classes that have `least` or more, and the sizes of the other classes by name."""
    counts = Counter({**dict.fromkeys(classes, 0), **Counter(file.label for file in files)})
    few = {name: count for name, count in sorted(counts.items()) if count < least}
    return tuple(file for file in files if file.label not in few), few


def _shape(files: Sequence[Path], reading: ImageReading) -> tuple[tuple[int, int, int], set[str], list[str]]:
    """Return the shape of the arrays, the files of another size where all must have one, and why none has any.

    Where images are of so many sizes that none is that of half of them, the shape has no size, and none is wrong.
    """
    if reading.size:
        return (reading.size, reading.size, reading.channels), set(), []
    sizes, problems = image_sizes(files, what="reading sizes", rules=reading.rules)
    counted = Counter(size for size in sizes if size is not None)
    if not counted:
        return (0, 0, reading.channels), set(), problems
    usual, number = counted.most_common(1)[0]
    if reading.rules > 1 and 2 * number < len(files):
        return (0, 0, reading.channels), set(), []
    odd = {str(file) for file, size in zip(files, sizes, strict=True) if size not in (usual, None)}
    return (*usual, reading.channels), odd, []


def _duplicates(
    splits: Mapping[str, Iterable[ImageFile]], decoded: Mapping[str, Decoded]
) -> tuple[list[str], int, list[str]]:
    """Return lines on images that an earlier split has, how many train has twice, and lines on those of two classes."""
    first: dict[bytes, tuple[str, ImageFile]] = {}
    leaks, twice, differing = list[str](), 0, list[str]()
    for split, files in splits.items():
        for file, digest in zip(files, decoded[split].digests, strict=True):
            if not digest:
                continue
            where, other = first.setdefault(digest, (split, file))
            if other.label != file.label:
                differing.append(f"{other.name} and {file.name}")
            if where != split:
                leaks.append(f"{other.path} ({where}) and {file.path} ({split})")
            elif other.path != file.path and split == "train":
                twice += 1
    return leaks, twice, differing


def by_class(files: Iterable[ImageFile]) -> tuple[ImageFile, ...]:
    """Return files in the order in which they are served: class by class, and by their names, folder by folder."""
    return tuple(sorted(files, key=lambda file: (file.label, file.name.split("/"))))
