"""Balanced accuracy."""

from __future__ import annotations

import numpy as np

from benchkit import card
from benchkit.metrics import Metric, Predictions, declared


@card(
    title="Balanced accuracy",
    summary="The mean over classes of the share of a class's images that are called so; classes without images are "
    "left out.",
    reference="K. H. Brodersen, C. S. Ong, K. E. Stephan and J. M. Buhmann, The Balanced Accuracy and Its Posterior "
    "Distribution, ICPR 2010",
    url="https://doi.org/10.1109/ICPR.2010.764",
)
@declared(
    Metric(
        name="balanced_accuracy", words="balanced accuracy", unit="%", factor=100.0, decimals=2, high=1.0, goal=True,
        every_epoch=True, over_classes=True,
    )
)  # fmt: skip
def balanced_accuracy(scored: Predictions) -> float | None:
    """Return the mean recall over the classes that images are of, a share; chance is one over their number."""
    return float(np.nanmean(scored.class_accuracy))
