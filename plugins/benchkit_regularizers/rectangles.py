"""Random rectangles inside images, one for each image of a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ATTEMPTS = 10
"""How many rectangles each image may draw until one fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rectangles:
    """Places in whole pixels, float32 (N,) each; where `found` is false, no rectangle fitted and the place is void."""

    found: Tensor
    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def random_rectangles(
    images: Tensor, *, min_area: float, max_area: float, aspect: float, generator: torch.Generator
) -> Rectangles:
    """Return a rectangle of `min_area` to `max_area` (shares) of each image (N, C, H, W), at a uniform place.

    Height by width is from `aspect` to 1 / `aspect`, uniform on a log scale. A rectangle larger than the image is drawn
    again; all attempts are drawn at once, so that nothing waits for the device.
    """
    count, device = len(images), images.device
    height, width = images.shape[2:]
    area, shape = torch.rand(2, count, ATTEMPTS, generator=generator, device=device)
    pixels = height * width * (min_area + (max_area - min_area) * area)
    ratio = torch.exp(math.log(aspect) * (1 - 2 * shape))
    high, wide = (pixels * ratio).sqrt().round(), (pixels / ratio).sqrt().round()
    fits = (high >= 1) & (wide >= 1) & (high <= height) & (wide <= width)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    high, wide = high.gather(1, first)[:, 0], wide.gather(1, first)[:, 0]
    down, across = torch.rand(2, count, generator=generator, device=device)
    return Rectangles(
        found=fits.any(1),
        top=(down * (height - high + 1)).floor(),
        left=(across * (width - wide + 1)).floor(),
        height=high,
        width=wide,
    )


def covered(rectangles: Rectangles, height: int, width: int) -> Tensor:
    """Return a mask, bool (N, 1, height, width), true inside each image's rectangle where one was found."""
    rows = torch.arange(height, device=rectangles.top.device)
    columns = torch.arange(width, device=rectangles.top.device)
    top, left = rectangles.top[:, None], rectangles.left[:, None]
    in_rows = (rows >= top) & (rows < top + rectangles.height[:, None]) & rectangles.found[:, None]
    in_columns = (columns >= left) & (columns < left + rectangles.width[:, None])
    return torch.logical_and(in_rows[:, None, :, None], in_columns[:, None, None, :])
