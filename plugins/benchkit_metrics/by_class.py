"""Precision, recall and F1, each class by itself, and their means over the classes that occur."""

from __future__ import annotations

import numpy as np

from benchkit import card
from benchkit.metrics import Metric, Predictions, declared

BOOK = "C. J. van Rijsbergen, Information Retrieval, second edition, Butterworths, 1979"


def by_class(scored: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and F1 of every class, shares float64 (K,), NaN for a class without images.

    Of r images rightly called so, p of the class and q called so: r / q, r / p and 2 r / (p + q). The precision of a
    class that has images and is never called is 0.
    """
    own, called = scored.confusion.sum(1), scored.confusion.sum(0)
    right = np.where(own > 0, scored.correct, np.nan)
    return right / np.maximum(called, 1), right / np.maximum(own, 1), 2 * right / np.maximum(own + called, 1)


def mean_share(name: str, words: str, *, undefined: str = "") -> Metric:
    """Return the declaration of a metric that is a share, averaged over the classes that occur."""
    return Metric(
        name=name, words=words, unit="%", factor=100.0, decimals=2, high=1.0, goal=True, every_epoch=True,
        undefined=undefined, over_classes=True,
    )  # fmt: skip


@card(
    title="Precision by class",
    summary="The share of the images called a class that are of it, averaged over the classes that occur.",
    reference=BOOK,
)
@declared(mean_share("class_precision", "precision by class"))
def class_precision(scored: Predictions) -> float | None:
    """Return the mean precision over the classes that images are of, a share; never called counts as 0."""
    return float(np.nanmean(by_class(scored)[0]))


@card(
    title="Recall by class",
    summary="The share of a class's images that are called so, averaged over the classes that occur: the balanced "
    "accuracy.",
    reference=BOOK,
)
@declared(mean_share("class_recall", "recall by class"))
def class_recall(scored: Predictions) -> float | None:
    """Return the mean recall over the classes that images are of, a share."""
    return float(np.nanmean(by_class(scored)[1]))


@card(
    title="F1 by class",
    summary="The harmonic mean of a class's precision and recall, averaged over the classes that occur.",
    reference=BOOK,
)
@declared(mean_share("class_f1", "F1 by class"))
def class_f1(scored: Predictions) -> float | None:
    """Return the mean F1 over the classes that images are of, a share; macro F1 counts classes only called, too."""
    return float(np.nanmean(by_class(scored)[2]))
