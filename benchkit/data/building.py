"""How a data set is built: in a folder of its own, with a name of its own, moved into place when it is complete.

Several machines may build one set on a disk that they share and that keeps them apart by no lock: none may take what
another is building for what a killed process left.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchkit.data.dataset import maker
from benchkit.data.draft import Build, Draft
from benchkit.data.mapped import parts
from benchkit.data.prepared import (
    FILE_NAME,
    Manifest,
    current_manifest,
    fingerprint_of,
    open_splits,
    preparing,
    report_progress,
    write_manifest,
)
from benchkit.errors import DataError
from benchkit.locks import Lock, system_id
from benchkit.protocols import Repeated, Splits

ABANDONED = 86400.0
"""Seconds after its last change at which another machine's folder counts as left by a killed process."""

TRIES = 10


def building_folder(folder: Path) -> Path:
    """Return a new name beside a folder for what is being built."""
    return folder.with_name(f".{folder.name}.preparing-{_machine()}-{secrets.token_hex(4)}")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left beside a folder whose lock we hold: this machine's, and what is a day old."""
    ours = f".{folder.name}.preparing-{_machine()}-"
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.*"):
        if re.fullmatch(r"(preparing|old)(-[0-9a-f]+-[0-9a-f]+(-old)?)?", leftover.name[len(folder.name) + 2 :]):
            with suppress(FileNotFoundError):
                newest = max(path.stat().st_mtime for path in (leftover, *leftover.rglob("*")))
                if leftover.name.startswith(ours) or time.time() - newest > ABANDONED:
                    shutil.rmtree(leftover)


def put(built: Path, folder: Path) -> None:
    """Let what was built have its name, in the place of what has it already.

    Raises `OSError` when it cannot be moved; what was there then stays.
    """
    old = built.with_name(f"{built.name}-old")
    try:
        for _ in range(TRIES):
            with suppress(FileNotFoundError):
                folder.rename(old)
            try:
                built.rename(folder)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            shutil.rmtree(old, ignore_errors=True)  # another machine has put its own there since
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def _machine() -> str:
    return hashlib.sha256(system_id().encode()).hexdigest()[:8]


@contextmanager
def locked(root: Path, folder: Path, name: str) -> Iterator[None]:
    """Keep other processes from building a set in the block, where its disk has locks; what killed ones left goes."""
    try:
        (root / ".locks").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the data root {root} cannot be written: {error}", hint="choose another one with BENCHKIT_DATA"
        ) from error
    lock = Lock(root / ".locks" / f"{folder.name}.lock")
    ours = False
    with suppress(OSError):  # a disk without locks: of several that build it, the first to be done is served
        ours = lock.acquire(wait=False)
        if not ours:
            report_progress(0, 0, f"waiting for another process that prepares {name}")
            ours = lock.acquire()
    try:
        if ours:
            remove_leftovers(folder)
        yield
    finally:
        lock.release()


def build_set(
    folder: Path, name: str, build: Build, options: Mapping[str, Any], origin: str, *, anew: bool
) -> Manifest:
    """Return the manifest of what was built; one that another machine put there meanwhile stays, unless `anew`."""
    temporary = building_folder(folder)
    temporary.mkdir(parents=True)
    try:
        manifest = _fill(Draft(temporary), name, build, options, origin)
        if not anew and (theirs := current_manifest(folder, origin)) is not None:
            return theirs
        put(temporary, folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def _fill(draft: Draft, name: str, build: Build, options: Mapping[str, Any], origin: str) -> Manifest:
    made_with = {**_versions(), **maker()}  # of the source as it is before the images are made, which may take hours
    with preparing("prepare"):
        about = build(draft)
    shutil.rmtree(draft.scratch)
    manifest = Manifest(
        name=name,
        options=dict(options),
        origin=origin,
        splits=draft.checked(about),
        class_names=tuple(about.class_names),
        licence=about.licence,
        citation=about.citation,
        notes=tuple(about.notes),
        fingerprint="",
        made_with=made_with,
    )
    written = open_splits(draft.folder, manifest)
    manifest = replace(manifest, fingerprint=fingerprint_of(written), repeated=repeated_images(written))
    for file in sorted(draft.folder.iterdir()):
        _sync(file)
    write_manifest(manifest, draft.folder / FILE_NAME)
    _sync(draft.folder / FILE_NAME)
    _sync(draft.folder)
    return manifest


MOST_PAIRS = 12
"""Pairs of repeated images that are kept, to be shown; the others are counted."""


def repeated_images(splits: Splits) -> Repeated:
    """Return the images of val and test that an earlier split has, too; of train, val, test, all bytes are read once.

    An image is counted once, with the first one that is equal to it.
    """
    first: dict[bytes, tuple[str, int]] = {}
    pairs: list[tuple[str, int, str, int]] = []
    count = 0
    for name, split in splits.named.items():
        images = (image for part in parts(split.images) for image in np.asarray(part))
        for row, image in enumerate(images):
            digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            where, other = first.setdefault(digest, (name, row))
            if where != name:
                count += 1
                pairs += [(where, other, name, row)] * (len(pairs) < MOST_PAIRS)
    return Repeated(count=count, pairs=tuple(pairs))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _versions() -> dict[str, str]:
    import PIL

    import benchkit

    return {
        "benchkit": benchkit.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
    }
