"""Which images of a data set a study uses as train, val and test: draws that keep every class's share, and folds.

Of folds, into which the images of all splits together are divided, each is the test images of one repeat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchkit.errors import DataError
from benchkit.protocols import Split, Splits
from benchkit.study.seeds import derive_seed
from benchkit.study.settings import DataSettings


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
        raise DataError("the data set does not keep its contract", problems=problems)


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
        raise DataError(
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
        raise DataError(
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
