"""Cosines one after the other, each from the whole rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchkit import Course, PluginError, Range, card
from benchkit_schedules.bounds import require


@card(
    title="Cosine with restarts",
    summary="The rate falls along half a cosine and starts again from the whole, in periods that may grow.",
    reference="I. Loshchilov and F. Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017",
    url="https://arxiv.org/abs/1608.03983",
    ranges={"first": Range(low=1, high=100), "factor": Range(low=1, high=4), "end": Range(low=0.0, high=1.0)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class CosineRestarts:
    """Step t of a period of T steps has lr (e + (1 - e) (1 + cos(pi t / T)) / 2), with e the `end`.

    The first period is `first` epochs long, each other `factor` times as long as the one before; its first step has lr.
    """

    first: int = 10
    factor: int = 2
    end: float = 0.0

    def __post_init__(self) -> None:
        require("cosine-restarts", {"end": self.end})
        if self.first < 1 or self.factor < 1:
            raise PluginError(
                f"cosine-restarts: first = {self.first}, factor = {self.factor}: expected numbers from 1 up"
            )

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Course:
        """Return the rate by step."""

        def rate(step: int) -> float:
            began, period = 0, self.first * steps_per_epoch
            while step >= began + period:
                began, period = began + period, self.factor * period
            share = (step - began) / period
            return lr * (self.end + (1 - self.end) * (1 + math.cos(math.pi * share)) / 2)

        return rate
