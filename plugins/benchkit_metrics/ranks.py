"""Metrics of the order in which images are called a class: one class against all others, then the mean."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp

from benchkit import card
from benchkit.metrics import Predictions, declared
from benchkit_metrics.by_class import mean_share

OfOneClass = Callable[[np.ndarray, np.ndarray], float]
"""Which images are of a class (N,), and how surely each is called so (N,), to a number."""

NO_CLASS = "no class has images of it and images of others"


def margins(logits: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)) of every class, float64 (N, K), which has an order where probabilities are all 0 or 1.

    It is the logit less the logarithm of the others' summed exponentials: of two classes the difference of the logits.
    These are summed by size, so that what is equal stays equal.
    """
    wide = logits.astype(np.float64)
    found = np.empty_like(wide)
    for label in range(wide.shape[1]):
        found[:, label] = wide[:, label] - logsumexp(np.sort(np.delete(wide, label, axis=1), axis=1), axis=1)
    return found


def mean_over_classes(scored: Predictions, of_one: OfOneClass) -> float | None:
    """Return the mean over the classes that some, but not all images are of, None without one.

    Of two classes it is the second's.
    """
    if scored.classes < 2:
        return None
    order, values = margins(scored.logits), []
    for label in range(1 if scored.classes == 2 else 0, scored.classes):
        own = scored.labels == label
        if own.any() and not own.all():
            values.append(of_one(own, order[:, label]))
    return float(np.mean(values)) if values else None


@card(
    title="Macro AUROC",
    summary="The chance that an image of a class is called so more surely than an image of another class, equals "
    "counting half; the mean over the classes that occur.",
    reference="J. A. Hanley and B. J. McNeil, The Meaning and Use of the Area under a Receiver Operating "
    "Characteristic (ROC) Curve, Radiology 143, 1982",
    url="https://doi.org/10.1148/radiology.143.1.7063747",
)
@declared(mean_share("macro_auroc", "macro AUROC", undefined=NO_CLASS))
def macro_auroc(scored: Predictions) -> float | None:
    """Return the area under the ROC curve, class against others, averaged over the classes that occur, a share."""
    from sklearn.metrics import roc_auc_score

    return mean_over_classes(scored, lambda own, order: float(roc_auc_score(own, order)))


@card(
    title="Average precision",
    summary="The precision at each image of a class, of all that are called so at least as surely, averaged over them; "
    "the mean over the classes that occur.",
    reference="J. Davis and M. Goadrich, The Relationship Between Precision-Recall and ROC Curves, ICML 2006",
    url="https://doi.org/10.1145/1143844.1143874",
)
@declared(mean_share("average_precision", "average precision", undefined=NO_CLASS))
def average_precision(scored: Predictions) -> float | None:
    """Return sum (recall step x precision), class against others, averaged over the classes that occur, a share.

    Images that are called a class equally surely are one step.
    """
    from sklearn.metrics import average_precision_score

    return mean_over_classes(scored, lambda own, order: float(average_precision_score(own, order)))
