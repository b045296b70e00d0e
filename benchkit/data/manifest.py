"""What lies beside prepared arrays: where they come from, what they hold, and how to tell that they are whole."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchkit.data.mapped import LARGE, parts
from benchkit.errors import BenchkitError, DataError, first_line, listed, where_raised
from benchkit.metrics import unbalanced
from benchkit.protocols import Repeated, Split, Splits
from benchkit.registry import Registry
from benchkit.registry.entries import Entry, source_hash
from benchkit.registry.options import bind_options, options_of
from benchkit.study.settings import PluginRef

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


_maker: ContextVar[str] = ContextVar("benchkit_maker", default="")


@contextmanager
def made_by(entry: Entry) -> Iterator[None]:
    """Let whatever is prepared inside the block say by which source of a data set's plugin it was made."""
    token = _maker.set(source_hash(entry))
    try:
        yield
    finally:
        _maker.reset(token)


def maker() -> dict[str, str]:
    """Return what a manifest keeps of the plugin that prepares a set: the digest of its source, where it is known."""
    return {"source": _maker.get()} if _maker.get() else {}


def maker_warning(entry: Entry, source: str) -> str:
    """Return a sentence where a set was prepared by another source of its plugin than is here, else nothing.

    benchkit's own data sets change with its version, and say themselves what that means for what is prepared.
    """
    now = source_hash(entry)
    if entry.is_own or not source or not now or source == now:
        return ""
    again = f"benchkit data prepare {entry.name} --replace{f' --plugin {entry.file.name}' if entry.file else ''}"
    return (
        f"{entry.name}: its images were prepared by another source of the data set ({source}) than is here ({now}), "
        f"and are used as they are; `{again}` makes them anew"
    )


def load_data(registry: Registry, ref: PluginRef, root: Path, study_file: Path | None = None) -> Splits:
    """Return a data set's splits, preparing it under `root` when that has not been done.

    Options that are relative paths are told from the folder of the study's file (see `located`).
    """
    plugin = registry.bind("datasets", located(registry, ref, root, study_file)[0])
    with naming(registry, ref.name), made_by(registry.resolve("datasets", ref.name)[0]):
        splits = plugin(root)
        if not isinstance(splits, Splits):
            raise DataError(f"it returned a {type(splits).__name__}, expected benchkit.Splits")
    return splits


@contextmanager
def naming(registry: Registry, name: str) -> Iterator[None]:
    """Let what a data set raises in the block be a `DataError` that names it, and the plugin where it is a stranger's.

    What the machine is to blame for passes as it is: memory, packages, and what the system refuses.
    """
    entry = registry.resolve("datasets", name)[0]
    origin = entry.file.name if entry.file else entry.origin
    hint = "" if entry.is_own else f"`benchkit plugins check {name}` tries the plugin of {origin}"
    try:
        yield
    except DataError as error:
        what = error.what if name in error.what else f"{name}: {error.what}"
        raise type(error)(what, problems=error.problems, hint=error.hint or hint) from error
    except (BenchkitError, MemoryError, ImportError):
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        told = f"{type(error).__name__}: {first_line(error)}{where_raised(error, plugins_only=True)}"
        raise DataError(f"{name}: {told}", hint=hint) from error


def located(
    registry: Registry, ref: PluginRef, root: Path, study_file: Path | None
) -> tuple[PluginRef, Mapping[str, tuple[Path, ...]]]:
    """Return a data set's reference with its relative paths made whole, and by option the paths tried in vain.

    A relative path is told from the folder of the study's file, else from the current one where only that has it; with
    nothing there, it is the path of which the set is prepared, if any.
    """
    from benchkit.preparation import find_prepared

    plugin = cast(Callable[..., Any], registry.load("datasets", ref.name))
    options, given, missing = options_of(plugin, "datasets"), dict(ref.options), {}
    for option in options:
        value = given.get(option.name)
        if "path" not in option.type.split(" | ") or not isinstance(value, str | Path):
            continue
        written = Path(value).expanduser()
        folders = (study_file.absolute().parent, Path.cwd()) if study_file else (Path.cwd(),)
        tried = tuple(dict.fromkeys(folder / written for folder in folders))
        there = [path for path in tried if path.exists()] or [
            path
            for path in tried
            if find_prepared(plugin, root, bind_options(options, {**given, option.name: str(path)}))
        ]
        if not there:
            missing[option.name] = tried
        given[option.name] = str((there or tried)[0])
    return PluginRef(name=ref.name, options=given), missing


