"""Finding the images in files that a user already has: class folders, with or without a folder for each split."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchkit.data.decoding import IMAGE_SUFFIXES
from benchkit.errors import DataError, first_of, nearest

SPLIT_SYNONYMS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What others call a split, in lower case, and what it is called here."""
MOST_COMPARED = 200
"""Up to this many classes a missing one is compared with the others by spelling."""
_EXPECTED = (
    "expected a folder with a folder of images for each class: CLASS/IMAGE, or train/CLASS/IMAGE and test/CLASS/IMAGE"
)
_NOISE = {"__macosx", "thumbs.db", "desktop.ini"}
_UNREAD = frozenset(
    {".arw", ".cr2", ".cr3", ".dng", ".eps", ".exr", ".hdr", ".heic", ".heif", ".icns", ".ico", ".j2k", ".jp2", ".jxl"}
    | {".nef", ".orf", ".pcx", ".psd", ".raw", ".rw2", ".sgi", ".svg", ".tga", ".xcf"}
)
"""Endings of images, in lower case, that are not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFolders:
    """Image files by split and class; split `all` where the folders name no split.

    Classes are in alphabetical order of their folders and files in order of their paths below `folder`. `left_out`
    counts, by why, files without the ending of an image, images that lie in no class folder, and images in folders
    whose names begin with a point. `problems` are lines on what keeps the folders from being a data set.
    """

    folder: Path
    splits: Mapping[str, Mapping[str, tuple[Path, ...]]]
    left_out: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def ignored(self) -> int:
        """Return the number of files left out."""
        return sum(self.left_out.values())

    @property
    def notes(self) -> list[str]:
        """Return a note for a report on the files left out, or nothing."""
        counted = ", ".join(f"{count:,} {why}" for why, count in sorted(self.left_out.items()))
        return [f"Files left out: {counted}."] if counted else []

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the classes of all splits in alphabetical order."""
        return tuple(sorted({name for classes in self.splits.values() for name in classes}))

    def files(self, split: str) -> list[Path]:
        """Return the files of a split, class by class in the order of `class_names`."""
        return [file for name in self.class_names for file in self.splits[split].get(name, ())]

    def labels(self, split: str) -> list[int]:
        """Return the label of each of `files(split)`: the index of its class in `class_names`."""
        classes = self.splits[split]
        return [label for label, name in enumerate(self.class_names) for _ in classes.get(name, ())]


def find_class_folders(source: Path, *, lenient: bool = False, least: int = 0) -> ClassFolders:
    """Return the images below `source`: `[train|val|test]/CLASS/**/IMAGE`.

    A folder that only wraps another one, as archives often do, is looked through. Links are followed, each folder once.
    Hidden files are not seen. Nothing is wrong with a class of fewer than `least` images, which the caller leaves out.
    `training`, `valid`, `validation` and `testing` are understood too.

    Raises:
        DataError: no class folders, a class without images, or classes that differ between splits; all are named.
            With `lenient` only the first, so that the caller can name what else is wrong beside these `problems`.
    """
    try:
        if not source.is_dir():
            raise DataError(f"{source} is {'no folder' if source.exists() else 'not there'}", hint=_EXPECTED)
        folder = _unwrapped(source)
        layout = _layout(folder, _split_folders(folder) or {"all": folder}, least)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error}") from error
    if not layout.class_names:
        raise DataError(
            f"{source} holds no class folders",
            problems=layout.problems or [f"files {why}: {count:,}" for why, count in layout.left_out.items()],
            hint=_EXPECTED,
        )
    if layout.problems and not lenient:
        raise DataError(f"the class folders in {layout.folder} do not fit together", problems=first_of(layout.problems))
    return layout


