"""Finding the images in files that a user already has: class folders, with or without a folder for each split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchkit.data.decoding import IMAGE_SUFFIXES
from benchkit.errors import DataError, nearest

_SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_NOISE = {"__macosx", "thumbs.db", "desktop.ini"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFolders:
    """Image files by split and class; split `all` where the folders name no split.

    Classes are in alphabetical order of their folders and files in order of their paths below `folder`. `ignored`
    counts files without the ending of an image, and images that lie in no class folder.
    """

    folder: Path
    splits: Mapping[str, Mapping[str, tuple[Path, ...]]]
    ignored: int = 0

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


def find_class_folders(source: Path) -> ClassFolders:
    """Return the images below `source`: `[train|val|test]/CLASS/**/IMAGE`.

    A folder that only wraps another one, as archives often do, is looked through. Hidden files are not seen.
    `training`, `valid`, `validation` and `testing` are understood too.

    Raises:
        DataError: no class folders, a class without images, or classes that differ between splits; all are named.
    """
    try:
        folder = _unwrapped(source)
        layout = _layout(folder, _split_folders(folder) or {"all": folder})
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error}") from error
    if not layout.class_names:
        raise DataError(
            f"{source} holds no class folders", hint="expected CLASS/IMAGE, or train/CLASS/IMAGE and test/CLASS/IMAGE"
        )
    _check(layout)
    return layout


def listing_digest(source: Path) -> str:
    """Return a sha256 hex digest over the paths, sizes and modification times of all files below `source`.

    It tells cheaply whether files changed since they were prepared. For an archive, its own size and time.

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
        split = _SPLIT_FOLDERS.get(name.lower())
        if split is None or not _holds_classes(path):  # a class may be called train
            continue
        if split in splits:
            raise DataError(f"{folder} has two folders for the split {split}: {splits[split].name} and {name}")
        splits[split] = path
    if splits and "train" not in splits:
        raise DataError(f"{folder} has class folders below {', '.join(sorted(splits))} but no train folder")
    return splits


def _layout(folder: Path, splits: Mapping[str, Path]) -> ClassFolders:
    found: dict[str, dict[str, tuple[Path, ...]]] = {}
    seen = kept = 0
    for split, path in splits.items():
        found[split] = {}
        for name, class_folder in _folders(path).items():
            files = list(_walk(class_folder))
            images = tuple(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES)
            found[split][name] = images
            seen += len(files)
            kept += len(images)
        seen += sum(1 for child in path.iterdir() if child.is_file() and not _hidden(child.name))
    return ClassFolders(folder=folder, splits=found, ignored=seen - kept)


def _check(layout: ClassFolders) -> None:
    names = layout.class_names
    problems = []
    for split, classes in layout.splits.items():
        place = layout.folder if split == "all" else layout.folder / split
        problems += [f"{place / name}: no images" for name, files in classes.items() if not files]
        problems += [
            f"{place}: class {name!r} is missing{nearest(name, classes)}" for name in names if name not in classes
        ]
    if len(names) < 2:
        problems.append(f"{layout.folder}: only one class, {names[0]!r}; a classifier needs two or more")
    if problems:
        shown = problems[:20] + ([f"and {len(problems) - 20:,} more"] if len(problems) > 20 else [])
        raise DataError(f"the class folders in {layout.folder} do not fit together", problems=shown)


def _unwrapped(folder: Path) -> Path:
    while True:
        inner = _folders(folder)
        if len(inner) != 1:
            return folder
        (only,) = inner.values()
        if only.name.lower() in _SPLIT_FOLDERS or not _holds_classes(only):
            return folder
        folder = only


def _holds_classes(folder: Path) -> bool:
    # A stray image beside class folders is no reason to take the folder for a class.
    loose = sum(child.suffix.lower() in IMAGE_SUFFIXES for child in folder.iterdir() if child.is_file())
    return len(_folders(folder)) > loose


def _folders(folder: Path) -> dict[str, Path]:
    return {child.name: child for child in sorted(folder.iterdir()) if child.is_dir() and not _hidden(child.name)}


def _walk(folder: Path) -> list[Path]:
    files = []
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not _hidden(name)]
        files += [Path(parent, name) for name in names if not _hidden(name)]
    return sorted(files)


def _raise(error: OSError) -> None:
    raise error


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _NOISE
