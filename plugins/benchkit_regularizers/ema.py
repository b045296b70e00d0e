"""A moving average of the weights, which is what is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchkit import Range, card
from benchkit_regularizers.bounds import SHARE_BELOW_1, require

MUCH = 0.05
"""The share of the first weights in the last average from which on it says little of what was trained."""


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights and buffers of a model that its state dict names, themselves, by these names."""
    named = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    return {name: named[name] for name in model.state_dict() if name in named}


class Average(nn.Module):
    """The average, a buffer for each of the model's tensors, and how many steps are in it."""

    updates: Tensor

    def __init__(self, model: nn.Module, notes: tuple[str, ...], warnings: tuple[str, ...]) -> None:
        """Begin with the model's own weights."""
        super().__init__()
        self.notes, self.warnings = notes, warnings
        tensors = tensors_of(model)
        device = next(iter(tensors.values())).device
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64, device=device))
        self._names = list(tensors)
        for number, tensor in enumerate(tensors.values()):
            self.register_buffer(f"average{number}", tensor.detach().clone())

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Return the average by the names of the model's state dict."""
        return {name: getattr(self, f"average{number}") for number, name in enumerate(self._names)}


@card(
    title="Exponential moving average (EMA) of the weights",
    summary="A moving average of the weights, and of batch statistics, follows those that are trained; it is "
    "validated, selected, tested and kept in their place.",
    reference="B. T. Polyak and A. B. Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM Journal on "
    "Control and Optimization 30(4), 1992",
    url="https://doi.org/10.1137/0330046",
    ranges={"decay": Range(low=0.0, high=0.9999)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Ema:
    """After step t = 0, 1, ...: a <- d a + (1 - d) w, with d = `decay`, or at first, with `warm_up`, (1 + t)/(10 + t).

    The average begins as the first weights. Buffers of real numbers, such as batch statistics, are averaged as weights
    are; whole numbers are copied. At decay 0 the average is the weights.
    """

    decay: float = 0.999
    warm_up: bool = True

    def __post_init__(self) -> None:
        require("ema", self, decay=SHARE_BELOW_1)

    def start(self, model: nn.Module, steps_per_epoch: int, epochs: int) -> Average:
        """Return the average of no step yet."""
        steps = steps_per_epoch * epochs
        left = self.left_of_start(steps)
        last = min(self.decay, steps / (9 + steps)) if self.warm_up else self.decay
        note = f"the weights that are judged are a moving average, of decay {last:.6g} in the last of {steps} steps"
        short = f"{left:.1%} of the average after {steps} steps is the first weights: lower its decay, or train longer"
        return Average(model, (note,) if self.decay > 0 else (), (f"ema: {short}",) if left > MUCH else ())

    def left_of_start(self, steps: int) -> float:
        """Return the share of the first weights in the average after so many steps, in [0, 1]."""
        if not self.warm_up:
            return float(self.decay**steps)
        share, step = 1.0, 0
        while step < steps and (1 + step) / (10 + step) < self.decay:
            share *= (1 + step) / (10 + step)
            step += 1
        return share * self.decay ** (steps - step)

    def after_step(self, model: nn.Module, state: Average) -> None:
        """Move the average towards the weights."""
        weights = tensors_of(model)
        averages = state.tensors
        moved = [name for name, tensor in weights.items() if tensor.is_floating_point() and self.decay > 0]
        share: float | Tensor = 1 - self.decay
        if self.warm_up:
            share = torch.clamp(9 / (10 + state.updates), min=share)
        state.updates.add_(1)
        if moved:
            lists = [[tensors[name] for name in moved] for tensors in (weights, averages)]
            steps = torch._foreach_sub(*lists)
            torch._foreach_mul_(steps, share)
            torch._foreach_add_(lists[1], steps)
        for name in weights.keys() - moved:
            averages[name].copy_(weights[name])

    def averaged(self, model: nn.Module, state: Average) -> Mapping[str, Tensor]:
        """Return the average."""
        return state.tensors
