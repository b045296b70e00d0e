"""Your own images: one folder for each class."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchkit import DataError, Range, Splits, card
from benchkit.preparation import DECODING, ClassFolders, find_class_folders, listing_digest, unpacked
from benchkit_datasets.image_files import FITS, RANGES, Found, ImageFile, ImageReading, by_class
from benchkit_datasets.own_images import Source, serve
from benchkit_datasets.splitting import Splitting, alike, plain_name


@card(
    title="Image folder",
    summary="Images of your own, one folder for each class, with or without folders for train, val and test.",
    ranges={**RANGES, "rules": Range(low=0, high=DECODING)},
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
    val_fraction: float = 0.0,
    split: Path | None = None,
    group: str = "",
    least_per_class: int = 0,
) -> Splits:
    """Return the images below `source`, a folder or an archive: `[train|val|test]/CLASS/**/IMAGE`.

    Without a test folder, train gives `test_fraction` of its images to test and `val_fraction` to val (0: val is drawn
    from train for a study), by a hash of `seed` and each file's name, so that adding a file moves no other one; a class
    that a split would lack is filled up. All is written to `split.csv` beside the prepared set; files that stand in it,
    or in the list `split`, stay where it says. `group` keeps files together whose names are the same up to this text,
    "/" those of a folder below their class's. `least_per_class` leaves smaller classes out. `size` resizes to `size` x
    `size` pixels, 0 keeps the size that all images have (if they are of many, they become 64 x 64); `fit` says how
    images that are no squares become some: squash does not keep the aspect, crop takes the largest square in the
    middle, pad adds black at two sides. `channels` is 3 for RGB or 1 for grey. `skip_broken` leaves out images that
    cannot be read, which is noted. When the files change, the set is prepared again; when they are gone, the prepared
    set is served. `rules` 2 is as said, and reads images as a person sees them: upright, on white, CMYK by its profile,
    the upper 8 of 16 bits; 1 reads and splits as earlier versions did; 0 is 2, but a set that an earlier version
    prepared is served as it is.

    Raises:
        DataError: unreadable images, several sizes, classes that are empty, too small or differ between splits, or the
            same pixels in two splits (unless `allow_duplicates`); every file is named, all kinds at once.
    """
    if source is None:
        raise DataError("image-folder needs to know where the images are", hint='set data.source = "PATH" in the study')
    path = Path(source).expanduser().resolve()

    origin = listing_digest(path) if path.exists() else ""
    find = partial(_class_folders, path, rules != 1, least_per_class)
    own = Source(
        name="image-folder", path=path, origin=origin, find=find, split=split, licence=licence, citation=citation
    )
    reading = ImageReading(
        size=size,
        channels=channels,
        fit=fit,
        rules=rules or DECODING,
        skip_broken=skip_broken,
        allow_duplicates=allow_duplicates,
        least_per_class=least_per_class,
    )
    splitting = Splitting(test_fraction=test_fraction, val_fraction=val_fraction, seed=seed, group=group)
    return serve(Path(root), own, reading, splitting, as_before=rules == 0)


@contextmanager
def _class_folders(path: Path, plain: bool, least: int, scratch: Path) -> Iterator[Found]:
    with unpacked(path, scratch) as folder:
        yield _found(find_class_folders(folder, lenient=True, least=least), plain=plain)


def _found(layout: ClassFolders, *, plain: bool) -> Found:
    """Return the files of class folders; `plain`: with names and classes in the same letters on every system (NFC)."""
    files = [
        ImageFile(
            path=path,
            name=plain_name(path, layout.folder) if plain else path.relative_to(layout.folder).as_posix(),
            label=unicodedata.normalize("NFC", label) if plain else label,
            split="" if split == "all" else split,
        )
        for split, classes in layout.splits.items()
        for label, paths in classes.items()
        for path in paths
    ]
    twice, cased = alike([file.name for file in files])
    classes = {unicodedata.normalize("NFC", name) if plain else name for name in layout.class_names}
    return Found(
        place=layout.folder,
        files=by_class(files),
        classes=tuple(sorted(classes)),
        problems=(*layout.problems, *twice),
        notes=(*layout.notes, *cased),
    )
