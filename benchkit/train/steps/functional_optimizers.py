"""The optimizers' updates written out in plain tensor operations, which a compiler joins with what comes before them.

PyTorch's fused kernels do the same in one call, which a compiler cannot look into. Operations on lists of tensors
(`_foreach`) are what it makes few kernels of on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SETTINGS = ("lr", "momentum", "weight_decay")
"""The options that are read from tensors: trials that differ in nothing else share their compiled code."""

Tensors = list[Tensor] | tuple[Tensor, ...]
Moments = list[dict[str, Any]]
Settings = Mapping[str, Any]


class FunctionalOptimizer:
    """An optimizer's step, on its parameters and moments, in tensor operations.

    `settings` holds, for each group, the options of `SETTINGS` as scalar tensors on the parameters' device: the group's
    own tensor where it has one, a copy otherwise.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """Write out the step of SGD, Adam or AdamW; it has taken a step, so that there are moments."""
        self._optimizer = optimizer
        self.settings = [
            {name: _tensor(group[name], group["params"][0]) for name in SETTINGS if name in group}
            for group in optimizer.param_groups
        ]

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have a gradient."""
        change = _sgd if isinstance(self._optimizer, torch.optim.SGD) else _adam
        for group, settings in zip(self._optimizer.param_groups, self.settings, strict=True):
            weights = [parameter for parameter in group["params"] if parameter.grad is not None]
            gradients: Tensors = [weight.grad for weight in weights]
            moments = [self._optimizer.state.get(weight, {}) for weight in weights]
            if group["maximize"]:
                gradients = torch._foreach_neg(gradients)
            if weights:
                change(weights, gradients, moments, group, settings)


def _tensor(value: float | Tensor, parameter: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.full((), value, dtype=torch.float32, device=parameter.device)


def _sgd(weights: Tensors, gradients: Tensors, moments: Moments, group: Settings, settings: Settings) -> None:
    """Change weights as `torch.optim.SGD` does without dampening."""
    if group["weight_decay"]:
        gradients = torch._foreach_add(gradients, torch._foreach_mul(weights, settings["weight_decay"]))
    if group["momentum"]:
        momenta = [kept["momentum_buffer"] for kept in moments]
        torch._foreach_mul_(momenta, settings["momentum"])
        torch._foreach_add_(momenta, gradients)
        ahead = torch._foreach_mul(momenta, settings["momentum"]) if group["nesterov"] else None
        gradients = momenta if ahead is None else torch._foreach_add(gradients, ahead)
    torch._foreach_sub_(weights, torch._foreach_mul(gradients, settings["lr"]))


def _adam(weights: Tensors, gradients: Tensors, moments: Moments, group: Settings, settings: Settings) -> None:
    """Change weights as `torch.optim.Adam` and `torch.optim.AdamW` do."""
    first, second = group["betas"]
    if group["decoupled_weight_decay"]:
        torch._foreach_mul_(weights, 1 - settings["lr"] * settings["weight_decay"])
    elif group["weight_decay"]:
        gradients = torch._foreach_add(gradients, torch._foreach_mul(weights, settings["weight_decay"]))
    steps, means, squares = ([kept[name] for kept in moments] for name in ("step", "exp_avg", "exp_avg_sq"))
    torch._foreach_add_(steps, 1)
    torch._foreach_lerp_(means, gradients, 1 - first)
    torch._foreach_mul_(squares, second)
    torch._foreach_add_(squares, torch._foreach_mul(torch._foreach_mul(gradients, gradients), 1 - second))
    if group["amsgrad"]:
        greatest = [kept["max_exp_avg_sq"] for kept in moments]
        torch._foreach_copy_(greatest, torch._foreach_maximum(greatest, squares))
        squares = greatest
    taken = torch.stack(steps).double()
    rates = (settings["lr"] / (1 - first**taken)).float().unbind()
    corrections = (1 - second**taken).sqrt().float().unbind()
    deviations = torch._foreach_div(torch._foreach_sqrt(squares), corrections)
    torch._foreach_add_(deviations, group["eps"])
    torch._foreach_sub_(weights, torch._foreach_mul(torch._foreach_div(means, deviations), rates))
