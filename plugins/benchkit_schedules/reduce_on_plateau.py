"""A fall of the rate where validation gets no better."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from benchkit import Course, PluginError, Range, card
from benchkit.metrics import metric_of, selection_problem, val_metrics
from benchkit.results import EpochRecord
from benchkit_schedules.bounds import require


@card(
    title="Reduce on plateau",
    summary="The rate is multiplied by a factor when validation has got no better for some epochs.",
    ranges={
        "factor": Range(low=0.01, high=0.9, log=True),
        "patience": Range(low=0, high=50),
        "cooldown": Range(low=0, high=50),
        "threshold": Range(low=1e-6, high=0.1, log=True),
    },
    choices={"metric": val_metrics()},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ReduceOnPlateau:
    """After more than `patience` bad epochs in a row the rate is `factor` times what it was.

    An epoch is bad where `metric`, any on validation images that epochs can be read by, such as val.loss or val.brier,
    is not better than the best so far by more than `threshold` (an equal one is bad, and one in which it is undefined).
    After a reduction `cooldown` epochs are not counted. As in PyTorch, patience 2 and four equal losses reduce after
    the fourth.
    """

    factor: float = 0.1
    patience: int = 10
    metric: str = "val.loss"
    threshold: float = 0.0
    cooldown: int = 0

    def __post_init__(self) -> None:
        require("reduce-on-plateau", {"factor": self.factor})
        counts = {"threshold": self.threshold, "patience": self.patience, "cooldown": self.cooldown}
        require("reduce-on-plateau", counts, high=1e9)
        if told := selection_problem(self.metric):
            raise PluginError(f"reduce-on-plateau: metric = {self.metric!r}: {told.partition(', ')[2]}")

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the metric that each epoch is to be read by."""
        return (self.metric,)

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Course:
        """Return the rate by step, which falls with the epochs that are observed."""
        return Plateau(settings=self, rate=lr)


@dataclass(slots=True, kw_only=True)
class Plateau:
    """The rate now, the best score so far (more is better), and the epochs that were bad or are not counted."""

    settings: ReduceOnPlateau
    rate: float
    best: float = -math.inf
    bad: int = 0
    resting: int = 0
    sign: Literal[-1, 1] = field(init=False)

    def __post_init__(self) -> None:
        self.sign = -1 if metric_of(self.settings.metric).lower_is_better else 1

    def __call__(self, step: int) -> float:
        """Return the rate of every step until the next epoch is observed."""
        return self.rate

    def observe(self, record: EpochRecord) -> None:
        """Count an epoch, and reduce the rate when there were more bad ones than the patience."""
        score = self.sign * record.score(self.settings.metric)
        better = score > self.best + self.settings.threshold
        self.best, self.bad = (score, 0) if better else (self.best, self.bad + 1)
        if self.resting:
            self.resting, self.bad = self.resting - 1, 0
        if self.bad > self.settings.patience:
            self.rate *= self.settings.factor
            self.resting, self.bad = self.settings.cooldown, 0
