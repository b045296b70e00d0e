"""A data set's prepared folder: prepared once, atomically, and served memory-mapped ever after, as its manifest tells.

The folder is `root/NAME`, or `root/NAME-<hash of the options>`. It appears by one rename when it is complete. Building
one is `benchkit.data.building`; authors of data sets import `benchkit.preparation`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchkit.data.mapped import LARGE, parts
from benchkit.errors import DataError
from benchkit.protocols import Repeated, Split, Splits
from benchkit.storage import chosen_folder

if TYPE_CHECKING:
    from benchkit.data.draft import Build


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
    manifest = None if scope.mode == "replace" else current_manifest(folder, origin)
    if manifest is None and earlier is not None and scope.mode != "replace":
        before = prepared_folder(root, name, earlier)
        if (kept := current_manifest(before, origin)) is not None:
            scope.served.append(kept)
            splits = open_splits(before, kept)
            return replace(splits, notes=(*splits.notes, EARLIER))
    if manifest is None and scope.mode == "look-up":
        raise NotPrepared(f"{name} is not prepared in {root}", hint=f"run `benchkit data prepare {name}`")
    if manifest is None:
        from benchkit.data.building import build_set, locked

        with locked(root, folder, name):
            manifest = None if scope.mode == "replace" else current_manifest(folder, origin)
            if manifest is None:
                manifest = build_set(folder, name, build, options or {}, origin, anew=scope.mode == "replace")
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
    with preparing("look-up") as scope:
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
    with preparing("replace"):
        yield


@contextmanager
def preparing(mode: Literal["prepare", "look-up", "replace"]) -> Iterator[_Scope]:
    """Let `prepare` do so much in the block; yield what it served there."""
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


def current_manifest(folder: Path, origin: str) -> Manifest | None:
    """Return the manifest of a prepared folder, None where there is none or it is made from something else."""
    manifest = read_manifest(folder)
    return None if manifest is None or (origin and manifest.origin != origin) else manifest


FORMAT = 1
"""The version of the layout of a prepared folder."""
FILE_NAME = "manifest.json"
SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitManifest:
    """One split as prepared: image count and shape (H, W, C), images per class, and the sizes of its files in bytes."""

    count: int
    shape: tuple[int, int, int]
    class_counts: tuple[int, ...]
    image_bytes: int
    label_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A prepared data set in words and numbers; reading it opens no array.

    `options` are those that determine the content. `origin` names what it was made from, where that can change.
    `notes` are sentences that a report must repeat, for example that the set is only a part of the published one.
    `fingerprint` is sha256 over images, labels and class names of all splits (see `fingerprint_of`). `repeated` are the
    images that several splits have; None in sets of earlier versions. `made_with` are versions and, but for those sets,
    the `source` of the plugin that prepared it.
    """

    name: str
    options: Mapping[str, Any]
    splits: Mapping[str, SplitManifest]
    class_names: tuple[str, ...]
    licence: str
    citation: str
    fingerprint: str
    origin: str = ""
    notes: tuple[str, ...] = ()
    format: int = FORMAT
    made_with: Mapping[str, str] = field(default_factory=dict)
    repeated: Repeated | None = None

    @property
    def bytes(self) -> int:
        """Return the size of all arrays on disk."""
        return sum(split.image_bytes + split.label_bytes for split in self.splits.values())


def image_file(folder: Path, split: str) -> Path:
    """Return the path of a split's images, uint8 (N, H, W, C)."""
    return folder / f"{split}-images.npy"


def label_file(folder: Path, split: str) -> Path:
    """Return the path of a split's labels, int64 (N,)."""
    return folder / f"{split}-labels.npy"


def group_file(folder: Path, split: str) -> Path:
    """Return the path of a split's groups, int64 (N,), which sets without groups lack."""
    return folder / f"{split}-groups.npy"


