"""Your own images by a list: a csv file with the path and the label of each, and its split and group where known."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from benchkit import DataError, Splits, card
from benchkit.preparation import DECODING, SPLIT_SYNONYMS, listed
from benchkit_datasets.image_files import FITS, RANGES, Found, ImageFile, ImageReading, by_class
from benchkit_datasets.own_images import Source, serve
from benchkit_datasets.splitting import COLUMNS, LAYOUT, Splitting, read_table


@card(
    title="Images by a list",
    summary="Images of your own by a csv file with the columns path and label, and split and group where known.",
    ranges=RANGES,
    choices={"fit": FITS},
)
def image_list(
    root: Path,
    *,
    source: Path | None = None,
    size: int = 0,
    channels: int = 3,
    test_fraction: float = 0.2,
    val_fraction: float = 0.0,
    seed: int = 0,
    group: str = "",
    least_per_class: int = 0,
    fit: str = "squash",
    skip_broken: bool = False,
    allow_duplicates: bool = False,
    licence: str = "not stated",
    citation: str = "not stated",
) -> Splits:
    """Return the images `source` lists, a csv file of one line for each: path, label, and split, group where known.

    Fields are parted by commas, semicolons or tabs. Paths are told from the folder of the file; labels are text and
    their alphabetical order is that of the classes. Where a line names a split (train, val, test) each must; without
    test images among them, train is divided as the data set image-folder does, and the other options are those of it.
    All of a `group` (else of names that are the same up to the text `group`) is in one split. When the list or an image
    changes, the set is prepared again; when the list is gone, the prepared set is served.

    Raises:
        DataError: lines that cannot be used, files that are missing, or images that do not fit; all are named at once.
    """
    if source is None:
        raise DataError("csv needs to know where the list is", hint='set data.source = "LIST.csv" in the study')
    path = Path(source).expanduser().resolve()
    origin, find = _origin(path) if path.exists() else "", partial(_listed, path)
    own = Source(name="csv", path=path, origin=origin, find=find, split=None, licence=licence, citation=citation)
    reading = ImageReading(
        size=size,
        channels=channels,
        fit=fit,
        rules=DECODING,
        skip_broken=skip_broken,
        allow_duplicates=allow_duplicates,
        least_per_class=least_per_class,
    )
    splitting = Splitting(test_fraction=test_fraction, val_fraction=val_fraction, seed=seed, group=group)
    return serve(Path(root), own, reading, splitting)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One line of the list: its number, and its fields by column, "" where there is none."""

    number: int
    fields: Mapping[str, str]

    def file(self, folder: Path) -> Path:
        """Return the file it means: as it is written, or with slashes for backslashes where only that is there."""
        written = folder / self.fields["path"]
        slashed = folder / self.fields["path"].replace("\\", "/")
        return slashed if _is_there(slashed) or not _is_there(written) else written

    @property
    def name(self) -> str:
        """Return the name by which the image is known: the path as written, in the same letters on every system."""
        return unicodedata.normalize("NFC", PurePosixPath(self.fields["path"].replace("\\", "/")).as_posix())


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:
        return False  # no name of a file: too long, for example


@contextmanager
def _listed(path: Path, scratch: Path) -> Iterator[Found]:
    """Yield the images of a list; raise `DataError` with all lines that cannot be used, and all missing files."""
    lines = _lines(path)
    if len(lines) > 1 and not any(_is_there(line.file(path.parent)) for line in lines):
        raise DataError(
            f"{path}: none of the {len(lines):,} files that it lists is there",
            problems=[f"line {lines[0].number}: {lines[0].file(path.parent)} is not there"],
            hint=f"paths, with their endings, are told from {path.parent}; {LAYOUT}",
        )
    splits = {line.fields["split"].lower() for line in lines}
    first: dict[str, _Line] = {}
    problems, files, repeated = [], [], 0
    for line in lines:
        where, before = f"line {line.number}", first.setdefault(line.name, line)
        problems += [f"{where}: no {name}" for name in ("path", "label") if not line.fields[name]]
        split = line.fields["split"].lower()
        if split not in ("", *SPLIT_SYNONYMS) or (not split and splits != {""}):
            problems.append(f"{where}: split {split!r}, expected train, val or test, as each line has one")
        if before is not line:
            differing = [name for name in COLUMNS[1:] if line.fields[name] != before.fields[name]]
            problems += [
                f"{where}: {line.name} has the {name} {line.fields[name]!r}, but {before.fields[name]!r} in line "
                f"{before.number}"
                for name in differing
            ]
            repeated += not differing
            continue
        file = line.file(path.parent)
        if line.fields["path"] and not _is_there(file):
            problems.append(f"{where}: {file} is not there")
        label = unicodedata.normalize("NFC", line.fields["label"])
        group = line.fields["group"]
        files.append(
            ImageFile(path=file, name=line.name, label=label, split=SPLIT_SYNONYMS.get(split, ""), group=group)
        )
    if problems or not files:
        raise DataError(
            f"{path}: {len(problems):,} problems in {len(lines):,} lines" if files else f"{path} lists no images",
            problems=listed(problems, 100),
            hint=f"paths are told from {path.parent}; {LAYOUT}",
        )
    notes = [f"Lines of the list that repeat another one: {repeated:,}."] if repeated else []
    if unused := [name for name in lines[0].fields if name not in COLUMNS]:
        notes.append(f"Columns of the list that are not used: {', '.join(listed(unused))}.")
    yield Found(place=path, files=by_class(files), classes=(), problems=_lone(files), notes=tuple(notes))


def _lone(files: Sequence[ImageFile]) -> tuple[str, ...]:
    """Return a line where there is a single class, and one for each class that has images but none in train."""
    labels = sorted({file.label for file in files})
    trained = {file.label for file in files if file.split in ("", "train")}
    lacking = [f"class {label!r}: no images in train" for label in labels if label not in trained]
    return (*lacking, *([f"only one class, {labels[0]!r}"] if len(labels) == 1 else []))


def _lines(path: Path) -> list[_Line]:
    return [_Line(number=number, fields=fields) for number, fields in read_table(path, ("path", "label"))]


def _origin(path: Path) -> str:
    """Return a digest over the list and the sizes and times of its images, whatever else is wrong with it."""
    lines = _lines(path)
    digest = hashlib.sha256(path.read_bytes())
    for line in lines:
        try:
            status = line.file(path.parent).stat()
        except (OSError, ValueError):
            digest.update(b"missing")
        else:
            digest.update(f"{status.st_size} {status.st_mtime_ns} ".encode())
    return digest.hexdigest()
