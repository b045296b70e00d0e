"""The optimizers' updates written out in plain tensor operations, which a compiler joins with what comes before them.

PyTorch's fused kernels do the same in one call, which a compiler cannot look into.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SETTINGS = ("lr", "momentum", "weight_decay")
"""The options that are read from tensors: trials that differ in nothing else share their compiled code."""


class WrittenOut:
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
            for parameter in group["params"]:
                if parameter.grad is not None:
                    gradient = -parameter.grad if group["maximize"] else parameter.grad
                    change(parameter, gradient, self._optimizer.state.get(parameter, {}), group, settings)


def _tensor(value: float | Tensor, parameter: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.full((), value, dtype=torch.float32, device=parameter.device)


def _sgd(
    weight: Tensor, gradient: Tensor, moments: Mapping[str, Any], group: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Change a weight as `torch.optim.SGD` does without dampening."""
    if group["weight_decay"]:
        gradient = gradient + weight * settings["weight_decay"]
    if group["momentum"]:
        momentum = moments["momentum_buffer"].mul_(settings["momentum"]).add_(gradient)
        gradient = gradient + momentum * settings["momentum"] if group["nesterov"] else momentum
    weight.sub_(gradient * settings["lr"])


def _adam(
    weight: Tensor, gradient: Tensor, moments: Mapping[str, Any], group: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Change a weight as `torch.optim.Adam` and `torch.optim.AdamW` do."""
    first, second = group["betas"]
    if group["decoupled_weight_decay"]:
        weight.mul_(1 - settings["lr"] * settings["weight_decay"])
    elif group["weight_decay"]:
        gradient = gradient + weight * settings["weight_decay"]
    step = moments["step"].add_(1).double()
    mean = moments["exp_avg"].lerp_(gradient, 1 - first)
    square = moments["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
    if group["amsgrad"]:
        square = moments["max_exp_avg_sq"].copy_(torch.maximum(moments["max_exp_avg_sq"], square))
    rate = (settings["lr"] / (1 - first**step)).float()
    deviation = square.sqrt() / (1 - second**step).sqrt().float()
    weight.sub_(rate * mean / (deviation + group["eps"]))
