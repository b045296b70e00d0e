"""What the norms here share: standardisation over sets of maps, forward and backward, as functions and as modules.

The maps of a set have one mean M and one variance V: those of a channel over the batch, or those of a group of
channels within an image. From each map's own mean m and variance v, with <.> the mean over a set,

    M = <m>,  V = <v + (m - M)^2>,  y = weight (x - M) / sqrt(V + eps) + bias.

With s = weight / sqrt(V + eps) and g the gradient with respect to y, the chain rule gives

    dx = s g - <s g> - (x - M) <s g (x - M)> / (V + eps),  dweight = sum g (x - M) / sqrt(V + eps),  dbias = sum g.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchkit import PluginError
from benchkit_norms import native_kernels
from benchkit_norms.feature_maps import by_channel, combine, gradient_sums, map_moments, scale_shift, stored, widened


class Standardized(NamedTuple):
    """The result (N, C, H, W) in the input's dtype; mean and biased variance, (1 or N, C, 1, 1), float32 or wider."""

    output: Tensor
    mean: Tensor
    variance: Tensor


def standardize(x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int | None, eps: float) -> Standardized:
    """Return x (N, C, H, W) with mean 0 and variance 1 over each set of maps, times weight (C) plus bias (C).

    `groups` None makes one set of each channel over the batch; otherwise each image's channels make that many equal
    sets. Mean and variance carry no gradient of their own. The backward pass has no derivative in turn.
    """
    return Standardized(*_Standardize.apply(x, weight, bias, groups, eps))


def group_standardize(x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float) -> Tensor:
    """Return the output of `standardize`, by the framework's kernels where they are as exact."""
    return _GroupStandardize.apply(x, weight, bias, groups, eps)  # type: ignore[no-any-return]


