"""The Brier score."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from benchkit import card
from benchkit.metrics import Metric, Predictions, declared


@card(
    title="Brier score",
    summary="The squared distance of the probabilities from the image's class, summed over classes, averaged over "
    "images: 0 is perfect, 2 is sure and wrong.",
    reference="G. W. Brier, Verification of Forecasts Expressed in Terms of Probability, Monthly Weather Review 78, "
    "1950",
    url="https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2",
)
@declared(
    Metric(name="brier", words="Brier score", decimals=4, lower_is_better=True, high=2.0, goal=True, every_epoch=True)
)
def brier(scored: Predictions) -> float | None:
    """Return the mean over images of sum_k (p_k - t_k)^2, in float64, from 0 to 2: Brier's own form for K classes."""
    probabilities = softmax(scored.logits.astype(np.float64), axis=1)
    probabilities[np.arange(len(scored.labels)), scored.labels] -= 1
    return float((probabilities**2).sum(1).mean())
