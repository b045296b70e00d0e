"""A warm-up, then half a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchkit import Course, Range, card
from benchkit_schedules.bounds import require


@card(
    title="Warm-up and cosine",
    summary="The rate rises by equal steps over the first part of training, then falls along half a cosine.",
    reference="P. Goyal et al., Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, 2017",
    url="https://arxiv.org/abs/1706.02677",
    ranges={"warmup": Range(low=0.0, high=0.5), "end": Range(low=0.0, high=1.0)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupCosine:
    """Of W warm-up steps, a share `warmup` of all T, step s has lr (s + 1) / W; then a cosine from lr to `end` lr.

    After them it is lr (e + (1 - e) (1 + cos(pi (s - W) / (T - W))) / 2), with e the `end`.
    """

    warmup: float = 0.1
    end: float = 0.0

    def __post_init__(self) -> None:
        require("warmup-cosine", {"warmup": self.warmup, "end": self.end})

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Course:
        """Return the rate by step."""
        total = steps_per_epoch * epochs
        rising = round(self.warmup * total)

        def rate(step: int) -> float:
            if step < rising:
                return lr * (step + 1) / rising
            share = (step - rising) / max(1, total - rising)
            return lr * (self.end + (1 - self.end) * (1 + math.cos(math.pi * share)) / 2)

        return rate
