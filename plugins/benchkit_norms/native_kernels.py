"""Passes that PyTorch has as one kernel, where they compute our formula as exactly as ours do, and quicker.

The framework's group norm takes a variance as the mean of squares minus the squared mean when a CPU's memory is
channels-last, and its backward pass sums products with maps that are not centred. Both lose digits as (mean / standard
deviation)^2 grows, all of them at 1000. Its batch norm centres first, but on a CPU adds up channels-last maps value by
value, so that its mean loses a digit or two. So on a CPU their results count only where that ratio is small; where it
is not, our own passes are taken.

On CUDA, looking at the ratio would hold up the device. There batch norm is as exact as ours (Welford's sums), and so is
the forward pass of group norm; its backward pass is given maps that are centred. Elsewhere, in compiled code, and for
parameters of another dtype, our own passes do the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from benchkit import is_cpu

Gradients = tuple[Tensor, Tensor | None, Tensor | None]
"""Those of the maps, of the weight and of the bias."""

FAR = 4.0
"""From this |mean| / standard deviation on, sums over maps that are not centred lose more than a digit.

A variance that lost its digits shows a large ratio too: to hide one, rounding would have to exceed mean^2 / 16.
"""


def statistics_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of statistics over x: float32, or float64 for float64 input."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def usable(x: Tensor, *parameters: Tensor | None) -> bool:
    """Return whether the CPU's kernels take x together with the parameters (None: absent)."""
    return is_cpu(x) and x.numel() > 0 and not torch.compiler.is_compiling() and _agree(x, parameters)


def usable_by_batch(x: Tensor, *parameters: Tensor | None) -> bool:
    """Return whether `batch_norm` takes x (N, C, H, W) together with the parameters: not a single value a channel."""
    return x.numel() > x.shape[1] and (usable(x, *parameters) or (not is_cpu(x) and _agree(x, parameters)))


def _on_cuda(x: Tensor) -> bool:
    """Return whether CUDA computes with x; Apple's GPUs have no backward pass of group norm."""
    return not is_cpu(x) and x.device.type != "mps"


def _agree(x: Tensor, parameters: Iterable[Tensor | None]) -> bool:
    dtype = statistics_dtype(x)
    return all(parameter is None or parameter.dtype == dtype for parameter in parameters)


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, running: tuple[Tensor, Tensor], momentum: float, eps: float
) -> Tensor | None:
    """Return batch norm of x in training, gradients included, and move the `running` mean and variance (C) along.

    None, with nothing moved, where means on a CPU are far from zero.
    """
    if not is_cpu(x):
        return functional.batch_norm(x, *running, weight, bias, True, momentum, eps)
    before = [average.clone() for average in running]
    output, mean, inverse = torch.native_batch_norm(x, weight, bias, *running, True, momentum, eps)
    if _near(mean, inverse):
        return output
    for average, old in zip(running, before, strict=True):
        average.copy_(old)
    return None


LARGE_MAP = 256
"""Values of a map from which on the framework's instance norm is the quicker one in low precision on a CPU."""


def usable_by_map(x: Tensor, *parameters: Tensor | None) -> bool:
    """Return whether `instance_norm` takes x (N, C, H, W) together with the parameters and is quicker than we are."""
    low, large = x.dtype != statistics_dtype(x), x.shape[2] * x.shape[3] >= LARGE_MAP
    return low and large and usable(x, *parameters)


def instance_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Return instance norm of x in its layout, gradients included: batch norm of contiguous maps, which is exact."""
    output = functional.instance_norm(x, None, None, weight, bias, True, 0.0, eps)
    return output.contiguous(memory_format=_layout(x))


def by_moments(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> Tensor:
    """Return weight * (x - mean) / sqrt(variance + eps) + bias with all of them (C), in x's dtype."""
    return torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0]


def batch_gradients(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor, wanted: tuple[bool, bool]
) -> Gradients:
    """Return batch norm's gradients in training, from the batch's mean and 1 / sqrt(var + eps), both (C)."""
    layout = _layout(x)
    gradients: Gradients = torch.ops.aten.native_batch_norm_backward(
        grad.contiguous(memory_format=layout), x, weight, None, None, mean, inverse, True, 0.0, [True, *wanted]
    )
    return gradients[0], gradients[1] if wanted[0] else None, gradients[2] if wanted[1] else None


