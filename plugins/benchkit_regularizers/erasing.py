"""Random erasing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchkit import Batch, PluginError, Range, card
from benchkit_regularizers.bounds import Bound, require

FILLS = ("random", "mean", "zero")
ATTEMPTS = 10
"""How many rectangles each image may draw until one fits."""


def inside_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return a mask, bool (N, 1, height, width), true inside each image's box; boxes (4, N): top, left, height, width.

    A box of height 0 covers nothing.
    """
    top, left, high, wide = boxes[:, :, None]
    rows = torch.arange(height, device=boxes.device)
    columns = torch.arange(width, device=boxes.device)
    in_rows = (rows >= top) & (rows < top + high)
    in_columns = (columns >= left) & (columns < left + wide)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


@card(
    title="Random erasing",
    summary="A rectangle of random size, shape and place is overwritten in some of the images.",
    reference="Z. Zhong, L. Zheng, G. Kang, S. Li and Y. Yang, Random Erasing Data Augmentation, AAAI 2020",
    url="https://arxiv.org/abs/1708.04896",
    ranges={
        "probability": Range(low=0.0, high=1.0),
        "min_area": Range(low=0.01, high=0.5),
        "max_area": Range(low=0.02, high=1.0),
        "aspect": Range(low=0.1, high=1.0),
    },
    choices={"fill": FILLS},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Erasing:
    """With `probability`, overwrite a rectangle of `min_area` to `max_area` of the image.

    Its height by its width is from `aspect` to 1 / `aspect`, uniform on a log scale, and its place uniform; a rectangle
    that is larger than the image is drawn again, up to ten times. `fill` is random (each value uniform in 0..1), mean
    (the image's channel mean) or zero. Each image draws its own.
    """

    probability: float = 0.5
    min_area: float = 0.02
    max_area: float = 0.4
    aspect: float = 0.3
    fill: str = "random"

    def __post_init__(self) -> None:
        problems = [] if self.fill in FILLS else [f"fill = {self.fill!r}: expected one of {', '.join(FILLS)}"]
        require(
            "erasing",
            Bound(option="probability", value=self.probability, high=1.0),
            Bound(option="min_area", value=self.min_area, high=1.0, open_low=True),
            Bound(option="max_area", value=self.max_area, high=1.0, open_low=True),
            Bound(option="aspect", value=self.aspect, high=1.0, open_low=True),
            problems=tuple(problems),
        )
        if self.min_area > self.max_area:
            raise PluginError(f"erasing: min_area = {self.min_area} is above max_area = {self.max_area}")

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with rectangles erased and targets as they are; at probability 0 the batch itself."""
        if self.probability == 0:
            return batch
        images = batch.images
        inside = inside_boxes(self.boxes(images, generator), *images.shape[2:])
        return replace(batch, images=torch.where(inside, self._filling(images, generator), images))

    def boxes(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return a box for each image, float32 (4, N): top, left, height and width, height 0 where nothing is erased.

        All attempts are drawn at once, so that nothing waits for the device.
        """
        count, device = len(images), images.device
        height, width = images.shape[2:]
        area, shape = torch.rand(2, count, ATTEMPTS, generator=generator, device=device)
        pixels = height * width * (self.min_area + (self.max_area - self.min_area) * area)
        ratio = torch.exp(math.log(self.aspect) * (1 - 2 * shape))
        high, wide = (pixels * ratio).sqrt().round(), (pixels / ratio).sqrt().round()
        fits = (high >= 1) & (wide >= 1) & (high <= height) & (wide <= width)
        first = fits.to(torch.uint8).argmax(1, keepdim=True)
        chosen, down, across = torch.rand(3, count, generator=generator, device=device)
        erased = fits.any(1) & (chosen < self.probability)
        high, wide = high.gather(1, first)[:, 0], wide.gather(1, first)[:, 0]
        top, left = (down * (height - high + 1)).floor(), (across * (width - wide + 1)).floor()
        return torch.stack((top, left, torch.where(erased, high, 0), wide))

    def _filling(self, images: Tensor, generator: torch.Generator) -> Tensor | float:
        if self.fill == "zero":
            return torch.zeros((), device=images.device)
        if self.fill == "mean":
            return images.mean((2, 3), keepdim=True)
        count, channels, height, width = images.shape
        noise = torch.rand(count, height, width, channels, generator=generator, device=images.device)
        return noise.permute(0, 3, 1, 2)
