"""PyTorch's fused SGD, without what its step does on a CPU beside the update."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

OPTIONS = ("weight_decay", "momentum", "dampening", "lr", "nesterov", "maximize")

Lists = tuple[list[Tensor], list[Tensor], list[Tensor]]
"""Weights, their gradients, and their momenta."""


class SGD(torch.optim.SGD):
    """`torch.optim.SGD` with `fused=True`, to the same bits.

    Its CPU kernel copies a tensor for every channels-last weight, which in a small network takes longer than the
    update; here it gets such weights, their gradients and momenta as views (N, H, W, C), which are contiguous. And it
    is called at once: sorting weights by device and type before each step adds up to a third to what a small network's
    update takes.

    Steps whose gradients overflowed in fp16 are left to the scaler to skip: a fused first step that skips itself leaves
    its momenta as the memory was found.
    """

    _step_supports_amp_scaling: bool

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what `torch.optim.SGD` takes."""
        super().__init__(*arguments, **options)
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the weights that have a gradient; with a `closure`, compute them by it first and return its loss."""
        found = [] if closure is not None else [self._updated(group) for group in self.param_groups]
        ready = [lists for lists in found if lists is not None]
        if len(ready) < len(self.param_groups):
            loss: float | None = inspect.unwrap(torch.optim.SGD.step)(self, closure)
            return loss
        for group, (weights, gradients, momenta) in zip(self.param_groups, ready, strict=True):
            if weights:
                options = {name: group[name] for name in OPTIONS}
                torch._fused_sgd_(weights, gradients, momenta, is_first_step=False, **options)
        return None

    def _updated(self, group: dict[str, Any]) -> Lists | None:
        """Return the group's weights that have a gradient, these, and the momenta (none without momentum).

        Return None off the CPU, for other numbers than float32, and where momenta are still to be made.
        """
        weights: list[Tensor] = []
        gradients: list[Tensor] = []
        momenta: list[Tensor] = []
        moving = group["momentum"] != 0
        for weight in group["params"]:
            gradient = weight.grad
            if gradient is None:
                continue
            momentum = self.state.get(weight, {}).get("momentum_buffer") if moving else None
            if not weight.is_cpu or weight.dtype != torch.float32 or (moving and momentum is None):
                return None
            if weight.dim() == 4 and not weight.is_contiguous():
                weight, momentum = self._views(weight, momentum)
                gradient = gradient.permute(0, 2, 3, 1)
            weights.append(weight)
            gradients.append(gradient)
            if momentum is not None:
                momenta.append(momentum)
        return weights, gradients, momenta

    def _views(self, weight: Tensor, momentum: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return both as (N, H, W, C), kept from step to step for as long as they lie in the same memory."""
        kept: dict[Tensor, tuple[Tensor, Tensor | None]] = self.__dict__.setdefault("_kept", {})
        views = kept.get(weight)
        if views is None or any(_apart(*pair) for pair in zip(views, (weight, momentum), strict=True)):
            moved = None if momentum is None else momentum.permute(0, 2, 3, 1)
            views = kept[weight] = weight.detach().permute(0, 2, 3, 1), moved
        return views


def _apart(view: Tensor | None, tensor: Tensor | None) -> bool:
    if view is None or tensor is None:
        return view is not tensor
    return view.data_ptr() != tensor.data_ptr()
