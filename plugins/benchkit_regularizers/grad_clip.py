"""Gradient clipping by the global norm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from benchkit import Range, card
from benchkit.gradients import gradient_norm
from benchkit_regularizers.bounds import Bound, require


@card(
    title="Gradient clipping",
    summary="A gradient whose norm over all parameters is too large is scaled down to the largest norm allowed.",
    reference="R. Pascanu, T. Mikolov and Y. Bengio, On the Difficulty of Training Recurrent Neural Networks, ICML "
    "2013",
    url="https://arxiv.org/abs/1211.5063",
    ranges={"max_norm": Range(low=0.01, high=100.0, log=True)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class GradClip:
    """All gradients times min(1, `max_norm` / their joint L2 norm)."""

    max_norm: float = 1.0

    def __post_init__(self) -> None:
        require("grad-clip", Bound(option="max_norm", value=self.max_norm, open_low=True))

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        """Scale the gradients in place; parameters without a gradient do not count."""
        listed = list(parameters)
        norm = gradient_norm([parameter.grad for parameter in listed if parameter.grad is not None])
        nn.utils.clip_grads_with_norm_(listed, self.max_norm, norm)
