"""Passes that PyTorch has as one kernel, where they compute our formula as exactly as ours do, and quicker.

The framework's group norm takes a variance as the mean of squares minus the squared mean when memory is channels-last,
and its backward pass sums products with maps that are not centred. Both lose digits as (mean / standard deviation)^2
grows, all of them at 1000. So its result counts only where that ratio is small; where it is not, our own passes, which
centre first, are taken. Batch norm's statistics are always our own. Only the CPU's kernels are used; elsewhere, in
compiled code, and for parameters of another dtype, our own passes do the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchkit_norms.planes import statistics_dtype

Gradients = tuple[Tensor, Tensor | None, Tensor | None]
"""Those of the maps, of the weight and of the bias."""

FAR = 4.0
"""From this |mean| / standard deviation on, sums over maps that are not centred lose more than a digit.

A variance that lost its digits shows a large ratio too: to hide one, rounding would have to exceed mean^2 / 16.
"""


def usable(x: Tensor, *parameters: Tensor | None) -> bool:
    """Return whether the kernels take x together with the parameters (None: absent)."""
    dtype = statistics_dtype(x)
    return (
        x.is_cpu
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and all(parameter is None or parameter.dtype == dtype for parameter in parameters)
    )


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
    found: Gradients = torch.ops.aten.native_batch_norm_backward(
        grad.contiguous(memory_format=layout), x, weight, None, None, mean, inverse, True, 0.0, [True, *wanted]
    )
    return found[0], found[1] if wanted[0] else None, found[2] if wanted[1] else None


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
    return (output, mean, inverse) if (mean * inverse).abs_().max().item() < FAR else None


def group_gradients(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor, wanted: tuple[bool, bool]
) -> Gradients:
    """Return group norm's gradients from each group's mean and 1 / sqrt(var + eps), both (N, groups)."""
    layout, (count, channels, height, width) = _layout(x), x.shape
    found: Gradients = torch.ops.aten.native_group_norm_backward(
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
    return found[0], found[1] if wanted[0] else None, found[2] if wanted[1] else None


def _layout(x: Tensor) -> torch.memory_format:
    if x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
