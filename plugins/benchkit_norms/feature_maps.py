"""The passes over whole image maps that the norms are made of; everything between is arithmetic on a few numbers.

A feature map, in short a map, is one channel of one image: H * W values. Every norm here takes its statistics from the
mean and the variance of maps, and returns scale * x + shift with one scale and one shift a map. So large tensors are
met only by sums over maps and by products with one number a map, which a processor does at the speed of its memory. On
a CPU the passes run over a few images at a time, so that what one operation wrote is still in the cache when the next
one reads it. Nothing but the input is kept for the backward pass. In compiled code each pass is one expression, which
the compiler fuses: writing into tensors that are there would break PyTorch 2.11's graphs, and make gradients zero.

Shapes: maps (N, C, H, W); numbers that belong to maps (N, C, 1, 1), or (1, C, 1, 1) where images share them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from benchkit import is_cpu
from benchkit_norms.native_kernels import statistics_dtype

VALUES_AT_A_TIME = 512 * 1024
"""As many float32 values of a few maps fit the caches near a core, and make the price of more calls small."""


def by_channel(vector: Tensor) -> Tensor:
    """Return a vector (C) as (1, C, 1, 1)."""
    return vector.view(1, -1, 1, 1)


def widened(x: Tensor) -> Tensor:
    """Return x in the dtype of its statistics when the passes take it whole, so that they need not cast it each."""
    return x.to(statistics_dtype(x)) if _images_at_a_time(x) >= x.shape[0] else x


STORED = 16
"""Copies of a number of which the maximum is taken to have it stored: fewer would be written out one by one."""


def stored(numbers: Tensor) -> Tensor:
    """Return numbers (N, C, 1, 1) as they are, and in code compiled for a CPU so that they are computed only once.

    Its compiler stores the result of a reduction, but repeats small arithmetic wherever it is used: it would find each
    map's group, and the group's mean, for each pixel anew, one pixel at a time.
    """
    if not (torch.compiler.is_compiling() and is_cpu(numbers)):
        return numbers
    return numbers.expand(*numbers.shape[:3], STORED).amax(3, keepdim=True)


def map_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance of each map of x, (N, C, 1, 1), float32 or wider.

    The variance is the mean of centred squares: the mean of squares minus the squared mean loses its digits where
    |mean| is much larger than the standard deviation.
    """
    dtype, size = statistics_dtype(x), x.shape[2] * x.shape[3]
    if torch.compiler.is_compiling():
        wide = x.to(dtype)
        mean = wide.mean((2, 3), keepdim=True)
        return mean, (wide - mean).square().mean((2, 3), keepdim=True)
    mean, variance = x.new_empty((2, *x.shape[:2], 1, 1), dtype=dtype).unbind()
    for part, m, v in _parts(x, mean, variance):
        wide = part.to(dtype)
        torch.sum(wide, (2, 3), keepdim=True, out=m).div_(size)
        centred = wide - m if wide is part else wide.sub_(m)
        torch.sum(centred.mul_(centred), (2, 3), keepdim=True, out=v).div_(size)
    return mean, variance


def scale_shift(x: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x * scale + shift in `dtype`, computed in float32 or wider."""
    if torch.compiler.is_compiling():
        total = x.to(scale.dtype) * scale + shift
        # PyTorch 2.11 gives a gradient of zero to what an autograd function returns of a cast that changes nothing.
        return total if total.dtype == dtype else total.to(dtype)
    result = torch.empty_like(x, dtype=dtype)
    for out, part, a, b in _parts(result, x, scale, shift):
        if out.dtype == a.dtype:
            _scale_shift_into(out, part, a, b)
        else:
            wide = part.to(a.dtype)
            out.copy_(_scale_shift_into(torch.empty_like(wide), wide, a, b))
    return result


def gradient_sums(grad: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return each map's sum of grad and of grad * (x - mean), (N, C, 1, 1), float32 or wider."""
    dtype = statistics_dtype(x)
    if torch.compiler.is_compiling():
        wide = grad.to(dtype)
        return wide.sum((2, 3), keepdim=True), (wide * (x.to(dtype) - mean)).sum((2, 3), keepdim=True)
    plain, product = x.new_empty((2, *x.shape[:2], 1, 1), dtype=dtype).unbind()
    for g, part, m, p, r in _parts(grad, x, mean, plain, product):
        wide = g.to(dtype)
        torch.sum(wide, (2, 3), keepdim=True, out=p)
        torch.sum((part.to(dtype) - m).mul_(wide), (2, 3), keepdim=True, out=r)
    return plain, product


def combine(grad: Tensor, scale: Tensor, x: Tensor, slope: Tensor, shift: Tensor, dtype: torch.dtype) -> Tensor:
    """Return grad * scale + x * slope + shift in `dtype`, computed in float32 or wider."""
    if torch.compiler.is_compiling():
        return (grad.to(scale.dtype) * scale + x.to(scale.dtype) * slope + shift).to(dtype)
    result = torch.empty_like(x, dtype=dtype)
    for out, g, a, part, b, c in _parts(result, grad, scale, x, slope, shift):
        wide = part.to(a.dtype)
        total = _scale_shift_into(out if out.dtype == a.dtype else torch.empty_like(wide), wide, b, c)
        if _is_channels_last(total):
            total.addcmul_(g.to(a.dtype), a)
        else:
            total.add_(g * a)
        if total is not out:
            out.copy_(total)
    return result


def _scale_shift_into(out: Tensor, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    if _is_channels_last(out):
        return torch.addcmul(shift, x, scale, out=out)
    # addcmul is four times slower than this on a CPU when maps are contiguous: it is not vectorised there.
    return torch.mul(x, scale, out=out).add_(shift)


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def _images_at_a_time(x: Tensor) -> int:
    """Return how many images make a part: all of them off the CPU, and in compiled code, which fuses the passes."""
    images = x.shape[0]
    if not is_cpu(x) or torch.compiler.is_compiling():
        return images
    return max(1, VALUES_AT_A_TIME * torch.get_num_threads() * images // max(1, x.numel()))


def _parts(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Return the tensors' parts of a few images each; what all images share, (1, C, 1, 1), goes with every part."""
    images = tensors[0].shape[0]
    step = _images_at_a_time(tensors[0])
    if step >= images:
        return (tensors,)
    count = -(-images // step)
    return zip(*((t,) * count if t.shape[0] == 1 else torch.split(t, step) for t in tensors), strict=True)
