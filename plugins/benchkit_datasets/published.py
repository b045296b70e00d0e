"""Data sets that everybody knows: fixed classes, counts and content, from whatever layout the user has."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np

from benchkit import DataError, Splits
from benchkit.preparation import (
    About,
    BoxOf,
    Decoded,
    Draft,
    Fit,
    decode_images,
    find_class_folders,
    listed,
    pixel_digests,
    prepare,
    report_progress,
    unpacked,
)

Arrays = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""By split: images uint8 (N, H, W, C) and labels int64 (N,)."""

Files = Mapping[str, tuple[Sequence[Path], Sequence[int]]]
"""By split: image files, and the label of each."""

PARTIAL = "to import a part of the set on purpose, use --partial (it will be noted in reports)"
"""The hint where a set is not whole."""

TIMEOUT = 60.0
"""Seconds without a byte after which a server counts as out of reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSet:
    """What is known of a data set before anybody has it.

    `class_counts` are images per class in label order, by split. `content` is `content_digest` of each split of the
    original. `read` returns the arrays from torchvision's layout, None when a folder does not hold it; `download`
    fetches the original into a folder and returns where it lies.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    class_counts: Mapping[str, tuple[int, ...]]
    shape: tuple[int, int, int]
    content: Mapping[str, str]
    licence: str
    citation: str
    read: Callable[[Path], Arrays | None]
    download: Callable[[Path], Path]


def serve(published: PublishedSet, root: Path, source: Path | None, *, partial: bool) -> Splits:
    """Return the prepared set, from `source` (folder or archive) or a download when it is not prepared yet.

    Images are stored in the order of the SHA-256 of their pixels, so that the same images give the same arrays and the
    same fingerprint whatever layout they came in, and any leading part is a random sample.

    Raises:
        DataError: the files are not the whole set (with `partial`: hold other classes or too many images).
    """

    def build(draft: Draft) -> About:
        with unpacked(Path(source) if source else published.download(draft.scratch), draft.scratch) as folder:
            arrays = published.read(folder) or _from_class_folders(published, folder)
        _check(published, arrays, partial=partial)
        digests = {split: pixel_digests(images) for split, (images, _) in arrays.items()}
        for split, (images, labels) in arrays.items():
            report_progress(0, 0, f"writing {published.name} {split}")
            write_in_order(draft, split, images, labels, canonical_order(digests[split], labels))
        return About(
            class_names=published.class_names,
            licence=published.licence,
            citation=published.citation,
            notes=_notes(published, arrays, digests),
        )

    return prepare(Path(root), published.name, build)


def canonical_order(digests: Sequence[bytes], labels: np.ndarray) -> np.ndarray:
    """Return the indices (N,) that sort images by the SHA-256 of their pixels, then by label."""
    return np.array(sorted(range(len(digests)), key=lambda i: (digests[i], int(labels[i]))), dtype=np.int64)


def write_in_order(draft: Draft, split: str, images: np.ndarray, labels: np.ndarray, order: np.ndarray) -> None:
    """Write `images[order]` and `labels[order]` without a second copy of the images in memory."""
    height, width, channels = images.shape[1:]
    out = draft.allocate(split, labels[order], (height, width, channels))
    for start in range(0, len(order), 4096):
        out[start : start + 4096] = images[order[start : start + 4096]]


def content_digest(digests: Sequence[bytes], labels: np.ndarray) -> str:
    """Return a sha256 hex digest over the pairs of pixel digest and label, in canonical order."""
    order = canonical_order(digests, labels)
    return hashlib.sha256(b"".join(digests[i] + int(labels[i]).to_bytes(2, "little") for i in order)).hexdigest()


def shared_images(train: Sequence[bytes], test: Sequence[bytes]) -> int:
    """Return how many test images also occur, pixel for pixel, in train."""
    known = set(train)
    return sum(digest in known for digest in test)


def _from_class_folders(published: PublishedSet, folder: Path) -> Arrays:
    own = folder / published.name
    layout = find_class_folders(own if own.is_dir() else folder)
    problems = [f"unknown class {name!r}" for name in layout.class_names if name not in published.class_names] + [
        f"class {name!r} is missing" for name in published.class_names if name not in layout.class_names
    ]
    if set(layout.splits) != {"train", "test"}:
        problems.append(f"folders for the splits {', '.join(sorted(layout.splits))}, expected train and test")
    if problems:
        raise DataError(
            f"{layout.folder} does not hold {published.title}",
            problems=listed(problems),
            hint=f"its classes are {', '.join(published.class_names[:12])}{' ...' * (len(published.class_names) > 12)}",
        )
    arrays = {}
    for split in ("train", "test"):
        files = layout.files(split)
        images = np.empty((len(files), *published.shape), np.uint8)
        decoded = decode_images(files, images, what=f"decoding {published.name} {split}")
        problems += decoded.problems
        named = np.array([published.class_names.index(name) for name in layout.class_names], dtype=np.int64)
        arrays[split] = (images, named[layout.labels(split)])
    if problems:
        raise DataError(f"{len(problems):,} images cannot be used", problems=listed(problems))
    return arrays


