"""Images of one's own as a prepared set: what its key holds, how files are divided, what an earlier version made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchkit import DataError, Splits
from benchkit.preparation import About, Draft, listed, prepare, prepared_folder
from benchkit_datasets.image_files import FITS, Division, Found, ImageFile, ImageReading, write_files
from benchkit_datasets.splitting import (
    FILE_NAME,
    SplitList,
    Splitting,
    divided,
    read_split_list,
    torn_groups,
    with_groups,
    write_split_list,
)

_NEWER = {
    "fit": "squash",
    "skip_broken": False,
    "rules": 1,
    "least_per_class": 0,
    "val_fraction": 0.0,
    "group": "",
    "split": "",
}
"""Options that are part of a prepared folder's name only where they are used, so that older sets stay prepared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where images come from: the data set's name, the path as given, the list of splits given, and what is stated.

    `find` yields the files, which may be in the scratch folder that it gets; `origin` tells whether they changed.
    """

    name: str
    path: Path
    origin: str
    find: Callable[[Path], AbstractContextManager[Found]]
    split: Path | None
    licence: str
    citation: str


def serve(
    root: Path, source: Source, reading: ImageReading, splitting: Splitting, *, as_before: bool = False
) -> Splits:
    """Return the prepared set, made anew where its files or the list of splits changed.

    With `as_before` a set that was prepared by the rules 1 is served as it is, until it is replaced.

    Raises:
        DataError: an option out of range, a list of splits that cannot be used, or whatever is wrong with the files.
    """
    _check(source.name, reading, splitting)
    listed_in = source.split.expanduser().resolve() if source.split else None
    texts = {"source": str(source.path), "licence": source.licence, "citation": source.citation}
    key = {**texts, "split": str(listed_in or ""), **asdict(reading), **asdict(splitting)}
    key = {name: value for name, value in key.items() if name not in _NEWER or _NEWER[name] != value}
    before = prepared_folder(root, source.name, key) / FILE_NAME

    def build(draft: Draft) -> About:
        place = listed_in or (before if before.is_file() else None)
        known = read_split_list(place) if place else SplitList()
        with source.find(draft.scratch) as found:
            absent = _absent(listed_in, known, found)
            names, notes = write_files(draft, found, reading, _dividing(draft, reading, splitting, known))
        return About(class_names=names, licence=source.licence, citation=source.citation, notes=[*notes, *absent])

    origin = source.origin
    if origin and listed_in and listed_in.is_file():
        origin += hashlib.sha256(listed_in.read_bytes()).hexdigest()
    earlier = {name: value for name, value in key.items() if name != "rules"} if as_before else None
    return prepare(root, source.name, build, options=key, origin=origin, earlier=earlier)


def _check(name: str, reading: ImageReading, splitting: Splitting) -> None:
    if reading.channels not in (1, 3) or reading.size < 0 or reading.fit not in FITS:
        raise DataError(
            f"{name}: channels = {reading.channels}, size = {reading.size}, fit = {reading.fit!r}",
            hint="channels is 1 or 3, size 0 or more, fit squash, crop or pad",
        )
    test, val = splitting.test_fraction, splitting.val_fraction
    if not 0 < test < 1 or not 0 <= val < 1 - test:
        raise DataError(
            f"{name}: test_fraction = {test}, val_fraction = {val}",
            hint="both are shares, test's more than 0, and together they leave something to train",
        )


def _absent(given: Path | None, known: SplitList, found: Found) -> list[str]:
    """Return a note on names in the list that no image has; raise `DataError` where the `given` list has no other."""
    listed_names, names = {*known.splits, *known.groups}, {file.name for file in found.files}
    absent = sorted(listed_names - names)
    if given and names and not listed_names & names:
        raise DataError(
            f"{given}: no image has a name that it lists",
            problems=[f"listed is, for example, {absent[0]!r}, an image is {min(names)!r}"],
            hint="write each path as it is told from the folder with the classes or splits",
        )
    told = f"Names in the list of splits that no image has: {len(absent):,}, {', '.join(listed(absent, 4))}."
    return [told] * bool(absent)


def _dividing(
    draft: Draft, reading: ImageReading, splitting: Splitting, known: SplitList
) -> Callable[[Sequence[ImageFile]], Division]:
    """Return what divides the files: test and val as they are named, else taken from train, with groups whole.

    Where test images are named and there are groups, val is taken too: what a study draws from train would tear them.
    """

    def divide(files: Sequence[ImageFile]) -> Division:
        if reading.rules != 1:
            files = with_groups(files, splitting, known)
        named: dict[str, tuple[ImageFile, ...]] = {
            split: tuple(file for file in files if (file.split or "train") == split)
            for split in ("train", "test", "val")
        }
        if named["test"] and (named["val"] or reading.rules == 1 or not any(file.group for file in named["train"])):
            unused = ["The folders name the splits: the list of splits was not used."] * bool(known.splits)
            return Division(splits=named, torn=tuple(torn_groups(named)), notes=tuple(unused))
        if reading.rules == 1:
            division = _as_before(named["train"], splitting)
        else:
            free = {name: split for name, split in known.splits.items() if split == "train" or not named[split]}
            rest = replace(known, splits=free)
            division = divided(named["train"], splitting, rest, test=not named["test"], val=not named["val"])
        splits = {**division.splits, **{split: named[split] for split in ("test", "val") if named[split]}}
        division = replace(division, splits=splits, torn=(*division.torn, *torn_groups(splits)))
        if reading.rules != 1:
            write_split_list(draft, division)
        return division

    return divide


def _as_before(files: Sequence[ImageFile], splitting: Splitting) -> Division:
    """Return files divided by the rules 1: of each class the lowest hashes are test, whose number is the share's."""
    ranked: dict[str, list[tuple[bytes, ImageFile]]] = {}
    for file in files:
        digest = hashlib.sha256(f"{splitting.seed}/{file.name}".encode("utf-8", "surrogateescape")).digest()
        ranked.setdefault(file.label, []).append((digest, file))
    chosen: set[ImageFile] = set()
    for own in ranked.values():
        number = min(len(own) - 1, max(1, round(splitting.test_fraction * len(own))))
        chosen.update(file for _, file in sorted(own, key=lambda pair: pair[0])[:number])
    alone = [label for label, own in ranked.items() if len(own) < 2]
    return Division(
        splits={
            "train": tuple(file for file in files if file not in chosen),
            "test": tuple(file for file in files if file in chosen),
        },
        problems=tuple(f"class {name!r}: a single image cannot be split into train and test" for name in alone),
        notes=(
            f"The files name no test images: {splitting.test_fraction:g} of each class, chosen with seed "
            f"{splitting.seed}.",
        ),
    )