def check_data(registry: Registry, refs: Iterable[PluginRef], study_file: Path | None) -> None:
    """Raise `DataError` with every path of a data set that is neither there nor of a set that is prepared."""
    problems = []
    for ref in refs:
        if any(isinstance(value, str) for value in ref.options.values()):
            from benchkit.preparation import data_root

            _, missing = located(registry, ref, data_root(), study_file)
            problems += [
                f"data.{name} = {str(ref.options[name])!r}: {' and '.join(map(str, tried))} "
                f"{'do' if len(tried) > 1 else 'does'} not exist"
                for name, tried in missing.items()
            ]
    if problems:
        raise DataError(
            "the study's images cannot be found",
            problems=problems,
            hint="relative paths are told from the folder of the study's file",
        )


def class_counts(split: Split, splits: Splits) -> list[int]:
    """Return the number of a split's images of each class, in label order; labels of no class are not counted."""
    counts = dict(zip(*(each.tolist() for each in np.unique(split.labels, return_counts=True)), strict=True))
    return [counts.get(label, 0) for label in range(len(splits.class_names))]


def balance_warning(facts: Mapping[str, Any]) -> str:
    """Return a sentence where the largest class of train has three times the smallest or more, else nothing."""
    if not unbalanced(facts):
        return ""
    counts = dict(zip(facts["class_names"], facts["class_counts"]["train"], strict=True))
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    return (
        f"{facts['name']}: the classes of train are unbalanced, {most} has {counts[most]:,} images and {least} "
        f"{counts[least]:,}; naming {most} always is right for {counts[most] / sum(counts.values()):.0%} of them"
    )


def absence_warning(facts: Mapping[str, Any]) -> str:
    """Return a sentence where a split has no image of some class, else nothing."""
    absent = [
        f"{split} has no image of "
        + listed([name for name, count in zip(facts["class_names"], counts, strict=True) if not count], 10)
        for split, counts in facts.get("class_counts", {}).items()
        if not all(counts)
    ]
    return f"{facts['name']}: {'; '.join(absent)}" if absent else ""


TORN = (
    "Validation images are drawn from train one by one, so that both have images of the same groups; own images "
    "that are prepared again (--replace) get a val split of whole groups."
)


def warnings_of(facts: Mapping[str, Any]) -> list[str]:
    """Return a sentence on each: unbalanced classes, classes that a split lacks, and groups that validation tears."""
    torn = f"{facts['name']}: {TORN}" if TORN in facts["notes"] else ""
    return [words for words in (balance_warning(facts), absence_warning(facts), torn) if words]


def facts_of(ref: PluginRef, splits: Splits) -> dict[str, Any]:
    """Return the facts of a prepared data set as plain values; counts are those of the whole splits."""
    named = splits.named
    return {
        "name": ref.name,
        "options": {key: str(value) for key, value in ref.options.items()},
        "counts": {name: len(split.labels) for name, split in named.items()},
        "class_counts": {name: class_counts(split, splits) for name, split in named.items()},
        "image_shape": list(splits.train.images.shape[1:]),
        "class_names": list(splits.class_names),
        "licence": splits.licence,
        "citation": splits.citation,
        "notes": list(splits.notes),
        "fingerprint": splits.fingerprint,
        **_repeated(splits),
    }


SIDE = 64
"""Pixels of the longer side of a repeated image's picture, at the most."""


def _repeated(splits: Splits) -> dict[str, Any]:
    """Return what a ledger keeps of images that several splits have, nothing where there are none.

    Of a pair: the splits and classes of both, and the picture, JPEG in base64.
    """
    found = splits.repeated
    if found is None or not found.count:
        return {}
    return {"repeated": found.count, "repeated_pairs": [_pair(splits, *pair) for pair in found.pairs]}


def _pair(splits: Splits, first: str, row: int, second: str, other: int) -> dict[str, Any]:
    named = splits.named
    return {
        "splits": [first, second],
        "classes": [splits.class_names[named[split].labels[at]] for split, at in ((first, row), (second, other))],
        "picture": _picture(named[second], other),
    }


def _picture(split: Split, row: int) -> str:
    from PIL import Image

    pixels = split.images[row]
    colours = np.repeat(pixels[:, :, :1], 3, axis=2) if pixels.shape[2] != 3 else pixels
    image = Image.fromarray(np.ascontiguousarray(colours))
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return base64.b64encode(out.getvalue()).decode()


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
