"""Preparing a data set once, atomically, and serving it memory-mapped ever after: what authors of data sets use.

    def stripes(root: Path, *, n: int = 100) -> Splits:
        def build(draft: Draft) -> About:
            for split in ("train", "test"):
                draft.write(split, images=..., labels=...)
            return About(class_names=("across", "down"), licence="CC0-1.0", citation="...")

        return prepare(root, "stripes", build, options={"n": n})

A prepared folder is `root/NAME`, or `root/NAME-<hash of the options>`. It appears by one rename when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchkit.data.archives import unpacked
from benchkit.data.building import building_folder, put, remove_leftovers
from benchkit.data.decoding import (
    DECODING,
    IMAGE_SUFFIXES,
    Box,
    BoxOf,
    Decoded,
    Fit,
    decode_images,
    image_sizes,
    pixel_digests,
    treatment_notes,
)
from benchkit.data.draft import About, Draft
from benchkit.data.importing import SPLIT_SYNONYMS, ClassFolders, find_class_folders, listing_digest
from benchkit.data.manifest import (
    FILE_NAME,
    Manifest,
    Progress,
    SplitManifest,
    fingerprint_of,
    listening,
    maker,
    open_splits,
    progress_lines,
    read_manifest,
    report_progress,
    write_manifest,
)
from benchkit.data.mapped import parts
from benchkit.errors import DataError
from benchkit.errors import first_of as listed
from benchkit.locks import Lock
from benchkit.protocols import Repeated, Splits
from benchkit.storage import chosen_folder

__all__ = [
    "DECODING",
    "IMAGE_SUFFIXES",
    "SPLIT_SYNONYMS",
    "About",
    "Box",
    "BoxOf",
    "ClassFolders",
    "Decoded",
    "Draft",
    "Fit",
    "Manifest",
    "NotPrepared",
    "Progress",
    "SplitManifest",
    "data_root",
    "decode_images",
    "find_class_folders",
    "find_prepared",
    "fingerprint_of",
    "image_sizes",
    "listed",
    "listening",
    "listing_digest",
    "pixel_digests",
    "prepare",
    "prepared_folder",
    "prepared_folders",
    "prepared_manifest",
    "progress_lines",
    "replacing",
    "report_progress",
    "treatment_notes",
    "unpacked",
    "verify",
]

Build = Callable[[Draft], About]
"""Writes all splits into a draft and says what the data set is."""


class NotPrepared(DataError):
    """The data set is not prepared, and the call was not allowed to prepare it."""


@dataclass(slots=True)
class _Scope:
    """What `prepare` may do in this thread of execution, and which manifests it served."""

    mode: Literal["prepare", "look-up", "replace"] = "prepare"
    served: list[Manifest] = field(default_factory=list)


_scope: ContextVar[_Scope | None] = ContextVar("benchkit_preparation", default=None)


def data_root() -> Path:
    """Return where prepared data live.

    `BENCHKIT_DATA`, else `$XDG_CACHE_HOME/benchkit`, else `~/.cache/benchkit`. The folder need not exist.
    """
    return chosen_folder("BENCHKIT_DATA")


EARLIER = (
    "Prepared by an earlier version, whose rules for reading and splitting files it keeps, so that what was trained on "
    "it goes on; import it again with --replace for today's rules."
)
"""The note of a set that is served as an earlier version prepared it."""


def prepare(
    root: Path,
    name: str,
    build: Build,
    *,
    options: Mapping[str, Any] | None = None,
    origin: str = "",
    earlier: Mapping[str, Any] | None = None,
) -> Splits:
    """Return the prepared data set, calling `build` once if there is none; a later call opens it without torch.

    `build` fills a temporary folder, which becomes the prepared one in a single rename once everything is on disk:
    whoever is killed half-way leaves nothing that could be served, and the next call starts over. Processes that
    prepare the same set wait for one another and the work is done once. `options` are those that determine the content
    (JSON values). `origin`, where not empty, names what the set is made from; when it differs from that of the
    prepared one, the set is prepared again. `earlier` are the options under which an earlier version prepared the set
    by other rules: while there is such a folder and none by these `options`, it is served, with a note.

    Raises:
        DataError: the prepared folder is damaged, or what `build` wrote is no data set.
    """
    folder = prepared_folder(root, name, options or {})
    scope = _scope.get() or _Scope()
    manifest = None if scope.mode == "replace" else _current(folder, origin)
    if manifest is None and earlier is not None and scope.mode != "replace":
        before = prepared_folder(root, name, earlier)
        if (kept := _current(before, origin)) is not None:
            scope.served.append(kept)
            splits = open_splits(before, kept)
            return replace(splits, notes=(*splits.notes, EARLIER))
    if manifest is None and scope.mode == "look-up":
        raise NotPrepared(f"{name} is not prepared in {root}", hint=f"run `benchkit data prepare {name}`")
    if manifest is None:
        with _locked(root, folder, name):
            manifest = None if scope.mode == "replace" else _current(folder, origin)
            if manifest is None:
                manifest = _build(folder, name, build, options or {}, origin, anew=scope.mode == "replace")
                for note in manifest.notes:
                    report_progress(0, 0, f"{name}: {note}")
    scope.served.append(manifest)
    return open_splits(folder, manifest)


def prepared_manifest(root: Path, name: str, options: Mapping[str, Any] | None = None) -> Manifest | None:
    """Return the manifest of a prepared set, None when it is not prepared. `options` are those given to `prepare`.

    Raises:
        DataError: the folder is there but cannot be used.
    """
    return read_manifest(prepared_folder(root, name, options or {}))


def find_prepared(plugin: Callable[..., Splits], root: Path, options: Mapping[str, Any]) -> Manifest | None:
    """Return the manifest of what `plugin(root, **options)` would serve, None where it would have to prepare first.

    The plugin is called, but `prepare` does not build inside this call. None also for a plugin that does not use
    `prepare`.

    Raises:
        DataError: the prepared data are damaged, or the plugin refuses the options.
    """
    with _mode("look-up") as scope:
        try:
            splits = plugin(root, **options)
        except NotPrepared:
            return None
    return next((found for found in reversed(scope.served) if found.fingerprint == splits.fingerprint), None)


def prepared_folders(root: Path) -> dict[Path, Manifest | DataError]:
    """Return every prepared folder below `root` in name order, with its manifest or why that cannot be read."""
    manifests: dict[Path, Manifest | DataError] = {}
    for file in sorted(root.glob(f"[!.]*/{FILE_NAME}")):
        try:
            manifest = read_manifest(file.parent)
        except DataError as error:
            manifests[file.parent] = error
        else:
            if manifest is not None:
                manifests[file.parent] = manifest
    return manifests


def verify(folder: Path) -> Manifest:
    """Return the manifest of a prepared folder after reading every byte and comparing the fingerprint.

    Raises:
        DataError: the folder is not there, or its content is not what was prepared.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise NotPrepared(f"{folder} does not exist")
    actual = fingerprint_of(open_splits(folder, manifest))
    if actual != manifest.fingerprint:
        raise DataError(
            f"the prepared data set in {folder} is damaged: sha256 {actual[:12]}, expected {manifest.fingerprint[:12]}",
            hint="prepare or import it again with --replace",
        )
    return manifest


