"""Your own images: one folder for each class."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from benchkit import DataError, Range, Splits, card
from benchkit.preparation import (
    DECODING,
    About,
    ClassFolders,
    Decoded,
    Draft,
    Fit,
    decode_images,
    find_class_folders,
    image_sizes,
    listed,
    listing_digest,
    prepare,
    treatment_notes,
    unpacked,
)

FITS = ("squash", "crop", "pad")
_NEWER = (("fit", "squash"), ("skip_broken", False), ("rules", 1))
"""Options that are part of a prepared folder's name only where they are used, so that older sets stay prepared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """How files become arrays; see `image_folder`."""

    size: int
    channels: int
    test_fraction: float
    seed: int
    allow_duplicates: bool
    fit: Fit
    skip_broken: bool
    rules: int


Splitting = Mapping[str, tuple[list[Path], list[int]]]
"""By split: image files, and the label of each."""


@card(
    title="Image folder",
    summary="Images of your own, one folder for each class, with or without folders for train, val and test.",
    ranges={
        "size": Range(low=0, high=4096),
        "channels": Range(low=1, high=3),
        "test_fraction": Range(low=0.01, high=0.9),
        "rules": Range(low=0, high=DECODING),
    },
    choices={"fit": FITS},
)
def image_folder(
    root: Path,
    *,
    source: Path | None = None,
    size: int = 0,
    channels: int = 3,
    test_fraction: float = 0.2,
    seed: int = 0,
    allow_duplicates: bool = False,
    licence: str = "not stated",
    citation: str = "not stated",
    fit: str = "squash",
    skip_broken: bool = False,
    rules: int = 0,
) -> Splits:
    """Return the images below `source`, a folder or an archive: `[train|val|test]/CLASS/**/IMAGE`.

    Without a test folder, `test_fraction` of each class of train (at least one image) becomes test, chosen by a hash of
    `seed` and the file's path, so that adding a file moves no other one. `size` resizes to `size` x `size` pixels, 0
    demands that all images have one size; `fit` says how images that are no squares become some: squash does not keep
    the aspect, crop takes the largest square in the middle, pad adds black at two sides. `channels` is 3 for RGB or 1
    for grey. `skip_broken` leaves out images that cannot be read, which is noted. When the files change, the set is
    prepared again; when they are gone, the prepared set is served. `rules` 2 reads images as a person sees them:
    upright, on white, CMYK by its profile, the upper 8 of 16 bits; 1 as earlier versions did; 0 is 2, but a set that an
    earlier version prepared is served as it is.

    Raises:
        DataError: unreadable images, several sizes, classes that are empty or differ between splits, or the same
            pixels in two splits (unless `allow_duplicates`); every file is named, all kinds at once.
    """
    if source is None:
        raise DataError("image-folder needs to know where the images are", hint='set data.source = "PATH" in the study')
    if channels not in (1, 3) or size < 0 or not 0 < test_fraction < 1 or fit not in FITS:
        raise DataError(
            f"image-folder: channels = {channels}, size = {size}, test_fraction = {test_fraction}, fit = {fit!r}",
            hint="channels is 1 or 3, size 0 or more, test_fraction between 0 and 1, fit squash, crop or pad",
        )
    path = Path(source).expanduser().resolve()
    options = _Options(
        size=size,
        channels=channels,
        test_fraction=test_fraction,
        seed=seed,
        allow_duplicates=allow_duplicates,
        fit=cast(Fit, fit),
        skip_broken=skip_broken,
        rules=rules or DECODING,
    )

    def build(draft: Draft) -> About:
        with unpacked(path, draft.scratch) as folder:
            layout = find_class_folders(folder, lenient=True)
            notes = _write(draft, layout, options)
        return About(class_names=layout.class_names, licence=licence, citation=citation, notes=notes)

    key = {"source": str(path), **asdict(options), "licence": licence, "citation": citation}
    key = {name: value for name, value in key.items() if (name, value) not in _NEWER}
    earlier = {name: value for name, value in key.items() if name != "rules"} if rules == 0 else None
    origin = listing_digest(path) if path.exists() else ""
    return prepare(Path(root), "image-folder", build, options=key, origin=origin, earlier=earlier)


def _write(draft: Draft, layout: ClassFolders, options: _Options) -> list[str]:
    """Decode all images into the draft and return notes; raise `DataError` with all that is wrong, kind by kind."""
    faults = {"classes": list(layout.problems)}
    broken: list[Path] = []
    if options.skip_broken:
        layout, broken, emptied = _readable(layout, options.rules)
        faults["classes"] += emptied
    splits, single, notes = _splits(layout, options)
    faults["classes"] += single
    shape, odd, unreadable = _shape([file for files, _ in splits.values() for file in files], options)
    if unreadable or not splits:
        raise _refusal(layout, {**faults, "broken": unreadable}, shape)
    decoded: dict[str, Decoded] = {}
    for split, (files, labels) in splits.items():
        images = draft.allocate(split, labels, shape)
        resize = options.size > 0
        decoded[split] = decode_images(
            files, images, what=f"decoding {split}", resize=resize, fit=options.fit, rules=options.rules
        )
    problems = [problem for part in decoded.values() for problem in part.problems]
    faults["sizes"] = [problem for problem in problems if problem.partition(": ")[0] in odd]
    faults["broken"] = [problem for problem in problems if problem.partition(": ")[0] not in odd]
    leaks, twice = _duplicates(splits, decoded)
    faults["duplicates"] = [] if options.allow_duplicates else leaks
    if any(faults.values()):
        raise _refusal(layout, faults, shape)
    if broken:
        name = broken[0].name.encode("utf-8", "replace").decode()
        notes.append(f"Images left out because they cannot be read: {len(broken):,}, among them {name}.")
    if leaks:
        notes.append(f"Images found in more than one split, pixel for pixel: {len(leaks):,}.")
    if twice:
        drawn = "" if "val" in splits else ", from which validation images are drawn"
        notes.append(f"Images found again within train{drawn}, pixel for pixel: {twice:,}.")
    return [*notes, *layout.notes, *treatment_notes(list(decoded.values()))]


