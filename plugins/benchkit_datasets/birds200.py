"""Caltech-UCSD Birds 200, the edition of 2010."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchkit import DataError, Range, Splits, card
from benchkit.preparation import IMAGE_SUFFIXES, About, Draft, listed, prepare, treatment_notes, unpacked
from benchkit_datasets.published import PARTIAL, decode_splits

COUNTS = {"train": 3000, "test": 3033}
CLASSES = 200
CITATION = (
    "Welinder, P., Branson, S., Mita, T., Wah, C., Schroff, F., Belongie, S., Perona, P. Caltech-UCSD Birds 200. "
    "California Institute of Technology, CNS-TR-2010-001, 2010."
)
LICENCE = "For non-commercial research and education; the photographs belong to their photographers on Flickr."
Lists = Mapping[str, Sequence[str]]
"""By split: CLASS/FILE of every image."""
PAGE = "https://www.vision.caltech.edu/datasets/cub_200_2010/"


@card(
    title="Caltech-UCSD Birds 200 (2010)",
    summary="3,000 training and 3,033 test photographs of 200 species of birds.",
    reference=CITATION,
    url=PAGE,
    ranges={"size": Range(low=8, high=1024)},
)
def birds200(root: Path, *, source: Path | None = None, size: int = 224, partial: bool = False) -> Splits:
    """Return the central square of each photograph, resized to (size, size, 3), split as published.

    `source` is the folder into which the publishers' images.tgz and lists.tgz were unpacked (or that holds both
    archives): images/CLASS/*.jpg, lists/train.txt and lists/test.txt, whose lines are CLASS/FILE. An archive of such
    a folder does as well. `partial` accepts lists with fewer images, and leaves out listed images that are not there.

    Raises:
        DataError: the set is neither prepared nor given, lists or images are missing, an image is listed twice, or
            cannot be read; all are named.
    """

    def build(draft: Draft) -> About:
        if source is None:
            raise DataError(
                "birds200 is not prepared, and its publishers ask that it be fetched by hand",
                hint=f"fetch images.tgz and lists.tgz of the 2010 edition from {PAGE}, unpack both into one folder, "
                "then run `benchkit data import birds200 FOLDER`",
            )
        with _opened(Path(source).expanduser(), draft.scratch) as (images, lists):
            named = {split: _read_list(lists / f"{split}.txt") for split in COUNTS}
            kept, notes = _checked(images, named, partial=partial)
            classes = sorted({_class_of(name) for listing in kept.values() for name in listing})
            notes += _write(draft, images, kept, classes, size)
        return About(class_names=[_spoken(name) for name in classes], licence=LICENCE, citation=CITATION, notes=notes)

    if not 8 <= size <= 1024:
        raise DataError(f"birds200: size = {size}, expected 8 to 1024 pixels")
    return prepare(Path(root), "birds200", build, options={"size": size})


@contextmanager
def _opened(source: Path, scratch: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the folders images and lists, unpacking what is an archive."""
    with ExitStack() as stack:
        folder = stack.enter_context(unpacked(source, scratch))
        inner = [path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"]
        if len(inner) == 1 and inner[0].name not in ("images", "lists"):
            folder = inner[0]
        folders = {}
        for name in ("images", "lists"):
            archives = [path for end in ("tgz", "tar.gz", "tar") if (path := folder / f"{name}.{end}").is_file()]
            if not (folder / name).is_dir() and archives:
                folders[name] = stack.enter_context(unpacked(archives[0], scratch)) / name
            else:
                folders[name] = folder / name
        problems = [f"no folder {name}, nor {name}.tgz" for name, path in folders.items() if not path.is_dir()]
        if problems:
            raise DataError(
                f"{folder} does not hold Caltech-UCSD Birds 200 (2010)",
                problems=problems,
                hint=f"expected images/CLASS/*.jpg, lists/train.txt and lists/test.txt as on {PAGE}; the edition of "
                "2011 has another split and other images",
            )
        yield folders["images"], folders["lists"]


def _read_list(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    names = [line for line in lines if line]
    wrong = [f"line {at}: {line!r}" for at, line in enumerate(lines, start=1) if line and not _is_name(line)]
    if wrong:
        raise DataError(f"{file} is no list of images", problems=listed(wrong), hint="expected lines CLASS/FILE")
    return names


def _is_name(line: str) -> bool:
    """Return whether a line is CLASS/FILE and nothing that leads elsewhere."""
    return re.fullmatch(r"[^/\\]+/[^/\\]+", line) is not None and ".." not in line.split("/")


def _class_of(name: str) -> str:
    return name.partition("/")[0]


def _spoken(folder: str) -> str:
    """Return `Black footed Albatross` for `001.Black_footed_Albatross`."""
    return re.sub(r"^\d+\.", "", folder).replace("_", " ")


def _checked(images: Path, named: Lists, *, partial: bool) -> tuple[Lists, list[str]]:
    """Return the lists without the images that are not there, and notes on what differs from the published set.

    Raises:
        DataError: an image is listed twice, or (unless `partial`) lists are too short or images missing; all are named.
    """
    times = Counter(name for listing in named.values() for name in listing)
    twice = [f"listed {count} times: {name}" for name, count in sorted(times.items()) if count > 1]
    there = {path.relative_to(images).as_posix() for path in images.glob("*/*") if not path.name.startswith(".")}
    short = [
        f"{split}: {len(named[split]):,} images listed, expected {count:,}"
        for split, count in COUNTS.items()
        if len(named[split]) != count
    ]
    classes = len({_class_of(name) for name in times})
    short += [f"{classes} classes, expected {CLASSES}"] if classes != CLASSES else []
    missing = [f"{images / name} is not there" for listing in named.values() for name in listing if name not in there]
    if twice or ((missing or short) and not partial):
        hint = "" if twice else PARTIAL
        raise DataError(
            "this is not Caltech-UCSD Birds 200 (2010)", problems=listed(twice + short + missing), hint=hint
        )
    kept = {split: [name for name in listing if name in there] for split, listing in named.items()}
    surplus = [name for name in there - times.keys() if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    return kept, _notes(kept, surplus)


def _notes(kept: Lists, surplus: Sequence[str]) -> list[str]:
    notes = []
    if any(len(kept[split]) != count for split, count in COUNTS.items()):
        parts = " and ".join(f"{len(kept[split]):,} of the {count:,} {split} images" for split, count in COUNTS.items())
        notes.append(f"This is only a part of Caltech-UCSD Birds 200 (2010): {parts}.")
    if surplus:
        notes.append(f"Images that no list names, left out: {len(surplus):,}, among them {min(surplus)}.")
    return notes


def _write(draft: Draft, images: Path, kept: Lists, classes: Sequence[str], size: int) -> list[str]:
    """Decode all images into the draft and return notes; raise `DataError` naming those that cannot be read."""
    files = {
        split: ([images / name for name in listing], [classes.index(_class_of(name)) for name in listing])
        for split, listing in kept.items()
    }
    hint = "unpack images.tgz again"
    decoded = decode_splits(draft, files, size, what="decoding birds200", fit="crop", hint=hint)
    return treatment_notes(list(decoded.values()))