@contextmanager
def replacing() -> Iterator[None]:
    """Let the outermost `prepare` in the block build anew; the old folder is served until the new one is complete."""
    with _mode("replace"):
        yield


@contextmanager
def _mode(mode: Literal["prepare", "look-up", "replace"]) -> Iterator[_Scope]:
    scope = _Scope(mode)
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


def prepared_folder(root: Path, name: str, options: Mapping[str, Any]) -> Path:
    """Return where `prepare` puts a data set; `options` are those given to it."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise DataError(f"{name!r} cannot name a data set", hint="lower-case letters, digits and hyphens")
    if not options:
        return root / name
    text = json.dumps(dict(options), sort_keys=True, default=str)
    return root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _current(folder: Path, origin: str) -> Manifest | None:
    manifest = read_manifest(folder)
    return None if manifest is None or (origin and manifest.origin != origin) else manifest


@contextmanager
def _locked(root: Path, folder: Path, name: str) -> Iterator[None]:
    try:
        (root / ".locks").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the data root {root} cannot be written: {error}", hint="choose another one with BENCHKIT_DATA"
        ) from error
    lock = Lock(root / ".locks" / f"{folder.name}.lock")
    locked = False
    with suppress(OSError):  # a disk without locks: of several that build it, the first to be done is served
        locked = lock.acquire(wait=False)
        if not locked:
            report_progress(0, 0, f"waiting for another process that prepares {name}")
            locked = lock.acquire()
    try:
        if locked:
            remove_leftovers(folder)
        yield
    finally:
        lock.release()


def _build(folder: Path, name: str, build: Build, options: Mapping[str, Any], origin: str, *, anew: bool) -> Manifest:
    """Return the manifest of what was built; one that another machine put there meanwhile stays, unless `anew`."""
    temporary = building_folder(folder)
    temporary.mkdir(parents=True)
    try:
        manifest = _fill(Draft(temporary), name, build, options, origin)
        if not anew and (theirs := _current(folder, origin)) is not None:
            return theirs
        put(temporary, folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def _fill(draft: Draft, name: str, build: Build, options: Mapping[str, Any], origin: str) -> Manifest:
    made_with = {**_versions(), **maker()}  # of the source as it is before the images are made, which may take hours
    with _mode("prepare"):
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
