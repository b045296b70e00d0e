"""One cycle of the rate up and down, and of the momentum down and up."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchkit import Course, Range, card
from benchkit_schedules.bounds import require

SHARE = Range(low=0.0, high=1.0)


@card(
    title="One cycle with momentum",
    summary="The rate rises and falls once over training, along cosines; the momentum falls and rises against it. Of "
    "Adam and its kind only the first beta moves.",
    reference="L. N. Smith and N. Topin, Super-Convergence: Very Fast Training of Neural Networks Using Large Learning "
    "Rates, 2017",
    url="https://arxiv.org/abs/1708.07120",
    ranges={"warmup": SHARE, "low": Range(low=0.5, high=0.9), "high": Range(low=0.9, high=0.99)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class OneCycleMomentum:
    """The rate of `one-cycle`, from a 25th of lr up to lr and down to a 250,000th, and a momentum against it.

    Over the first share `warmup` of training the rate rises and the momentum falls from `high` to `low`, then back. It
    changes from step to step, so steps run one operation at a time.
    """

    warmup: float = 0.3
    low: float = 0.85
    high: float = 0.95

    def __post_init__(self) -> None:
        require("one-cycle-momentum", {"warmup": self.warmup, "low": self.low, "high": self.high})

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Course:
        """Return rate and momentum by step."""
        total = steps_per_epoch * epochs
        return Cycle(lr=lr, low=self.low, high=self.high, top=self.warmup * total - 1, last=total - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """Rate and momentum by step: the rate is greatest at `top`, which need not be a whole number."""

    lr: float
    low: float
    high: float
    top: float
    last: int

    def __call__(self, step: int) -> float:
        """Return the rate of a step."""
        return self._at(step, self.lr / 25, self.lr, self.lr / 250_000)

    def momentum(self, step: int) -> float:
        """Return the momentum of a step."""
        return self._at(step, self.high, self.low, self.high)

    def _at(self, step: int, first: float, middle: float, last: float) -> float:
        if step <= self.top:
            return between(first, middle, step / self.top if self.top > 0 else 1.0)
        return between(middle, last, (step - self.top) / (self.last - self.top))


def between(start: float, end: float, share: float) -> float:
    """Return the value `share` of the way along half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
