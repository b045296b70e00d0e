"""What a model says of a split's images, and the scores of it that every trial has. Imports NumPy where it computes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

MOST_AUROC_CLASSES = 10
"""Of more classes the mean of one class against all others says little, and is not stated."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of a split's images: logits float32 (N, K), and their labels int64 (N,)."""

    logits: np.ndarray
    labels: np.ndarray

    @property
    def classes(self) -> int:
        """Return the number of classes, K."""
        return int(self.logits.shape[1])

    @cached_property
    def confusion(self) -> np.ndarray:
        """Return int64 (K, K): how many images of each class (row) are called each class (column)."""
        import numpy as np

        pairs = self.labels * self.classes + self.logits.argmax(1)
        return np.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes)

    @cached_property
    def correct(self) -> np.ndarray:
        """Return int64 (K,): how many images of each class are called so."""
        return self.confusion.diagonal()

    @cached_property
    def either(self) -> np.ndarray:
        """Return int64 (K,): images of each class plus images called so, the denominator of its F1."""
        total: np.ndarray = self.confusion.sum(1) + self.confusion.sum(0)
        return total

    @property
    def class_accuracy(self) -> tuple[float, ...]:
        """Return the share of each class's images that are called so, NaN for a class without images."""
        import numpy as np

        present = self.confusion.sum(1)
        shares = np.divide(self.correct, present, out=np.full(self.classes, np.nan), where=present > 0)
        return tuple(shares.tolist())


def accuracy(scored: Predictions) -> float:
    """Return the share of images that are called rightly."""
    return float(scored.correct.sum() / len(scored.labels))


def top5_accuracy(scored: Predictions) -> float | None:
    """Return the share of images whose class is among the five with the greatest logits, the first of equals first.

    With five classes or fewer it would always be 1, and is not stated.
    """
    import numpy as np

    if scored.classes <= 5:
        return None
    own = np.take_along_axis(scored.logits, scored.labels[:, None], axis=1)
    earlier = np.arange(scored.classes) < scored.labels[:, None]
    ahead = (scored.logits > own) | ((scored.logits == own) & earlier)
    return float((ahead.sum(1) < 5).mean())


def loss(scored: Predictions) -> float:
    """Return the mean cross-entropy in nats, in float64."""
    import torch
    from torch.nn import functional

    wide = torch.from_numpy(scored.logits).to(torch.float64)
    return functional.cross_entropy(wide, torch.from_numpy(scored.labels)).item()


def micro_f1(scored: Predictions) -> float:
    """Return 2 r / (p + q) with r correct images, p of the class and q called so, each summed over all classes."""
    return float(2 * scored.correct.sum() / scored.either.sum())


def macro_f1(scored: Predictions) -> float:
    """Return the mean of 2 r / (p + q) over the classes that occur among labels or predictions."""
    import numpy as np

    known = scored.either > 0
    return float(np.mean(2 * scored.correct[known] / scored.either[known]))


def mid_ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks from 1 of values (N,), float64, equal ones at the mean of theirs; NaN throughout with a NaN.

    As SciPy's `rankdata`, whose import would take a worker longer than its first trial of some seconds.
    """
    import numpy as np

    if np.isnan(values).any():
        return np.full(len(values), np.nan)
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (counts.cumsum() - (counts - 1) / 2)[places]
    return ranks


def auroc(scored: Predictions) -> float | None:
    """Return the area under the receiver operating characteristic, a share; None above ten classes or without one.

    The chance that an image of a class has a greater probability of it than an image of another class, equals counting
    half: U / (p q), with Mann and Whitney's U and p and q images of and beside the class (Hanley and McNeil, The
    Meaning and Use of the Area under a Receiver Operating Characteristic (ROC) Curve, Radiology 143, 1982). Of two
    classes that of the second, which is that of the first; of more the mean over classes that some, but not all images
    are of.
    """
    import numpy as np
    import torch

    if not 2 <= scored.classes <= MOST_AUROC_CLASSES:
        return None
    probabilities = torch.from_numpy(scored.logits).to(torch.float64).softmax(1).numpy()
    areas = []
    for label in range(1 if scored.classes == 2 else 0, scored.classes):
        own = scored.labels == label
        p, q = int(own.sum()), int((~own).sum())
        if p and q:
            areas.append((mid_ranks(probabilities[:, label])[own].sum() - p * (p + 1) / 2) / (p * q))
    return float(np.mean(areas)) if areas else None