def decode_splits(
    draft: Draft, files: Files, size: int, *, what: str, fit: Fit | Mapping[str, BoxOf] = "squash", hint: str = ""
) -> dict[str, Decoded]:
    """Decode files into the draft as images (size, size, 3), fitted in one way or by each split's boxes.

    `what` is shown while it lasts. Raise `DataError`, with the `hint`, naming those that cannot be read.
    """
    decoded = {}
    for split, (paths, labels) in files.items():
        images = draft.allocate(split, np.array(labels, dtype=np.int64), (size, size, 3))
        fitted = fit if isinstance(fit, str) else fit[split]
        decoded[split] = decode_images(paths, images, what=f"{what} {split}", resize=True, fit=fitted)
    if problems := [problem for part in decoded.values() for problem in part.problems]:
        raise DataError(f"{len(problems):,} images cannot be used", problems=listed(problems), hint=hint)
    return decoded


def _check(published: PublishedSet, arrays: Arrays, *, partial: bool) -> None:
    problems, missing = [], []
    for split, expected in published.class_counts.items():
        labels = arrays[split][1]
        if labels.size and not 0 <= labels.min() <= labels.max() < len(expected):
            problems.append(f"{split}: labels {labels.min()}..{labels.max()}, expected 0..{len(expected) - 1}")
            continue
        counts = np.bincount(labels, minlength=len(expected))
        for name, count, full in zip(published.class_names, counts.tolist(), expected, strict=True):
            line = f"{split}, class {name}: {count:,} images, expected {full:,}"
            if count > full or count == 0:
                problems.append(line)
            elif count < full:
                missing.append(line)
    if problems or (missing and not partial):
        totals = ", ".join(f"{len(arrays[s][1]):,} {s} images" for s in published.class_counts)
        wanted = ", ".join(f"{sum(counts):,} {s} images" for s, counts in published.class_counts.items())
        raise DataError(
            f"this is not {published.title}: found {totals}, expected {wanted}",
            problems=listed(problems + missing),
            hint="" if problems else PARTIAL,
        )


def _notes(published: PublishedSet, arrays: Arrays, digests: Mapping[str, Sequence[bytes]]) -> list[str]:
    notes = []
    present = {split: len(labels) for split, (_, labels) in arrays.items()}
    full = {split: sum(counts) for split, counts in published.class_counts.items()}
    if present != full:
        parts = " and ".join(f"{present[s]:,} of the {full[s]:,} {s} images" for s in full)
        notes.append(f"This is only a part of {published.title}: {parts}.")
    else:
        changed = [s for s, (_, labels) in arrays.items() if content_digest(digests[s], labels) != published.content[s]]
        if changed:
            notes.append(
                f"The images or labels of {' and '.join(changed)} differ from the published {published.title}."
            )
    shared = shared_images(digests["train"], digests["test"])
    if shared:
        notes.append(
            f"{shared:,} of the {present['test']:,} test images also {'occurs' if shared == 1 else 'occur'} among the "
            f"training images, pixel for pixel{', as published' * (len(notes) == 0)}."
        )
    return notes


def fetch(urls: Sequence[str], folder: Path, *, filename: str, md5: str, name: str) -> Path:
    """Return the path of the downloaded file, from the first of `urls` that gives it with the right checksum.

    Raises:
        DataError: no address works; it names each with its reason and the command that imports files by hand.
    """
    from torchvision.datasets.utils import download_url

    problems = []
    for url in urls:
        report_progress(0, 0, f"downloading {filename}")
        try:
            with _timeout():
                download_url(url, str(folder), filename, md5)
        except (OSError, HTTPException) as error:
            problems.append(f"{url}: {error}")
        except RuntimeError as error:
            problems.append(f"{url}: {error} The MD5 checksum is not {md5}.")
        else:
            return folder / filename
        (folder / filename).unlink(missing_ok=True)
    raise DataError(
        f"{name} is not prepared and {filename} could not be downloaded",
        problems=problems,
        hint=f"fetch {filename} (MD5 {md5}) in another way, then run `benchkit data import {name} PATH`, where PATH is "
        "the file, an unpacked copy, or class folders of images",
    )


@contextmanager
def _timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
