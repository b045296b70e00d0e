"""What mixup and cutmix share: a partner for each image, and a share drawn from a symmetric beta distribution."""

from __future__ import annotations

import torch
from torch import Tensor


def partners(count: int, generator: torch.Generator) -> Tensor:
    """Return a random permutation of 0..count-1, int64 on the generator's device, without a synchronisation."""
    return torch.rand(count, generator=generator, device=generator.device).argsort()


def take(images: Tensor, partner: Tensor) -> Tensor:
    """Return the images (N, C, H, W) in the order of `partner` (N,), in the same memory format."""
    if images.is_contiguous(memory_format=torch.channels_last):
        # index_select alone would give a contiguous copy, and be slow about it.
        return images.permute(0, 2, 3, 1).index_select(0, partner).permute(0, 3, 1, 2)
    return images.index_select(0, partner)


def beta_share(alpha: float, generator: torch.Generator) -> Tensor:
    """Return one draw from Beta(alpha, alpha), a float32 scalar in [0, 1] on the generator's device.

    It is G1 / (G1 + G2) of two gamma variables of shape alpha, each drawn as Gamma(alpha + 1) * U^(1 / alpha) and
    compared by logarithms, since for a small alpha both would underflow to zero. `torch.distributions` has no
    `generator`; its source of gamma variables does.
    """
    shape = torch.full((2,), alpha + 1, device=generator.device)
    uniform = 1 - torch.rand(2, generator=generator, device=generator.device)
    first, second = torch._standard_gamma(shape, generator=generator).log() + uniform.log() / alpha
    return torch.sigmoid(first - second)
