"""Your own images: one folder for each class."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchkit import DataError, Range, Splits, card
from benchkit.preparation import (
    About,
    ClassFolders,
    Decoded,
    Draft,
    decode_images,
    find_class_folders,
    image_sizes,
    listed,
    listing_digest,
    prepare,
    unpacked,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """How files become arrays; see `image_folder`."""

    size: int
    channels: int
    test_fraction: float
    seed: int
    allow_duplicates: bool


@card(
    title="Image folder",
    summary="Images of your own, one folder for each class, with or without folders for train, val and test.",
    ranges={
        "size": Range(low=0, high=4096),
        "channels": Range(low=1, high=3),
        "test_fraction": Range(low=0.01, high=0.9),
    },
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
) -> Splits:
    """Return the images below `source`, a folder or an archive: `[train|val|test]/CLASS/**/IMAGE`.

    Without a test folder, `test_fraction` of each class of train (at least one image) becomes test, chosen by a hash of
    `seed` and the file's path, so that adding a file moves no other one. `size` resizes to `size` x `size` pixels
    without keeping the aspect, 0 demands that all images have one size. `channels` is 3 for RGB or 1 for grey.
    When the files change, the set is prepared again; when they are gone, the prepared set is served.

    Raises:
        DataError: unreadable images, several sizes, classes that are empty or differ between splits, or the same
            pixels in two splits (unless `allow_duplicates`); every file is named.
    """
    if source is None:
        raise DataError("image-folder needs to know where the images are", hint='set data.source = "PATH" in the study')
    if channels not in (1, 3) or size < 0 or not 0 < test_fraction < 1:
        raise DataError(
            f"image-folder: channels = {channels}, size = {size}, test_fraction = {test_fraction}",
            hint="channels is 1 or 3, size 0 or more, test_fraction between 0 and 1",
        )
    place = Path(source).expanduser().resolve()
    options = _Options(
        size=size, channels=channels, test_fraction=test_fraction, seed=seed, allow_duplicates=allow_duplicates
    )

    def build(draft: Draft) -> About:
        with unpacked(place, draft.scratch) as folder:
            layout = find_class_folders(folder)
            notes = _write(draft, layout, options)
        return About(class_names=layout.class_names, licence=licence, citation=citation, notes=notes)

    key = {
        "source": str(place),
        "size": size,
        "channels": channels,
        "test_fraction": test_fraction,
        "seed": seed,
        "allow_duplicates": allow_duplicates,
        "licence": licence,
        "citation": citation,
    }
    return prepare(
        Path(root), "image-folder", build, options=key, origin=listing_digest(place) if place.exists() else ""
    )


def _write(draft: Draft, layout: ClassFolders, options: _Options) -> list[str]:
    splits, notes = _splits(layout, options)
    shape = _shape([file for files, _ in splits.values() for file in files], options)
    decoded: dict[str, Decoded] = {}
    for split, (files, labels) in splits.items():
        images = draft.allocate(split, labels, shape)
        decoded[split] = decode_images(files, images, what=f"decoding {split}", resize=options.size > 0)
    problems = [problem for part in decoded.values() for problem in part.problems]
    if problems:
        raise DataError(f"{len(problems):,} images in {layout.folder} cannot be used", problems=listed(problems))
    pairs = _duplicates({split: (files, decoded[split].digests) for split, (files, _) in splits.items()})
    if pairs and not options.allow_duplicates:
        raise DataError(
            f"{len(pairs):,} images in {layout.folder} are in more than one split, pixel for pixel",
            problems=listed(pairs),
            hint="remove one of each pair, or set data.allow_duplicates = true to accept a test set that leaks",
        )
    if pairs:
        notes.append(f"Images found in more than one split, pixel for pixel: {len(pairs):,}.")
    if layout.ignored:
        notes.append(
            f"Files left out, because their names are no images' or no class folder holds them: {layout.ignored:,}."
        )
    return notes


def _splits(layout: ClassFolders, options: _Options) -> tuple[dict[str, tuple[list[Path], list[int]]], list[str]]:
    found = {split: (layout.files(split), layout.labels(split)) for split in layout.splits}
    train = found.pop("all", None) or found.pop("train")
    if "test" in found:
        return {"train": train, **found}, []
    chosen = _chosen(layout, *train, options)
    kept = [(file, label) for file, label in zip(*train, strict=True) if file not in chosen]
    test = [(file, label) for file, label in zip(*train, strict=True) if file in chosen]
    split = {name: ([f for f, _ in pairs], [n for _, n in pairs]) for name, pairs in (("train", kept), ("test", test))}
    note = f"The files name no test images: {options.test_fraction:g} of each class, chosen with seed {options.seed}."
    return {**split, **found}, [note]


def _chosen(layout: ClassFolders, files: Sequence[Path], labels: Sequence[int], options: _Options) -> set[Path]:
    by_class: dict[int, list[tuple[bytes, Path]]] = {}
    for file, label in zip(files, labels, strict=True):
        text = f"{options.seed}/{file.relative_to(layout.folder).as_posix()}"
        rank = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        by_class.setdefault(label, []).append((rank, file))
    single = [layout.class_names[label] for label, ranked in by_class.items() if len(ranked) < 2]
    if single:
        raise DataError(
            f"{layout.folder} has no test folder, and classes with a single image cannot be split",
            problems=listed([f"class {name!r}: 1 image" for name in single]),
        )
    chosen: set[Path] = set()
    for ranked in by_class.values():
        number = min(len(ranked) - 1, max(1, round(options.test_fraction * len(ranked))))
        chosen.update(file for _, file in sorted(ranked)[:number])
    return chosen


def _shape(files: Sequence[Path], options: _Options) -> tuple[int, int, int]:
    if options.size:
        return (options.size, options.size, options.channels)
    sizes, problems = image_sizes(files, what="reading sizes")
    counted = Counter(size for size in sizes if size is not None)
    if not counted:
        raise DataError(f"none of {len(files):,} images can be read", problems=listed(problems))
    (usual, number), *others = counted.most_common()
    if others:
        odd = [f"{file}: {s[0]}x{s[1]}" for file, s in zip(files, sizes, strict=True) if s is not None and s != usual]
        raise DataError(
            f"images differ in size: {number:,} are {usual[0]}x{usual[1]} (height x width), {len(odd):,} are not",
            problems=listed(odd + problems),
            hint="set data.size = 64, for example, to resize all images to 64x64 pixels once",
        )
    return (*usual, options.channels)


def _duplicates(splits: Mapping[str, tuple[Sequence[Path], Sequence[bytes]]]) -> list[str]:
    first: dict[bytes, tuple[str, Path]] = {}
    pairs = []
    for split, (files, digests) in splits.items():
        for file, digest in zip(files, digests, strict=True):
            where, other = first.setdefault(digest, (split, file))
            if where != split:
                pairs.append(f"{other} ({where}) and {file} ({split})")
    return pairs
