"""The images of all splits together, divided into folds: each is the test images of one repeat."""

from __future__ import annotations

import numpy as np

from benchkit.errors import DataError
from benchkit.protocols import Split, Splits
from benchkit.study.seeds import derive_seed


def pooled(splits: Splits) -> Split:
    """Return the images of train, val and test in this order as one split, with their groups where they have any.

    An image without a group is one of its own.
    """
    each = [split for split in (splits.train, splits.val, splits.test) if split is not None]
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
