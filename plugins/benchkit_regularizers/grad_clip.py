"""Gradient clipping, by the joint norm or by value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from benchkit import Range, card
from benchkit.gradients import gradient_norm
from benchkit_regularizers.bounds import Bound, require


@card(
    title="Gradient clipping",
    summary="A gradient whose norm over all parameters is too large is scaled down to the largest norm allowed; or, by "
    "value, every single component is kept within a range around zero.",
    reference="R. Pascanu, T. Mikolov and Y. Bengio, On the Difficulty of Training Recurrent Neural Networks, ICML "
    "2013",
    url="https://arxiv.org/abs/1211.5063",
    ranges={
        "max_norm": Range(low=0.01, high=100.0, log=True),
        "max_value": Range(low=0.001, high=100.0, log=True),
    },
)
@dataclass(frozen=True, slots=True, kw_only=True)
class GradClip:
    """By norm: all gradients times min(1, `max_norm` / their joint L2 norm). By value: g becomes min(max(g, -c), c).

    c is `max_value`. One of the two is given; without either the joint norm is held at 1. Both together are refused.
    """

    max_norm: float | None = None
    max_value: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("max_norm", "max_value") if getattr(self, name) is not None]
        twice = f"max_norm = {self.max_norm!r} and max_value = {self.max_value!r}: expected one of them"
        bounds = {name: Bound(open_low=True) for name in given}
        require("grad-clip", self, **bounds, problems=(twice,) if len(given) == 2 else ())

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        """Change the gradients in place; parameters without a gradient do not count."""
        listed = list(parameters)
        if self.max_value is not None:
            nn.utils.clip_grad_value_(listed, self.max_value)
            return
        norm = gradient_norm([parameter.grad for parameter in listed if parameter.grad is not None])
        nn.utils.clip_grads_with_norm_(listed, 1.0 if self.max_norm is None else self.max_norm, norm)
