"""PyTorch's batch norm in a form that a compiler for CPUs makes faster code of."""

from __future__ import annotations

import torch
from torch import nn


class PlanewiseBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, which in compiled training sums each plane, one channel of one image, before the batch.

    Of PyTorch's own, its compiler makes a single pass for mean and variance, in which each value waits for the one
    before (Welford's), and backward passes that next to maps of another size leave sixteen channels, one vector, to
    one core. Planes are summed twice, without waiting, and are many. Outside compiled training this is the layer that
    it was.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the normalised maps (N, C, H, W), in their dtype."""
        batch = self.training and input.dim() == 4 and input.numel() > input.shape[1]
        if not (batch and torch.compiler.is_compiling() and self.momentum is not None):
            return super().forward(input)
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        mean = _over_batch(wide)
        centred = wide - mean
        variance = _over_batch(centred.square())
        if self.running_mean is not None:
            self._track(mean.detach(), variance.detach(), input.numel() // input.shape[1])
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight.view(1, -1, 1, 1)
        output = centred * scale.expand(len(input), -1, 1, 1)
        if self.bias is not None:
            output = output + self.bias.view(1, -1, 1, 1).expand(len(input), -1, 1, 1)
        return output.to(input.dtype)

    def _track(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        """Move the running averages towards a batch of `count` values a channel, with the unbiased variance."""
        assert self.momentum is not None and self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean[0].flatten().to(self.running_mean.dtype), self.momentum)
        unbiased = variance[0].flatten() * (count / (count - 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)


def _over_batch(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of each channel, once for every image (N, C, 1, 1): so its gradient is summed by planes, too."""
    return values.mean((2, 3), keepdim=True).mean(0, keepdim=True).expand(len(values), -1, 1, 1)


def sum_by_planes(model: nn.Module) -> None:
    """Let the model's layers that are `nn.BatchNorm2d`, and nothing derived from it, sum by planes when compiled."""
    for layer in model.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = PlanewiseBatchNorm2d
