"""Early stopping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchkit import Range, card
from benchkit.metrics import metric_of, selection_problem, val_metrics
from benchkit.results import EpochRecord
from benchkit_regularizers.bounds import AT_LEAST_0, Bound, require


def epochs_since_best(values: Sequence[float], min_delta: float) -> int:
    """Return how many values follow the last best one: one lower by more than `min_delta` than the best one before it.

    A value that is not finite is never an improvement.
    """
    best, since = math.inf, 0
    for value in values:
        improved = math.isfinite(value) and value < best - min_delta
        best, since = (value, 0) if improved else (best, since + 1)
    return since


@card(
    title="Early stopping",
    summary="Training ends once a metric has not improved for a number of epochs.",
    reference="L. Prechelt, Early Stopping - But When?, in Neural Networks: Tricks of the Trade, 1998",
    url="https://doi.org/10.1007/3-540-49430-8_3",
    ranges={"patience": Range(low=1, high=100), "min_delta": Range(low=0.0, high=0.1)},
    choices={"metric": (*val_metrics(), "train.loss")},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStopping:
    """Stop after `patience` epochs in a row without `metric` improving by more than `min_delta` on its best.

    `metric` is train.loss or any on validation images that epochs can be read by, such as val.loss, val.accuracy or
    val.brier: losses improve downwards, accuracy upwards. An epoch in which it is undefined is no improvement.
    """

    patience: int = 10
    metric: str = "val.loss"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        told = "" if self.metric == "train.loss" else selection_problem(self.metric)
        require(
            "early-stopping",
            self,
            patience=Bound(low=1, whole=True),
            min_delta=AT_LEAST_0,
            problems=(f"metric = {self.metric!r}: {told.partition(', ')[2]}; or train.loss",) if told else (),
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the metric that each epoch is to be read by."""
        return (self.metric,)

    def stop(self, history: Sequence[EpochRecord]) -> bool:
        """Return whether the last `patience` epochs brought no improvement."""
        sign = 1.0 if metric_of(self.metric).lower_is_better else -1.0
        values = [sign * record.score(self.metric) for record in history]
        return epochs_since_best(values, self.min_delta) >= self.patience
