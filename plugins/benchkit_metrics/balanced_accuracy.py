"""Balanced accuracy."""

from __future__ import annotations

import numpy as np

from benchkit import card
from benchkit.metrics import Predictions, declared
from benchkit_metrics.by_class import mean_share


@card(
    title="Balanced accuracy",
    summary="The mean over classes of the share of a class's images that are called so; classes without images are "
    "left out.",
    reference="K. H. Brodersen, C. S. Ong, K. E. Stephan and J. M. Buhmann, The Balanced Accuracy and Its Posterior "
    "Distribution, ICPR 2010",
    url="https://doi.org/10.1109/ICPR.2010.764",
)
@declared(mean_share("balanced_accuracy", "balanced accuracy"))
def balanced_accuracy(scored: Predictions) -> float | None:
    """Return the mean recall over the classes that images are of, a share; chance is one over their number."""
    return float(np.nanmean(scored.class_accuracy))