def over_set(values: Tensor, groups: int) -> Tensor:
    """Return the mean of values of maps (N, C, 1, 1) over each of an image's `groups` groups, (N, C, 1, 1)."""
    count, channels = values.shape[:2]
    if groups == channels:
        return values
    grouped = values.view(count, groups, channels // groups)
    return stored(grouped.mean(2, keepdim=True).expand_as(grouped).reshape(count, channels, 1, 1))


def pooled_moments(mean: Tensor, variance: Tensor, groups: int | None) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance of each set, (1, C, 1, 1) or (N, C, 1, 1), from those of its maps."""
    if groups == mean.shape[1]:
        return mean, variance
    pooled = mean.mean(0, keepdim=True) if groups is None else over_set(mean, groups)
    offset = mean - pooled
    total = torch.addcmul(variance, offset, offset)
    return pooled, total.mean(0, keepdim=True) if groups is None else over_set(total, groups)


class _Standardize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = widened(x)
        mean, variance = pooled_moments(*map_moments(wide), groups)
        inverse = torch.rsqrt(variance + eps)
        ctx.groups = groups
        ctx.affine = weight is not None, bias is not None
        ctx.native = groups is None and native_kernels.usable(x, weight, bias)
        ctx.mark_non_differentiable(mean, variance)
        if ctx.native:
            ctx.save_for_backward(x, weight, mean, inverse)
            return native_kernels.by_moments(x, weight, bias, mean.view(-1), variance.view(-1), eps), mean, variance
        scale = inverse if weight is None else inverse * by_channel(weight)
        shift = -mean * scale if bias is None else torch.addcmul(by_channel(bias), mean, scale, value=-1)
        ctx.save_for_backward(x, weight, mean, inverse)
        return scale_shift(wide, scale, shift, x.dtype), mean, variance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad: Tensor, _mean: Tensor | None, _variance: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        x, weight, mean, inverse = ctx.saved_tensors
        if ctx.native:
            flat = mean.view(-1), inverse.view(-1)
            return *native_kernels.batch_gradients(grad, x, weight, *flat, ctx.affine), None, None
        return *_gradients(grad, x, weight, mean, inverse, ctx.groups, ctx.affine), None, None


class _GroupStandardize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float) -> Tensor:
        ctx.groups = groups
        ctx.affine = weight is not None, bias is not None
        ctx.gradients = None
        if native_kernels.usable_on_cuda(x, weight, bias):
            output, mean, inverse = native_kernels.by_groups_exactly(x, weight, bias, groups, eps)
            ctx.gradients = native_kernels.group_gradients_exactly
        elif native_kernels.usable(x, weight, bias) and (
            normalized := native_kernels.by_groups(x, weight, bias, groups, eps)
        ):
            output, mean, inverse = normalized
            ctx.gradients = native_kernels.group_gradients
        else:
            output, mean, variance = standardize(x, weight, bias, groups, eps)
            inverse = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        x, weight, mean, inverse = ctx.saved_tensors
        if ctx.gradients:
            return *ctx.gradients(grad, x, weight, mean, inverse, ctx.affine), None, None
        return *_gradients(grad, x, weight, mean, inverse, ctx.groups, ctx.affine), None, None


def _gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    inverse: Tensor,
    groups: int | None,
    affine: tuple[bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of the maps, the weight and the bias by the formulas above."""
    grad, wide = widened(grad), widened(x)
    scale = inverse if weight is None else inverse * by_channel(weight)
    of_grad, of_product = gradient_sums(grad, wide, mean)
    size = x.shape[2] * x.shape[3]
    if groups is None:
        of_grad, of_product = of_grad.sum(0, keepdim=True), of_product.sum(0, keepdim=True)
        size *= x.shape[0]
    of_product = of_product * inverse
    part = scale * (-1 / size)
    if groups is None:
        slope, shift = of_product * part * inverse, of_grad * part
    else:
        slope, shift = over_set(of_product * part, groups) * inverse, over_set(of_grad * part, groups)
    shift = torch.addcmul(shift, mean, slope, value=-1)
    d_x = combine(grad, scale, wide, slope, shift, x.dtype)
    d_weight = of_product.sum((0, 2, 3)) if affine[0] else None
    return d_x, d_weight, of_grad.sum((0, 2, 3)) if affine[1] else None


class PerChannel(nn.Module):
    """A module with `weight` (C), at first ones, and `bias` (C), at first zeros; both None when not `affine`."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        num_channels: int,
        *,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        problems = []
        if num_channels < 1:
            problems.append(f"num_channels = {num_channels}: expected a positive number")
        if not eps > 0:
            problems.append(f"eps = {eps}: expected a positive number")
        if problems:
            raise PluginError(f"{type(self).__name__} was given wrong options", problems=problems)
        self.num_channels = num_channels
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels, device=device, dtype=dtype)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_channels, device=device, dtype=dtype)) if affine else None

    def check(self, x: Tensor) -> None:
        """Raise `PluginError` unless x is (N, num_channels, H, W)."""
        if x.dim() != 4 or x.shape[1] != self.num_channels:
            raise PluginError(
                f"a norm made for (N, {self.num_channels}, H, W) was given {tuple(x.shape)}",
                hint="pass the number of channels of the maps that reach the norm; add H = W = 1 to plain features",
            )

    def affine(self, x: Tensor) -> Tensor:
        """Return weight * x + bias, x itself when there are none."""
        if self.weight is None or self.bias is None:
            return x
        return by_channel(self.weight) * x + by_channel(self.bias)

    def extra_repr(self) -> str:
        """Return the options, for `print(model)`."""
        return f"{self.num_channels}, eps={self.eps}, affine={self.weight is not None}"


class PerImage(PerChannel):
    """A norm of each image by itself: its channels make equal groups, each with one mean and variance."""

    num_groups: int = 0
    """0 makes each channel a group of its own."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x (N, C, H, W), in its dtype; raise `PluginError` for another shape."""
        self.check(x)
        return group_standardize(x, self.weight, self.bias, self.num_groups or self.num_channels, self.eps)

    def plain(self, x: Tensor) -> Tensor:
        """Return what `forward` does, as the formula says: in x's dtype."""
        sets = x.reshape(len(x), self.num_groups or self.num_channels, -1)
        mean, variance = sets.mean(2, keepdim=True), sets.var(2, correction=0, keepdim=True)
        return self.affine(((sets - mean) / torch.sqrt(variance + self.eps)).view(x.shape))


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
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_channels, eps=eps, affine=affine, device=device, dtype=dtype)
        if not 0 <= momentum <= 1:
            raise PluginError(f"{type(self).__name__} was given momentum = {momentum}", hint="give 0 to 1, such as 0.1")
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(num_channels, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones(num_channels, device=device, dtype=dtype))
        self.register_buffer("num_batches_tracked", torch.zeros((), device=device, dtype=torch.long))

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance (1, C, 1, 1) that normalise x: its own in training, else the running ones."""
        if self.training:
            return x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        return by_channel(self.running_mean), by_channel(self.running_var)

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
