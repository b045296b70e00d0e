"""Gradient centralisation, as a regularizer for benchkit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from benchkit import PluginError, Range, card


@card(
    title="Gradient centralisation",
    summary="The mean over each output's weights is taken out of the gradient before every step.",
    reference="H. Yong, J. Huang, X. Hua and L. Zhang, Gradient Centralization: A New Optimization Technique for Deep "
    "Neural Networks, ECCV 2020",
    url="https://arxiv.org/abs/2004.01461",
    ranges={"strength": Range(low=0.0, high=1.0)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class GradientCentralization:
    """g <- g - `strength` * mean(g), the mean over all dimensions of a weight but the first (its outputs).

    The paper's method has strength 1. `linear` false leaves fully connected layers as they are.
    """

    strength: float = 1.0
    linear: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise PluginError(f"gradient-centralization: strength = {self.strength}: expected a number from 0 to 1")

    @torch.no_grad()
    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        """Centralise the gradients in place; vectors (biases and norms) have nothing to centralise."""
        if self.strength == 0:
            return
        least = 2 if self.linear else 3
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is not None and gradient.ndim >= least:
                mean = gradient.mean(tuple(range(1, gradient.ndim)), keepdim=True)
                gradient.sub_(mean, alpha=self.strength)
