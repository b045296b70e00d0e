"""Noise on the gradients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchkit import Range, card
from benchkit_regularizers.bounds import AT_LEAST_0, require


class CountedSteps(nn.Module):
    """How many optimizer steps were taken, int64."""

    taken: Tensor

    def __init__(self, device: torch.device) -> None:
        """Begin with none."""
        super().__init__()
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64, device=device))


@card(
    title="Gradient noise",
    summary="Normally distributed noise, which fades from step to step, is added to every gradient.",
    reference="A. Neelakantan, L. Vilnis, Q. V. Le, I. Sutskever, L. Kaiser, K. Kurach and J. Martens, Adding Gradient "
    "Noise Improves Learning for Very Deep Networks, 2015",
    url="https://arxiv.org/abs/1511.06807",
    ranges={"strength": Range(low=0.001, high=1.0, log=True), "fading": Range(low=0.0, high=2.0)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class GradientNoise:
    """g <- g + e, e normal with mean 0 and variance `strength` / (1 + t)^`fading`, t = 0, 1, ... optimizer steps.

    Noise is drawn once a step, from PyTorch's global random state, as dropout's is. It acts in the order of the study's
    regularizers: before a clipping that stands after it, and on clipped gradients otherwise. The recorded gradient norm
    is without it.
    """

    strength: float = 0.01
    fading: float = 0.55

    def __post_init__(self) -> None:
        require("gradient-noise", self, strength=AT_LEAST_0, fading=AT_LEAST_0)

    def start(self, model: nn.Module, steps_per_epoch: int, epochs: int) -> CountedSteps:
        """Return the count of steps."""
        return CountedSteps(next(model.parameters()).device)

    def clip(self, parameters: Iterable[nn.Parameter], state: CountedSteps) -> None:
        """Add the noise in place; at strength 0 do nothing."""
        if self.strength == 0:
            return
        deviation = self.strength**0.5 * (1 + state.taken).to(torch.float32).pow(-self.fading / 2)
        state.taken.add_(1)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.add_(torch.randn_like(parameter.grad) * deviation)
