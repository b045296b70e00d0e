"""Sharpness-aware minimisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from benchkit import Range, card
from benchkit.gradients import gradient_norm
from benchkit_regularizers.bounds import AT_LEAST_0, require

TINY = 1e-12
"""What is added to the gradient's norm, so that one of 0 moves nothing."""


@card(
    title="Sharpness-aware minimisation (SAM)",
    summary="Each step takes the gradient not at the weights but where the loss rises most nearby, so that training "
    "ends where all around is low, too; a step takes two passes.",
    reference="P. Foret, A. Kleiner, H. Mobahi and B. Neyshabur, Sharpness-Aware Minimization for Efficiently "
    "Improving Generalization, ICLR 2021",
    url="https://arxiv.org/abs/2010.01412",
    ranges={"rho": Range(low=0.005, high=0.5, log=True)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Sam:
    """The step's gradient is that at w + `rho` g / |g|, with g the gradient at w and |g| its norm over all parameters.

    Penalties are in the loss of both passes, weight decay in the optimizer's step alone; gradients are clipped after
    the second pass, and the recorded gradient norm is |g|. At rho 0, and where g is 0, the step is the plain one.
    """

    rho: float = 0.05

    def __post_init__(self) -> None:
        require("sam", self, rho=AT_LEAST_0)

    def around_step(self, parameters: Sequence[nn.Parameter], again: Callable[[], None]) -> None:
        """Climb, and take the gradients there."""
        if self.rho == 0:
            return
        climbing: list[torch.Tensor] = [parameter for parameter in parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in climbing if parameter.grad is not None]
        with torch.no_grad():
            scale = self.rho / (gradient_norm(gradients) + TINY)
            torch._foreach_add_(climbing, list(torch._foreach_mul(gradients, scale)))
        again()