def listing_digest(source: Path) -> str:
    """Return a sha256 hex digest over the paths, sizes and modification times of all files below `source`.

    It tells cheaply whether files changed since they were prepared, behind links too. For an archive, its own size and
    time.

    Raises:
        DataError: `source` does not exist.
    """
    if not source.exists():
        raise DataError(f"{source} does not exist")
    lines = []
    for path in [source] if source.is_file() else _walk(source):
        status = path.stat() if path.exists() else path.lstat()
        lines.append(f"{path.relative_to(source)}\0{status.st_size}\0{status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _split_folders(folder: Path) -> dict[str, Path]:
    splits: dict[str, Path] = {}
    for name, path in _folders(folder).items():
        split = SPLIT_SYNONYMS.get(name.lower())
        if split is None or not _holds_classes(path):  # a class may be called train
            continue
        if split in splits:
            raise DataError(f"{folder} has two folders for the split {split}: {splits[split].name} and {name}")
        splits[split] = path
    if splits and "train" not in splits:
        raise DataError(f"{folder} has class folders below {', '.join(sorted(splits))} but no train folder")
    return splits


def _layout(folder: Path, splits: Mapping[str, Path], least: int) -> ClassFolders:
    by_split: dict[str, dict[str, tuple[Path, ...]]] = {}
    left_out, problems, of_class = Counter[str](), list[str](), list[tuple[str, str]]()
    for split, path in splits.items():
        by_split[split] = {}
        for name, class_folder in _folders(path).items():
            images, others = _parted(_walk(class_folder))
            left_out.update(_ending(file) for file in others)
            if not _is_text(name):
                problems.append(f"{path}: the name of the folder {os.fsencode(name)!r} is not UTF-8: rename it")
                continue
            by_split[split][name] = images
            if not images:
                ended = ", ".join(f"{n:,} {why}" for why, n in sorted(Counter(map(_ending, others)).items()))
                of_class.append((name, f"{class_folder}: no images{f' ({ended})' if ended else ''}"))
        for child in path.iterdir():
            if child.is_file() and not _hidden(child.name):
                left_out["in no class folder"] += 1
            elif child.name.startswith(".") and child.is_dir() and (images := _parted(_walk(child))[0]):
                left_out[f"in the hidden folder {child.name}"] += len(images)
    layout = ClassFolders(folder=folder, splits=by_split)
    images_of = Counter({name: sum(len(c.get(name, ())) for c in by_split.values()) for name in layout.class_names})
    problems += [line for name, line in (*of_class, *_missing(layout)) if images_of[name] >= least]
    if len(layout.class_names) == 1:
        problems.append(f"{folder}: only one class, {layout.class_names[0]!r}; a classifier needs two or more")
    return replace(layout, left_out=left_out, problems=tuple(problems))


def _parted(files: list[Path]) -> tuple[tuple[Path, ...], list[Path]]:
    """Return the files whose names are images', and the others."""
    images = tuple(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES)
    return images, [file for file in files if file.suffix.lower() not in IMAGE_SUFFIXES]


def _is_text(name: str) -> bool:
    """Return whether a file's name can be written: one that is not UTF-8 on disk cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _ending(file: Path) -> str:
    suffix = file.suffix.lower()
    unread = " (images of a kind that is not read)" if suffix in _UNREAD else ""
    return f"ending in {suffix}{unread}" if suffix else "without an ending"


def _missing(layout: ClassFolders) -> Iterator[tuple[str, str]]:
    """Yield each class that a split lacks, and a line on it."""
    names = layout.class_names
    for split, classes in layout.splits.items():
        where = layout.folder if split == "all" else layout.folder / split
        for name in names:
            if name not in classes:
                meant = nearest(name, classes) if len(names) <= MOST_COMPARED else ""
                yield name, f"{where}: class {name!r} is missing{meant}"


def _unwrapped(folder: Path) -> Path:
    while True:
        inner = _folders(folder)
        if len(inner) != 1:
            return folder
        (only,) = inner.values()
        if only.name.lower() in SPLIT_SYNONYMS or not _holds_classes(only):
            return folder
        folder = only


def _holds_classes(folder: Path) -> bool:
    # A stray image beside class folders is no reason to take the folder for a class.
    loose = sum(child.suffix.lower() in IMAGE_SUFFIXES for child in folder.iterdir() if child.is_file())
    return len(_folders(folder)) > loose


def _folders(folder: Path) -> dict[str, Path]:
    return {child.name: child for child in sorted(folder.iterdir()) if child.is_dir() and not _hidden(child.name)}


def _walk(folder: Path) -> list[Path]:
    """Return the files below a folder, also behind links; each folder is read once, so that links cannot make loops."""
    files: list[Path] = []
    entered: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not _hidden(name))
        files += [Path(parent, name) for name in names if not _hidden(name)]
    return sorted(files)


def _raise(error: OSError) -> None:
    raise error


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _NOISE
