"""Small random images and batches of them, for tests of augmentations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchkit import Batch


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 6, channels: int = 3, height: int = 32, width: int = 32, seed: int = 0) -> Tensor:
    """Return smooth images at the 256 levels, float32 (N, C, H, W) in [0, 1], channels last as in the engine."""
    coarse = torch.rand(count, channels, 6, 6, generator=seeded(seed))
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return ((smooth * 255).round() / 255).contiguous(memory_format=torch.channels_last)


def batch_of(images: Tensor, classes: int = 4) -> Batch:
    return Batch(images=images, targets=torch.eye(classes)[torch.arange(len(images)) % classes])
