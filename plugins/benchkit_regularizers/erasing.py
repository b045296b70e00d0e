"""Random erasing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchkit import Batch, Range, card
from benchkit_regularizers.bounds import SHARE, SHARE_ABOVE_0, require
from benchkit_regularizers.rectangles import Rectangles, covered, random_rectangles

FILLS = ("random", "mean", "zero")


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
        if self.min_area > self.max_area:
            problems.append(f"min_area = {self.min_area}: expected at most max_area = {self.max_area}")
        require(
            "erasing",
            self,
            probability=SHARE,
            min_area=SHARE_ABOVE_0,
            max_area=SHARE_ABOVE_0,
            aspect=SHARE_ABOVE_0,
            problems=tuple(problems),
        )

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with rectangles erased and targets as they are; at probability 0 the batch itself."""
        if self.probability == 0:
            return batch
        images = batch.images
        inside = covered(self.rectangles(images, generator), *images.shape[2:])
        return replace(batch, images=torch.where(inside, self._filling(images, generator), images))

    def rectangles(self, images: Tensor, generator: torch.Generator) -> Rectangles:
        """Return what is to be erased; for images that are spared, `found` is false."""
        drawn = random_rectangles(
            images, min_area=self.min_area, max_area=self.max_area, aspect=self.aspect, generator=generator
        )
        chosen = torch.rand(len(images), generator=generator, device=images.device) < self.probability
        return replace(drawn, found=drawn.found & chosen)

    def _filling(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.fill == "zero":
            return torch.zeros((), device=images.device)
        if self.fill == "mean":
            return images.mean((2, 3), keepdim=True)
        count, channels, height, width = images.shape
        noise = torch.rand(count, height, width, channels, generator=generator, device=images.device)
        return noise.permute(0, 3, 1, 2)
