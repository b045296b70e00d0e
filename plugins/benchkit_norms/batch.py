"""Batch normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

from benchkit import Range, card
from benchkit_norms import native_kernels
from benchkit_norms.feature_maps import by_channel
from benchkit_norms.standardize import Running, standardize


@card(
    title="Batch normalisation",
    summary="Each channel gets mean 0 and variance 1 over the batch; running averages stand in for it in evaluation.",
    reference="S. Ioffe and C. Szegedy, Batch Normalization: Accelerating Deep Network Training by Reducing Internal "
    "Covariate Shift, ICML 2015",
    url="https://arxiv.org/abs/1502.03167",
    ranges={"eps": Range(low=1e-8, high=1e-2, log=True), "momentum": Range(low=0.001, high=1.0, log=True)},
)
class BatchNorm(Running):
    """y = weight * (x - mean) / sqrt(var + eps) + bias, mean and biased variance over N, H, W of one channel.

    In evaluation mean and variance are the running ones. State dicts of `nn.BatchNorm2d` load, and back. Where a
    channel has a single value in training (a batch of one, 1x1 maps) the output is the bias.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x (N, C, H, W), in its dtype; raise `PluginError` for another shape."""
        self.check(x)
        return self._by_batch(x) if self.training else self._by_running(x)

    def plain(self, x: Tensor) -> Tensor:
        """Return what `forward` does, as the formula says: in x's dtype, and nothing is tracked."""
        mean, variance = self.statistics(x)
        return self.affine((x - mean) / torch.sqrt(variance + self.eps))

    def _by_batch(self, x: Tensor) -> Tensor:
        running = self.running_mean, self.running_var
        if native_kernels.usable_by_batch(x, self.weight, self.bias, *running):
            quick = native_kernels.batch_norm(x, self.weight, self.bias, running, self.momentum, self.eps)
            if quick is not None:
                self.num_batches_tracked.add_(1)
                return quick
        output, mean, variance = standardize(x, self.weight, self.bias, None, self.eps)
        self.track(mean, variance, x.numel() // self.num_channels)
        return output

    def _by_running(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(self.running_var.to(native_kernels.statistics_dtype(x)) + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -self.running_mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        return torch.addcmul(by_channel(shift), x, by_channel(scale)).to(x.dtype)
