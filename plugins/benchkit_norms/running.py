"""Running statistics of each channel, kept in training and used in evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from benchkit import PluginError
from benchkit_norms.per_channel import PerChannel


class Running(PerChannel):
    """Buffers `running_mean` and `running_var` (C) and `num_batches_tracked`, by the conventions of `nn.BatchNorm2d`.

    running <- (1 - momentum) * running + momentum * batch, with the unbiased variance, begun at mean 0 and variance 1.
    The names are the framework's too, so that a state dict moves from one layer to the other and back.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_channels: int,
        eps: float,
        momentum: float,
        affine: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_channels, eps, affine, device, dtype)
        if not 0 <= momentum <= 1:
            raise PluginError(f"{type(self).__name__} was given momentum = {momentum}", hint="give 0 to 1, such as 0.1")
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(num_channels, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones(num_channels, device=device, dtype=dtype))
        self.register_buffer("num_batches_tracked", torch.zeros((), device=device, dtype=torch.long))

    def track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the statistics towards a batch's mean and biased variance (1, C, 1, 1), taken over `count` values."""
        with torch.no_grad():
            unbiased = variance.view(-1) * (count / max(count - 1, 1))
            self.running_mean.lerp_(mean.view(-1).to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)

    def extra_repr(self) -> str:
        """Return the options, for `print(model)`."""
        return f"{super().extra_repr()}, momentum={self.momentum}"
