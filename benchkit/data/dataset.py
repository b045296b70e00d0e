"""The data set of a study: loaded by its name, told of, and which of its images are train, val and test.

Draws of these keep every class's share. Of folds, into which the images of all splits together are divided, each is the
test images of one repeat.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchkit.data.prepared import data_root, find_prepared
from benchkit.errors import BenchkitError, DataError, UnfitDataError, first_line, listed, where_raised
from benchkit.metrics import pooled_counts, unbalanced
from benchkit.protocols import Split, Splits
from benchkit.registry import Registry
from benchkit.registry.options import bind_options, options_of
from benchkit.registry.registry import Entry
from benchkit.registry.sources import source_hash
from benchkit.study.seeds import derive_seed
from benchkit.study.settings import DataSettings, PluginRef

_maker: ContextVar[Entry | None] = ContextVar("benchkit_maker", default=None)


@contextmanager
def made_by(entry: Entry) -> Iterator[None]:
    """Let whatever is prepared inside the block say by which source of a data set's plugin it was made."""
    token = _maker.set(entry)
    try:
        yield
    finally:
        _maker.reset(token)


def maker() -> dict[str, str]:
    """Return what a manifest keeps of the plugin that prepares a set: the digest of its source, where it is known."""
    entry = _maker.get()
    source = source_hash(entry) if entry else ""
    return {"source": source} if source else {}


