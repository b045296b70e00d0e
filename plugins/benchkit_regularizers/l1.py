"""The L1 penalty."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchkit import Range, card
from benchkit_regularizers.bounds import AT_LEAST_0, require


def absolute_sum(model: nn.Module) -> Tensor:
    """Return the sum of |w| over all trained weights with two or more dimensions, a float32 scalar.

    Biases and the weights of norms have one dimension and are left out. The derivative at zero is zero.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad and weight.dim() >= 2]
    if not weights:
        return torch.zeros((), device=next((parameter.device for parameter in model.parameters()), None))
    return torch.stack([torch.linalg.vector_norm(weight, 1, dtype=torch.float32) for weight in weights]).sum()


@card(
    title="L1 penalty",
    summary="The sum of the weights' absolute values joins the loss and drives weights that are not needed to zero.",
    reference="R. Tibshirani, Regression Shrinkage and Selection via the Lasso, Journal of the Royal Statistical "
    "Society B 58, 1996",
    url="https://doi.org/10.1111/j.2517-6161.1996.tb02080.x",
    ranges={"strength": Range(low=1e-8, high=1e-2, log=True)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class L1:
    """The loss gains `strength` * sum |w|, over weights with two or more dimensions."""

    strength: float = 1e-5

    def __post_init__(self) -> None:
        require("l1", self, strength=AT_LEAST_0)

    def penalty(self, model: nn.Module) -> Tensor:
        """Return the penalty, a float32 scalar; at strength 0 a constant zero."""
        if self.strength == 0:
            return torch.zeros((), device=next((parameter.device for parameter in model.parameters()), None))
        return self.strength * absolute_sum(model)
