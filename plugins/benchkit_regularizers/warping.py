"""Moving the pixels of a batch, each image by a map of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def warp(images: Tensor, maps: Tensor, fill: float) -> Tensor:
    """Return the images (N, C, H, W) with every pixel taken from where its map points, the nearest one.

    `maps` (N, 2, 3) takes (x, y, 1) of an output pixel to the place in the image that it shows; x and y are pixels from
    the middle of the image, to the right and down. Outside the image is `fill`. The result is channels-last in memory.
    """
    count, channels, height, width = images.shape
    y = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    scale = maps[:, :, :, None, None]
    column = (scale[:, 0, 0] * x + scale[:, 0, 1] * y + scale[:, 0, 2] + (width - 1) / 2).round()
    row = (scale[:, 1, 0] * x + scale[:, 1, 1] * y + scale[:, 1, 2] + (height - 1) / 2).round()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixels = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
    first = torch.arange(0, count * height * width, height * width, device=images.device)
    flat = images.permute(0, 2, 3, 1).reshape(-1, channels)
    taken = flat.index_select(0, (pixels + first[:, None, None]).flatten()).view(count, height, width, channels)
    return torch.where(inside[..., None], taken, fill).permute(0, 3, 1, 2)


def enlarge(images: Tensor, windows: Tensor) -> Tensor:
    """Return one window of each image (N, C, H, W), enlarged to (H, W) by bilinear interpolation within the window.

    `windows` float32 (4, N) holds the top, left, height and width of the windows in pixels, inside the image.
    """
    height, width = images.shape[2:]
    top, left, high, wide = windows[:, :, None]
    row = _places(top, high, height)
    column = _places(left, wide, width)
    y = (2 * row + 1) / height - 1
    x = (2 * column + 1) / width - 1
    grid = torch.stack((x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)), dim=-1)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _places(start: Tensor, length: Tensor, steps: int) -> Tensor:
    """Return where the middles of `steps` pixels fall in spans of `length` from `start` (N, 1), float32 (N, steps)."""
    middle = (torch.arange(steps, device=start.device) + 0.5) / steps
    return start + (middle * length - 0.5).clamp(min=0).minimum(length - 1)
