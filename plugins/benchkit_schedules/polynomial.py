"""A fall by a power of what is left of training, or by equal steps."""

from __future__ import annotations

from dataclasses import dataclass

from benchkit import Course, Range, card
from benchkit_schedules.bounds import require

SHARE = Range(low=0.0, high=1.0)


def falling(lr: float, total: int, power: float, end: float) -> Course:
    """Return lr (end + (1 - end) (1 - step / total)^power)."""
    return lambda step: lr * (end + (1 - end) * (1 - step / total) ** power)


@card(title="Linear", summary="The rate falls by the same amount in each step.", ranges={"end": SHARE})
@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Step s of T has lr (e + (1 - e) (1 - s / T)): from lr to the share `end` of it."""

    end: float = 0.0

    def __post_init__(self) -> None:
        require("linear", {"end": self.end})

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Course:
        """Return the rate by step."""
        return falling(lr, steps_per_epoch * epochs, 1.0, self.end)


@card(
    title="Polynomial",
    summary="The rate falls with a power of the share of training that is left.",
    reference="L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy and A. L. Yuille, DeepLab: Semantic Image "
    "Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs, IEEE TPAMI 40, 2018",
    url="https://arxiv.org/abs/1606.00915",
    ranges={"power": Range(low=0.5, high=4.0), "end": SHARE},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Polynomial:
    """Step s of T has lr (e + (1 - e) (1 - s / T)^`power`): from lr to the share `end` of it."""

    power: float = 2.0
    end: float = 0.0

    def __post_init__(self) -> None:
        require("polynomial", {"end": self.end})
        require("polynomial", {"power": self.power}, high=100.0)

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Course:
        """Return the rate by step."""
        return falling(lr, steps_per_epoch * epochs, self.power, self.end)