def write_manifest(manifest: Manifest, file: Path) -> None:
    """Write the manifest as JSON."""
    file.write_text(json.dumps(asdict(manifest), indent=1, sort_keys=True, default=str) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a prepared folder, None when there is no such folder.

    Raises:
        DataError: the folder has no manifest that this version can read.
    """
    file = folder / FILE_NAME
    if not folder.exists():
        return None
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise DataError(
                f"{folder} was prepared by another version of benchkit (layout {raw['format']}, not {FORMAT})",
                hint=_AGAIN,
            )
        splits = {name: SplitManifest(**_tuples(split)) for name, split in raw.pop("splits").items()}
        if not {"train", "test"} <= splits.keys() <= set(SPLIT_NAMES):
            raise ValueError(f"splits {sorted(splits)}, expected train, test and perhaps val")
        repeated = raw.pop("repeated", None)
        found = Repeated(count=repeated["count"], pairs=tuple(map(tuple, repeated["pairs"]))) if repeated else None
        in_order = {name: splits[name] for name in SPLIT_NAMES if name in splits}
        return Manifest(splits=in_order, repeated=found, **_tuples(raw))
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} exists but is no prepared data set: it has no {FILE_NAME}",
            hint="move the folder away, or choose another data root with the environment variable BENCHKIT_DATA",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} cannot be read: {error}", hint=_AGAIN) from error


def open_splits(folder: Path, manifest: Manifest) -> Splits:
    """Return the prepared splits, memory-mapped, after a check of sizes, shapes and types that reads no pixels.

    The maps are copy-on-write: writing to an array changes neither the files nor what other processes see. Of a file
    larger than the machine's memory, which Linux maps for no writing, the array is read-only.

    Raises:
        DataError: files are missing or do not fit the manifest; all are named.
    """
    problems: list[str] = []
    splits = {name: _open_split(folder, name, split, problems) for name, split in manifest.splits.items()}
    if problems:
        raise DataError(f"the prepared data set in {folder} is damaged", problems=problems, hint=_AGAIN)
    return Splits(
        train=splits["train"],
        test=splits["test"],
        val=splits.get("val"),
        class_names=manifest.class_names,
        licence=manifest.licence,
        citation=manifest.citation,
        fingerprint=manifest.fingerprint,
        notes=manifest.notes,
        repeated=manifest.repeated,
        source=manifest.made_with.get("source", ""),
    )


def fingerprint_of(splits: Splits) -> str:
    """Return the sha256 hex digest of a data set's content.

    Hashed in this order: the class names as JSON; then for train, val and test, where present, the split's name, the
    shape of its images, its images and its labels (little-endian int64), in the order in which they are served.
    """
    digest = hashlib.sha256(json.dumps(list(splits.class_names), ensure_ascii=False).encode())
    for name, split in splits.named.items():
        digest.update(f"\n{name} {'x'.join(str(n) for n in split.images.shape)}\n".encode())
        for part in parts(split.images):
            digest.update(part.tobytes())
        digest.update(split.labels.astype("<i8").tobytes())
    return digest.hexdigest()


_AGAIN = (
    "prepare or import it again: `benchkit data prepare NAME --replace` or `benchkit data import NAME PATH --replace`"
)


def _tuples(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}


def _open_split(folder: Path, name: str, expected: SplitManifest, problems: list[str]) -> Split:
    count = expected.count
    images = _open_array(
        image_file(folder, name), np.dtype(np.uint8), (count, *expected.shape), expected.image_bytes, problems
    )
    labels = _open_array(label_file(folder, name), np.dtype(np.int64), (count,), expected.label_bytes, problems)
    groups = group_file(folder, name)
    known = (
        _open_array(groups, np.dtype(np.int64), (count,), expected.label_bytes, problems) if groups.exists() else None
    )
    return Split(images=images, labels=labels, groups=known)


def _mapped(file: Path) -> np.ndarray:
    """Return the array of a file, memory-mapped: read-only if large, or where the system refuses another map.

    What can be written to could take all memory, and none of it can be let go of (`let_go`).
    """
    large = file.stat().st_size >= LARGE
    try:
        array: np.ndarray = np.load(file, mmap_mode="r" if large else "c", allow_pickle=False)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    return array


def _open_array(file: Path, dtype: np.dtype[Any], shape: tuple[int, ...], size: int, problems: list[str]) -> np.ndarray:
    nothing = np.empty(0, dtype)
    try:
        actual = file.stat().st_size
        if actual != size:
            problems.append(f"{file.name}: {actual:,} bytes, expected {size:,}")
            return nothing
        array = _mapped(file)
    except (OSError, ValueError, EOFError) as error:
        problems.append(f"{file.name}: {error}")
        return nothing
    if array.dtype != dtype or array.shape != shape:
        problems.append(f"{file.name}: {array.dtype} {array.shape}, expected {dtype} {shape}")
        return nothing
    return array


Progress = Callable[[int, int, str], None]
"""Receives (done, total, what): how many of how many units of the work named `what` are finished; total 0 = unknown."""


_listener: ContextVar[Progress | None] = ContextVar("benchkit_progress", default=None)


@contextmanager
def listening(progress: Progress) -> Iterator[None]:
    """Send every report made inside the block (in this thread of execution) to `progress`."""
    token = _listener.set(progress)
    try:
        yield
    finally:
        _listener.reset(token)


def report_progress(done: int, total: int, what: str) -> None:
    """Tell whoever listens that `done` of `total` units of `what` are finished; without a listener nothing happens."""
    listener = _listener.get()
    if listener is not None:
        listener(done, total, what)


def progress_lines(
    write: Callable[[str], object], *, every: float = 5.0, clock: Callable[[], float] = time.monotonic
) -> Progress:
    """Return a listener that writes one line when a piece of work starts, ends, and at most every `every` seconds."""
    last_what, last_time = "", 0.0

    def listen(done: int, total: int, what: str) -> None:
        nonlocal last_what, last_time
        now = clock()
        if what == last_what and now - last_time < every and not 0 < total <= done:
            return
        last_what, last_time = what, now
        write(f"{what}: {done:,} of {total:,}" if total else what)

    return listen