def _refusal(layout: ClassFolders, faults: Mapping[str, list[str]], shape: tuple[int, int, int]) -> DataError:
    """Return the error that says what is wrong, how many of each kind, and what helps against each."""
    kinds = {
        "classes": ("classes that do not fit", "give each split the same classes, each with two images or more"),
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
    wrong = [kind for kind in kinds if faults.get(kind)]
    return DataError(
        f"{layout.folder}: {'; '.join(f'{kinds[kind][0]}: {len(faults[kind]):,}' for kind in wrong)}",
        problems=[*(line for kind in wrong for line in listed(faults[kind])), *_counts(layout)],
        hint="; ".join(kinds[kind][1] for kind in wrong),
    )


def _counts(layout: ClassFolders) -> list[str]:
    """Return a line for each split with the number of images of each class, cut where they are many."""
    return [
        f"images found{'' if split == 'all' else f' in {split}'}: "
        + ", ".join(listed([f"{name} {len(files):,}" for name, files in classes.items()]))
        for split, classes in layout.splits.items()
    ]


def _readable(layout: ClassFolders, rules: int) -> tuple[ClassFolders, list[Path], list[str]]:
    """Return the folders without the files that cannot be decoded, these, and a line for each class left empty."""
    files = [file for split in layout.splits for file in layout.files(split)]
    # One pixel each: what is asked here is only whether all of the file can be decoded.
    pixels = np.empty((len(files), 1, 1, 3), np.uint8)
    tried = decode_images(files, pixels, what="trying images", resize=True, rules=rules)
    broken = [file for file, digest in zip(files, tried.digests, strict=True) if not digest]
    gone = set(broken)
    splits = {
        split: {name: tuple(file for file in paths if file not in gone) for name, paths in classes.items()}
        for split, classes in layout.splits.items()
    }
    emptied = [
        f"{split}, class {name!r}: none of {len(paths):,} images can be read"
        for split, classes in layout.splits.items()
        for name, paths in classes.items()
        if paths and not splits[split][name]
    ]
    return replace(layout, splits=splits), broken, emptied


def _splits(layout: ClassFolders, options: _Options) -> tuple[Splitting, list[str], list[str]]:
    """Return the files and labels of each split, a line for each class that cannot be split, and notes."""
    given = {split: (layout.files(split), layout.labels(split)) for split in layout.splits}
    train = given.pop("all", None) or given.pop("train")
    single: list[str] = []
    notes = []
    splits = {"train": train, **given}
    if "test" not in given:
        chosen, single = _chosen(layout, *train, options)
        pairs = list(zip(*train, strict=True))
        parts = {
            "train": [pair for pair in pairs if pair[0] not in chosen],
            "test": [pair for pair in pairs if pair[0] in chosen],
        }
        parted = {split: ([file for file, _ in part], [label for _, label in part]) for split, part in parts.items()}
        splits = {**parted, **given}
        share = f"{options.test_fraction:g} of each class, chosen with seed {options.seed}"
        notes.append(f"The files name no test images: {share}.")
    return {split: part for split, part in splits.items() if part[0]}, single, notes


def _chosen(
    layout: ClassFolders, files: Sequence[Path], labels: Sequence[int], options: _Options
) -> tuple[set[Path], list[str]]:
    """Return the files that become test images, and a line for each class with a single image."""
    by_class: dict[int, list[tuple[bytes, Path]]] = {}
    for file, label in zip(files, labels, strict=True):
        text = f"{options.seed}/{file.relative_to(layout.folder).as_posix()}"
        rank = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        by_class.setdefault(label, []).append((rank, file))
    single = [layout.class_names[label] for label, ranked in by_class.items() if len(ranked) < 2]
    chosen: set[Path] = set()
    for ranked in by_class.values():
        number = min(len(ranked) - 1, max(1, round(options.test_fraction * len(ranked))))
        chosen.update(file for _, file in sorted(ranked)[:number])
    return chosen, [f"class {name!r}: a single image cannot be split into train and test" for name in single]


def _shape(files: Sequence[Path], options: _Options) -> tuple[tuple[int, int, int], set[str], list[str]]:
    """Return the shape of the arrays, the files of another size where all must have one, and why none has any."""
    if options.size:
        return (options.size, options.size, options.channels), set(), []
    sizes, problems = image_sizes(files, what="reading sizes", rules=options.rules)
    counted = Counter(size for size in sizes if size is not None)
    if not counted:
        return (0, 0, options.channels), set(), problems
    usual, _ = counted.most_common(1)[0]
    odd = {str(file) for file, size in zip(files, sizes, strict=True) if size not in (usual, None)}
    return (*usual, options.channels), odd, []


def _duplicates(splits: Splitting, decoded: Mapping[str, Decoded]) -> tuple[list[str], int]:
    """Return a line for each image of a split that an earlier split has too, and how many train has more than once."""
    first: dict[bytes, tuple[str, Path]] = {}
    leaks, twice = [], 0
    for split, (files, _) in splits.items():
        for file, digest in zip(files, decoded[split].digests, strict=True):
            if not digest:
                continue
            where, other = first.setdefault(digest, (split, file))
            if where != split:
                leaks.append(f"{other} ({where}) and {file} ({split})")
            elif other != file and split == "train":
                twice += 1
    return leaks, twice
