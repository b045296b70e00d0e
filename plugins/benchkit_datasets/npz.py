"""Arrays that somebody saved with NumPy, in the layout of MedMNIST."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from benchkit import DataError, Splits, card
from benchkit.preparation import About, Draft, listed, listing_digest, pixel_digests, prepare, report_progress
from benchkit_datasets.published import shared_images

_AT_ONCE = 8 << 20
"""Bytes of images that are in memory at once, at the most (at the least one image)."""
_UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, NotImplementedError)
_LAYOUT = (
    "expected train_images, train_labels, test_images, test_labels, and val_images, val_labels where there are any"
)


@card(
    title="Arrays in an npz file",
    summary="Your own arrays as NumPy saves them, in the layout of MedMNIST: train_images, train_labels, ...",
    reference="Yang, J. et al. MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image "
    "classification. Scientific Data 10:41, 2023.",
    url="https://medmnist.com",
)
def npz(
    root: Path,
    *,
    source: Path | None = None,
    class_names: tuple[str, ...] = (),
    licence: str = "not stated",
    citation: str = "not stated",
) -> Splits:
    """Return the arrays of `source`, an npz file: `SPLIT_images` and `SPLIT_labels`, SPLIT being train, val or test.

    Images are uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3); labels are integers (N,) or (N, 1), and train tells the
    classes, 0 to the highest. `class_names` are their names, else their numbers. Images go to disk a few at a time.
    When the file changes, the set is prepared again; when it is gone, the prepared set is served.

    Raises:
        DataError: arrays that are missing, of another type or shape (volumes, several labels an image), or damaged;
            all are named at once. Pickled objects are never read.
    """
    if source is None:
        raise DataError("npz needs to know where the arrays are", hint='set data.source = "FILE.npz" in the study')
    path = Path(source).expanduser().resolve()

    def build(draft: Draft) -> About:
        with _members(path) as members:
            images, labels = _checked(path, members, class_names)
            names = class_names or tuple(map(str, range(int(labels["train"].max()) + 1)))
            digests = {split: _write(draft, split, images[split], labels[split]) for split in images}
        notes = [*_absent(labels, names), *_shared(digests)]
        return About(class_names=names, licence=licence, citation=citation, notes=notes)

    key = {"source": str(path), "class_names": class_names, "licence": licence, "citation": citation}
    return prepare(Path(root), "npz", build, options=key, origin=listing_digest(path) if path.exists() else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """One array in the archive, of which only the header was read."""

    archive: zipfile.ZipFile
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    def blocks(self, items: int) -> Iterator[np.ndarray]:
        """Yield the array in order, `items` of its first axis at a time."""
        with self.archive.open(f"{self.name}.npy") as stream:
            _header(stream)
            for start in range(0, self.shape[0], items):
                shape = (min(items, self.shape[0] - start), *self.shape[1:])
                wanted = math.prod(shape) * self.dtype.itemsize
                content = stream.read(wanted)
                if len(content) != wanted:
                    raise EOFError(f"{self.name} ends early")
                yield np.frombuffer(content, self.dtype).reshape(shape)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    return npy.read_array_header_1_0(stream) if version == (1, 0) else npy.read_array_header_2_0(stream)


@contextmanager
def _members(path: Path) -> Iterator[dict[str, _Member]]:
    """Yield the arrays of an npz file by name; an error of the file, also inside the block, becomes a `DataError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {}
            for name in archive.namelist():
                if name.endswith(".npy"):
                    with archive.open(name) as stream:
                        shape, fortran, dtype = _header(stream)
                    members[name[:-4]] = _Member(
                        archive=archive, name=name[:-4], shape=shape, dtype=dtype, fortran=fortran and len(shape) > 1
                    )
            yield members
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {error or type(error).__name__}", hint=_LAYOUT) from error


def _checked(
    path: Path, members: dict[str, _Member], class_names: Sequence[str]
) -> tuple[dict[str, _Member], dict[str, np.ndarray]]:
    """Return the images and labels (N,) of each split; raise `DataError` with everything that is wrong with them."""
    found = [
        split for split in ("train", "val", "test") if f"{split}_images" in members or f"{split}_labels" in members
    ]
    wanted = [f"{split}_{what}" for split in dict.fromkeys(("train", *found, "test")) for what in ("images", "labels")]
    problems = [f"no array {name}" for name in wanted if name not in members]
    images, labels = {}, {}
    for split in found:
        if (member := members.get(f"{split}_images")) is not None:
            problems += [f"{member.name}: {why}" for why in _image_problems(member)]
            images[split] = member
        if (member := members.get(f"{split}_labels")) is not None:
            why = _label_problem(member)
            problems += [f"{member.name}: {why}"] if why else []
            if not why:
                labels[split] = np.concatenate(list(member.blocks(1 << 20))).reshape(-1).astype(np.int64)
        if split in images and split in labels and images[split].shape[:1] not in ((), labels[split].shape):
            problems.append(f"{split}: {images[split].shape[0]:,} images but {len(labels[split]):,} labels")
    if "train" in labels:
        problems += _foreign(labels, class_names)
    if problems:
        others = ", ".join(sorted(name for name in members if name not in wanted))
        held = [f"it also holds {others}"] if others and any("no array" in line for line in problems) else []
        raise DataError(f"{path} is no set of images and classes", problems=listed(problems + held), hint=_LAYOUT)
    return images, labels


def _image_problems(member: _Member) -> Iterator[str]:
    shape = member.shape
    told = f"{member.dtype} {shape}, expected uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3)"
    if member.dtype.hasobject:
        yield "it holds pickled objects, which are not read"
    elif len(shape) == 5 or (len(shape) == 4 and shape[3] not in (1, 3) and len(set(shape[1:])) == 1):
        yield f"three-dimensional volumes {shape[1:]}: only flat images can be used"
    elif len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        yield f"{told}; the channels come last here: save np.moveaxis(images, 1, -1)"
    elif member.dtype != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        yield told
    elif member.fortran:
        yield "saved in Fortran's order: save np.ascontiguousarray(images)"
    elif 0 in shape:
        yield f"no images {shape}"


def _label_problem(member: _Member) -> str:
    shape = member.shape
    if member.dtype.hasobject:
        return "it holds pickled objects, which are not read"
    if len(shape) == 2 and shape[1] > 1:
        return f"multi-label: {shape[1]} labels an image, expected one class an image, integers (N,) or (N, 1)"
    if len(shape) not in (1, 2) or 0 in shape or not np.issubdtype(member.dtype, np.integer):
        return f"{member.dtype} {shape}, expected integers (N,) or (N, 1)"
    return ""


def _foreign(labels: dict[str, np.ndarray], class_names: Sequence[str]) -> Iterator[str]:
    """Yield a line for labels that are none of train's classes, and where the names given are too few or many."""
    top = int(labels["train"].max())
    for split, numbers in labels.items():
        if (wrong := np.unique(numbers[(numbers < 0) | (numbers > top)])).size:
            shown = ", ".join(map(str, wrong[:8])) + ", ..." * (wrong.size > 8)
            yield f"{split}_labels: {shown}, where train has the classes 0 to {top}"
    if class_names and len(class_names) != top + 1:
        yield f"class_names are {len(class_names)}, but train has the classes 0 to {top}"


def _write(draft: Draft, split: str, member: _Member, labels: np.ndarray) -> list[bytes]:
    """Write a split's images, a few at a time, and return the digest of each."""
    count, height, width, channels = (*member.shape, 1)[:4]
    out = draft.allocate(split, labels, (height, width, channels))
    digests: list[bytes] = []
    for block in member.blocks(max(1, _AT_ONCE // max(1, height * width * channels))):
        out[len(digests) : len(digests) + len(block)] = block.reshape(-1, height, width, channels)
        digests += pixel_digests(block)
        report_progress(len(digests), count, f"reading {split}")
    return digests


def _absent(labels: dict[str, np.ndarray], names: Sequence[str]) -> Iterator[str]:
    for split, numbers in labels.items():
        if absent := [name for label, name in enumerate(names) if label not in set(np.unique(numbers).tolist())]:
            yield f"Classes without an image in {split}: {', '.join(listed(absent))}."


def _shared(digests: dict[str, list[bytes]]) -> Iterator[str]:
    for one, other in combinations(digests, 2):
        if shared := shared_images(digests[one], digests[other]):
            yield f"Images of {other} that are also in {one}, pixel for pixel: {shared:,}."