def maker_warning(entry: Entry, source: str) -> str:
    """Return a sentence where a set was prepared by another source of its plugin than is here, else nothing.

    benchkit's own data sets change with its version, and say themselves what that means for what is prepared.
    """
    if entry.is_own or not source:
        return ""
    now = source_hash(entry)
    if not now or source == now:
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
            raise UnfitDataError(f"it returned a {type(splits).__name__}, expected benchkit.Splits")
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
    if not any(isinstance(value, str | Path) for value in ref.options.values()):
        return ref, {}
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
    where = facts.get("pooled") or "train"
    counts = dict(zip(facts["class_names"], facts["class_counts"]["train"], strict=True))
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    return (
        f"{facts['name']}: the classes of {where} are unbalanced, {most} has {counts[most]:,} images and {least} "
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


def warnings_of(facts: Mapping[str, Any], folds: bool) -> list[str]:
    """Return a sentence on each: unbalanced classes, classes that a split lacks, and groups that validation tears.

    Folds pool the images of all splits, and keep groups whole.
    """
    if folds:
        pooled = {**facts, "class_counts": {"train": pooled_counts(facts)}, "pooled": "all images together"}
        return [words for words in (balance_warning(pooled),) if words]
    torn = f"{facts['name']}: {TORN}" if TORN in facts.get("notes", ()) else ""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """The images of `split` at `rows`, int64 (n,), ascending."""

    split: Split
    rows: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Return the labels of the selected images, int64 (n,)."""
        labels: np.ndarray = self.split.labels[self.rows]
        return labels

    @property
    def nbytes(self) -> int:
        """Return the bytes that the selected images take."""
        return self.split.images.nbytes // len(self.split.images) * len(self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The images that a study trains on, selects by, and tests on."""

    train: Selected
    val: Selected
    test: Selected


def select(splits: Splits, settings: DataSettings, seed: int, repeat: int = 0) -> Selection:
    """Return the images that a study uses; the same for all of its conditions, and without folds for all repeats.

    Val comes from the val split that the data set ships, else from train (a tenth of it unless `val_size` says
    otherwise), and what remains is train. Draws depend on the study's `seed` alone and keep every class's share, so
    that equally frequent classes stay equally frequent. Raise `DataError` when the data do not fit together or do not
    suffice, with all problems at once.
    """
    _check(splits)
    if settings.folds:
        return _of_fold(splits, settings, seed, repeat)
    val_source, val_size = _val_of(splits, settings)
    everything = np.arange(len(splits.train.labels))
    val = draw(val_source.labels, val_size, derive_seed(seed, "split", "val"))
    pool = np.setdiff1d(everything, val, assume_unique=True) if splits.val is None else everything
    train = pool[draw(splits.train.labels[pool], settings.train_size, derive_seed(seed, "split", "train"))]
    test = draw(splits.test.labels, settings.test_size, derive_seed(seed, "split", "test"))
    return Selection(
        train=Selected(split=splits.train, rows=train),
        val=Selected(split=val_source, rows=val),
        test=Selected(split=splits.test, rows=test),
    )


def check_selection(splits: Splits, settings: DataSettings, seed: int) -> None:
    """Raise `DataError` where `select` would; without folds, whose sizes only a draw tells, nothing is drawn for it."""
    if settings.folds:
        select(splits, settings, seed)
        return
    _check(splits)
    _val_of(splits, settings)


def _val_of(splits: Splits, settings: DataSettings) -> tuple[Split, int]:
    """Return the split that val is drawn from and how many images it takes; raise `DataError` for too few anywhere."""
    source = splits.train if splits.val is None else splits.val
    train = len(splits.train.labels)
    size = settings.val_size or (_tenth(train) if splits.val is None else 0)
    _check_sizes(settings, len(source.labels), train - (size if splits.val is None else 0), len(splits.test.labels))
    return source, size


def _tenth(count: int) -> int:
    """Return a tenth of so many images, rounded down, but one at least: a size of 0 would be all of them."""
    return max(1, count // 10)


def _of_fold(splits: Splits, settings: DataSettings, seed: int, repeat: int) -> Selection:
    """Return the images of a repeat whose test images are its fold of all images; val is drawn from the others."""
    pool = pooled(splits)
    fold, others = fold_rows(pool, settings.folds, repeat, seed)
    val_size = settings.val_size or _tenth(len(others))
    _check_sizes(settings, len(others), len(others) - val_size, len(fold))
    labels = pool.labels
    if pool.groups is None:
        val = others[draw(labels[others], val_size, derive_seed(seed, "split", "val", repeat))]
    else:
        val = val_rows(pool, others, val_size, derive_seed(seed, "split", "val", repeat))
    rest = np.setdiff1d(others, val, assume_unique=True)
    train = rest[draw(labels[rest], settings.train_size, derive_seed(seed, "split", "train", repeat))]
    test = fold[draw(labels[fold], settings.test_size, derive_seed(seed, "split", "test", repeat))]
    return Selection(
        train=Selected(split=pool, rows=train),
        val=Selected(split=pool, rows=val),
        test=Selected(split=pool, rows=test),
    )


def draw(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Return `size` ascending indices into `labels`, int64, drawn without replacement; 0 takes all.

    Each class contributes its share of `size`; what rounding leaves over goes to the largest remainders, and among
    equal remainders to classes chosen at random.
    """
    if size == 0:
        return np.arange(len(labels))
    generator = np.random.default_rng(seed)
    counts = np.bincount(labels)
    share = counts * (size / len(labels))
    quota = np.floor(share).astype(np.int64)
    lottery = generator.permutation(len(counts))
    neediest = np.lexsort((lottery, -np.round(share - quota, 9)))
    quota[neediest[: size - quota.sum()]] += 1
    order = generator.permutation(len(labels))
    by_class = [order[labels[order] == label][:n] for label, n in enumerate(quota)]
    return np.sort(np.concatenate(by_class))


def _check(splits: Splits) -> None:
    problems = [line for name, split in splits.named.items() for line in _misfits(name, split, splits)]
    if problems:
        raise UnfitDataError("the data set does not keep its contract", problems=problems)


def _misfits(name: str, split: Split, splits: Splits) -> list[str]:
    images, labels, classes = split.images, split.labels, len(splits.class_names)
    if images.ndim != 4 or images.dtype != np.uint8:
        return [f"{name}: images must be uint8 (N, H, W, C), got {images.dtype} {images.shape}"]
    if labels.shape != (len(images),) or labels.dtype != np.int64:
        return [f"{name}: labels must be int64 ({len(images)},), got {labels.dtype} {labels.shape}"]
    if len(labels) == 0:
        return [f"{name}: no images"]
    if labels.min() < 0 or labels.max() >= classes:
        return [f"{name}: labels must be in 0..{classes - 1}, got {labels.min()}..{labels.max()}"]
    if images.shape[1:] != splits.train.images.shape[1:]:
        return [f"{name}: images are {images.shape[1:]}, those of train {splits.train.images.shape[1:]} (H, W, C)"]
    return []


def _check_sizes(settings: DataSettings, val: int, train: int, test: int) -> None:
    asked = {"val": settings.val_size, "train": settings.train_size, "test": settings.test_size}
    there = {"val": val, "train": train, "test": test}
    problems = [
        f"data.{name}_size = {asked[name]}: there are {max(there[name], 0)} images to draw from"
        if asked[name]
        else f"no image is left for {name}"
        for name in asked
        if asked[name] > there[name] or there[name] < 1
    ]
    if problems:
        raise UnfitDataError(
            "the data set has fewer images than the study asks for",
            problems=problems,
            hint="ask for fewer; a train_size or test_size of 0 takes all that are left, a val_size of 0 all of a val "
            "split (of own images data.val_fraction is its share)",
        )


def pooled(splits: Splits) -> Split:
    """Return the images of train, val and test in this order as one split, with their groups where they have any.

    An image without a group is one of its own.
    """
    each = list(splits.named.values())
    groups: np.ndarray | None = None
    if any(split.groups is not None for split in each):
        known = [np.full(len(s.labels), -1, np.int64) if s.groups is None else s.groups for s in each]
        groups = np.concatenate(known)
        alone = groups < 0
        groups[alone] = np.arange(int(alone.sum())) + groups.max(initial=-1) + 1
    return Split(
        images=np.concatenate([split.images for split in each]),
        labels=np.concatenate([split.labels for split in each]),
        groups=groups,
    )


def folds_of(labels: np.ndarray, groups: np.ndarray | None, n: int, seed: int) -> np.ndarray:
    """Return the fold, int64 (N,) in 0..n-1, of each image: stratified by class, each group whole in one fold.

    Without groups the folds' counts of a class, and of all images, differ by one at most. Groups go to folds largest
    first, each to the one in which its classes are then least beyond their share.

    Raises:
        DataError: a class has fewer images, or groups, than there are folds.
    """
    generator = np.random.default_rng(seed)
    classes = np.unique(labels)
    units = np.arange(len(labels)) if groups is None else groups
    few = [int(label) for label in classes if len(np.unique(units[labels == label])) < n]
    if few:
        raise UnfitDataError(
            f"{n} folds need {n} images of each class{'' if groups is None else ', in as many groups'}",
            problems=[f"class {label}: {int((labels == label).sum())} images" for label in few],
            hint="set fewer repeats.n, or repeats.splits = 'fixed'",
        )
    order = generator.permutation(len(labels))
    if groups is None:
        fold, start = np.empty(len(labels), np.int64), 0
        for label in classes:
            own = order[labels[order] == label]
            fold[own] = (np.arange(len(own)) + start) % n
            start += len(own)
        return fold
    return _of_groups(labels, groups, n, generator)


def _of_groups(labels: np.ndarray, groups: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
    names, place = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(counts, (place, labels), 1)
    share = counts / np.maximum(counts.sum(0), 1)
    filled, chosen = np.zeros((n, counts.shape[1])), np.empty(len(names), np.int64)
    lottery = generator.permutation(len(names))
    for unit in lottery[np.argsort(-counts[lottery].sum(1), kind="stable")]:
        beyond = ((filled + share[unit]) ** 2 - filled**2).sum(1)
        chosen[unit] = int(np.argmin(beyond))
        filled[chosen[unit]] += share[unit]
    of: np.ndarray = chosen[place]
    return of


def fold_rows(pool: Split, n: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the test images of a fold, and of all others, ascending; the same folds for each of `n`."""
    of = folds_of(pool.labels, pool.groups, n, derive_seed(seed, "split", "folds"))
    return np.flatnonzero(of == fold), np.flatnonzero(of != fold)


def val_rows(pool: Split, rows: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Return about `size` of the `rows` as validation images, groups whole: a stratified part of them."""
    assert pool.groups is not None
    parts = max(2, round(len(rows) / size))
    generator = np.random.default_rng(seed)
    of = _of_groups(pool.labels[rows], pool.groups[rows], parts, generator)
    chosen: np.ndarray = rows[of == 0]
    return chosen
