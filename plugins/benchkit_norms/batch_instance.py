"""Batch-instance normalisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchkit import Range, card
from benchkit_norms import native_kernels
from benchkit_norms.feature_maps import (
    by_channel,
    combine,
    gradient_sums,
    map_moments,
    scale_shift,
    widened,
)
from benchkit_norms.standardize import Running, pooled_moments


@card(
    title="Batch-instance normalisation",
    summary="A learned gate for each channel mixes its batch-normalised and its instance-normalised maps.",
    reference="H. Nam and H.-E. Kim, Batch-Instance Normalization for Adaptively Style-Invariant Neural Networks, "
    "NeurIPS 2018",
    url="https://arxiv.org/abs/1805.07925",
    ranges={"eps": Range(low=1e-8, high=1e-2, log=True), "momentum": Range(low=0.001, high=1.0, log=True)},
)
class BatchInstanceNorm(Running):
    """y = weight * (rho * b + (1 - rho) * i) + bias: b is x normalised as in batch norm, i as in instance norm.

    The gate `rho` (C), at first ones, is learned; `constrain` clips it to [0, 1] after each optimizer step. In
    evaluation b uses the running statistics, i those of the image. Not affine, there is no weight and no bias, but the
    gate remains.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_channels, eps=eps, momentum=momentum, affine=affine, device=device, dtype=dtype)
        self.rho = nn.Parameter(torch.ones(num_channels, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x (N, C, H, W), in its dtype; raise `PluginError` for another shape."""
        self.check(x)
        averages = self.running_mean, self.running_var
        if self.training and native_kernels.usable_for_both(x, self.rho, self.weight, self.bias, *averages):
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
            rule = self.momentum, self.eps
            return _ByTwoNorms.apply(x, self.rho, self.weight, self.bias, averages, rule)  # type: ignore[no-any-return]
        running = None if self.training else averages
        output, mean, variance = _BatchInstance.apply(x, self.rho, self.weight, self.bias, running, self.eps)
        if running is None:
            self.track(mean, variance, x.numel() // self.num_channels)
        return output  # type: ignore[no-any-return]

    def plain(self, x: Tensor) -> Tensor:
        """Return what `forward` does, as the formula says: in x's dtype, and nothing is tracked."""
        mean, variance = self.statistics(x)
        of_batch = (x - mean) / torch.sqrt(variance + self.eps)
        own = x.var((2, 3), correction=0, keepdim=True)
        of_instance = (x - x.mean((2, 3), keepdim=True)) / torch.sqrt(own + self.eps)
        rho = by_channel(self.rho)
        return self.affine(rho * of_batch + (1 - rho) * of_instance)

    def constrain(self) -> None:
        """Clip the gate to [0, 1], in place."""
        with torch.no_grad():
            self.rho.clamp_(0.0, 1.0)


class _BatchInstance(torch.autograd.Function):
    """Both branches are scale * x + shift for each map, and so is their sum: it takes the passes of one norm."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rho: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running: tuple[Tensor, Tensor] | None,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = widened(x)
        mean, variance = map_moments(wide)
        if running is None:
            batch_mean, batch_variance = pooled_moments(mean, variance, None)
        else:
            batch_mean, batch_variance = (by_channel(value).to(mean.dtype) for value in running)
        inverse, batch_inverse = torch.rsqrt(variance + eps), torch.rsqrt(batch_variance + eps)
        gate = by_channel(rho).to(mean.dtype)
        factor = torch.ones_like(gate) if weight is None else by_channel(weight).to(mean.dtype)
        of_instance, of_batch = factor * (1 - gate) * inverse, factor * gate * batch_inverse
        shift = -(of_batch * batch_mean + of_instance * mean)
        if bias is not None:
            shift = shift + by_channel(bias)
        ctx.save_for_backward(x, gate, factor, mean, inverse, batch_mean, batch_inverse)
        ctx.affine = weight is not None, bias is not None
        ctx.by_batch = running is None
        ctx.mark_non_differentiable(batch_mean, batch_variance)
        return scale_shift(wide, of_batch + of_instance, shift, x.dtype), batch_mean, batch_variance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad: Tensor, _mean: Tensor | None, _variance: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, None, None]:
        x, gate, factor, mean, inverse, batch_mean, batch_inverse = ctx.saved_tensors
        grad, wide = widened(grad), widened(x)
        of_grad, of_product = gradient_sums(grad, wide, mean)
        # Sums of the gradient times each branch's normalised maps.
        by_instance = of_product * inverse
        by_batch = torch.addcmul(of_product, mean - batch_mean, of_grad).sum(0, keepdim=True) * batch_inverse
        total = of_grad.sum(0, keepdim=True)
        size = x.shape[2] * x.shape[3]
        scale = factor * (1 - gate) * inverse
        slope = scale * inverse * by_instance * (-1 / size)
        shift = -(scale * of_grad / size + slope * mean)
        batch_scale = factor * gate * batch_inverse
        if ctx.by_batch:
            size *= x.shape[0]
            batch_slope = batch_scale * batch_inverse * by_batch * (-1 / size)
            slope = slope + batch_slope
            shift = shift - (batch_scale * total / size + batch_slope * batch_mean)
        d_x = combine(grad, scale + batch_scale, wide, slope, shift, x.dtype)
        by_instance = by_instance.sum(0, keepdim=True)
        d_rho = (factor * (by_batch - by_instance)).view(-1)
        d_weight = (gate * by_batch + (1 - gate) * by_instance).view(-1) if ctx.affine[0] else None
        return d_x, d_rho, d_weight, total.view(-1) if ctx.affine[1] else None, None, None


class _ByTwoNorms(torch.autograd.Function):
    """The sum of batch norm times weight * rho and instance norm times weight * (1 - rho), each by the device's kernel.

    A small network on a GPU is bound by the number of its kernels: these are a fifth of those of `_BatchInstance`. It
    reads and writes the maps about twice as often, so that a CPU, which is bound by that, keeps to the other.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rho: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running: tuple[Tensor, Tensor],
        rule: tuple[float, float],
    ) -> Tensor:
        of_batch = rho.clone() if weight is None else rho * weight
        of_instance = 1 - rho if weight is None else weight - of_batch
        output, *batch = native_kernels.by_batch(x, of_batch, bias, running, *rule)
        instance, *own = native_kernels.by_instance(x, of_instance, rule[1])
        ctx.save_for_backward(x, rho, weight, of_batch, of_instance, *batch, *own)
        ctx.shifted = bias is not None
        return output.add_(instance)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, None, None]:
        x, rho, weight, of_batch, of_instance, mean, inverse, own_mean, own_inverse = ctx.saved_tensors
        d_x, by_batch, d_bias = native_kernels.batch_gradients(grad, x, of_batch, mean, inverse, (True, ctx.shifted))
        d_own, by_instance = native_kernels.instance_gradients(grad, x, of_instance, own_mean, own_inverse)
        assert by_batch is not None
        d_rho = by_batch - by_instance
        if weight is None:
            return d_x.add_(d_own), d_rho, None, d_bias, None, None
        return d_x.add_(d_own), d_rho.mul_(weight), torch.lerp(by_instance, by_batch, rho), d_bias, None, None
