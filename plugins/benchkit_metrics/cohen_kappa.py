"""Cohen's kappa."""

from __future__ import annotations

from benchkit import card
from benchkit.metrics import Metric, Predictions, declared


@card(
    title="Cohen's kappa",
    summary="How much more often prediction and label agree than two that are independent with the same class shares: "
    "1 is always, 0 as often.",
    reference="J. Cohen, A Coefficient of Agreement for Nominal Scales, Educational and Psychological Measurement 20, "
    "1960",
    url="https://doi.org/10.1177/001316446002000104",
)
@declared(
    Metric(
        name="cohen_kappa", words="Cohen's kappa", decimals=4, low=-1.0, high=1.0, goal=True, every_epoch=True,
        undefined="all labels and all predictions are of one class",
    )
)  # fmt: skip
def cohen_kappa(scored: Predictions) -> float | None:
    """Return (observed - expected) / (1 - expected) agreement, from -1 to 1; None where all is of one class."""
    table = scored.confusion / len(scored.labels)
    expected = float(table.sum(0) @ table.sum(1))
    return None if expected >= 1 else (float(table.trace()) - expected) / (1 - expected)