def usable_for_both(x: Tensor, *parameters: Tensor | None) -> bool:
    """Return whether `by_batch` and `by_instance` take x (N, C, H, W) together with the parameters: on CUDA alone."""
    return x.numel() > x.shape[1] and usable_on_cuda(x, *parameters)


def by_batch(
    x: Tensor, weight: Tensor, bias: Tensor | None, running: tuple[Tensor, Tensor], momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return batch norm of x in training, which moves the `running` mean and variance, mean and 1 / sqrt(var + eps)."""
    return torch.native_batch_norm(x, weight, bias, *running, True, momentum, eps)


def by_instance(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return weight times instance norm of x, in its layout, with each map's mean and 1 / sqrt(var + eps), (N C)."""
    scale = weight.repeat(len(x))
    output, mean, inverse = torch.native_batch_norm(_of_maps(x), scale, None, None, None, True, 0.0, eps)
    return output.view(x.shape).contiguous(memory_format=_layout(x)), mean, inverse


def instance_gradients(grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, in its layout, and of the weight (C) of what `by_instance` does."""
    scale = weight.repeat(len(x))
    d_x, d_scale, _ = batch_gradients(_of_maps(grad), _of_maps(x), scale, mean, inverse, (True, False))
    assert d_scale is not None
    return d_x.view(x.shape).contiguous(memory_format=_layout(x)), d_scale.view(len(x), -1).sum(0)


def _of_maps(x: Tensor) -> Tensor:
    """Return x as one image (1, N C, H, W), of which each channel is a map."""
    return x.contiguous().view(1, -1, *x.shape[2:])


def by_groups(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return group norm of x with each group's mean and 1 / sqrt(var + eps), (N, groups), or None.

    None where our own passes are better: where means are far from zero, and for many groups in low precision, at which
    the framework's kernel is slow.
    """
    count, channels, height, width = x.shape
    if groups == channels or (groups > 1 and x.dtype != statistics_dtype(x)):
        return None
    maps = x.contiguous(memory_format=_layout(x))
    output, mean, inverse = torch.native_group_norm(maps, weight, bias, count, channels, height * width, groups, eps)
    return (output, mean, inverse) if _near(mean, inverse) else None


def group_gradients(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor, wanted: tuple[bool, bool]
) -> Gradients:
    """Return group norm's gradients from each group's mean and 1 / sqrt(var + eps), both (N, groups)."""
    layout, (count, channels, height, width) = _layout(x), x.shape
    gradients: Gradients = torch.ops.aten.native_group_norm_backward(
        grad.contiguous(memory_format=layout),
        x.contiguous(memory_format=layout),
        mean,
        inverse,
        weight,
        count,
        channels,
        height * width,
        mean.shape[1],
        [True, *wanted],
    )
    return gradients[0], gradients[1] if wanted[0] else None, gradients[2] if wanted[1] else None


def usable_on_cuda(x: Tensor, *parameters: Tensor | None) -> bool:
    """Return whether CUDA's group norm takes x together with the parameters (None: absent)."""
    return _on_cuda(x) and x.numel() > 0 and not torch.compiler.is_compiling() and _agree(x, parameters)


def by_groups_exactly(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return group norm of x in its dtype and layout, with each group's mean and 1 / sqrt(var + eps), (N, groups).

    The statistics are exact on contiguous maps, which is what the kernel gets.
    """
    count, channels, height, width = x.shape
    wide = x.to(statistics_dtype(x), memory_format=torch.contiguous_format)
    output, mean, inverse = torch.native_group_norm(wide, weight, bias, count, channels, height * width, groups, eps)
    return output.to(x.dtype, memory_format=_layout(x)), mean, inverse


def group_gradients_exactly(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor, wanted: tuple[bool, bool]
) -> Gradients:
    """Return what `group_gradients` does, to all digits: the maps are centred, and then the mean is 0."""
    dtype = statistics_dtype(x)
    wide = x.to(dtype, memory_format=torch.contiguous_format)
    centred = (wide.view(len(x), mean.shape[1], -1) - mean[:, :, None]).view(x.shape)
    gradients = group_gradients(grad.to(dtype), centred, weight, torch.zeros_like(mean), inverse, wanted)
    return gradients[0].to(x.dtype, memory_format=_layout(x)), *gradients[1:]


def _near(mean: Tensor, inverse: Tensor) -> bool:
    return bool(torch.linalg.vector_norm(mean * inverse, math.inf).item() < FAR)


def _layout(x: Tensor) -> torch.memory_format:
    if x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
