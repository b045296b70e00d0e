"""PyTorch's fused SGD, without what its step does on a CPU beside the update."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

OPTIONS = ("weight_decay", "momentum", "dampening", "lr", "nesterov", "maximize")


class SGD(torch.optim.SGD):
    """`torch.optim.SGD` with `fused=True`, to the same bits.

    Its CPU kernel copies a tensor for every channels-last weight, which in a small network takes longer than the
    update; here it gets such weights, their gradients and momenta as views (N, H, W, C), which are contiguous.

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
        updates = [] if closure is not None else [self._update(group) for group in self.param_groups]
        ready = [update for update in updates if update is not None]
        if len(ready) < len(self.param_groups):
            loss: float | None = inspect.unwrap(torch.optim.SGD.step)(self, closure)
            return loss
        for update in ready:
            update()
        return None

    def _update(self, group: dict[str, Any]) -> Callable[[], None] | None:
        """Return what updates the weights of a group, or None off the CPU and where momenta are still to be made."""
        weights: list[Tensor] = []
        gradients: list[Tensor] = []
        momenta: list[Tensor | None] = []
        for weight in group["params"]:
            gradient, momentum = weight.grad, self.state.get(weight, {}).get("momentum_buffer")
            if gradient is None:
                continue
            if not weight.is_cpu or (momentum is None and group["momentum"] != 0):
                return None
            if weight.dim() == 4 and not weight.is_contiguous():
                weight, momentum = self._views(weight, momentum)
                gradient = gradient.permute(0, 2, 3, 1)
            weights.append(weight)
            gradients.append(gradient)
            momenta.append(momentum)
        options = {name: group[name] for name in OPTIONS}
        return partial(sgd, weights, gradients, momenta, foreach=False, fused=True, **options)

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
