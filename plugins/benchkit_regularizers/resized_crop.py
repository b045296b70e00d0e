"""Random crops of random size, enlarged to the size of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchkit import Batch, Range, card
from benchkit_regularizers.bounds import Bound, require
from benchkit_regularizers.warping import enlarge

ATTEMPTS = 10
"""How many windows each image may draw until one fits."""


@card(
    title="Random resized crop",
    summary="A window of random size, shape and place is cut out of each image and enlarged to the image's size.",
    reference="C. Szegedy et al., Going Deeper with Convolutions, CVPR 2015, section 6",
    url="https://arxiv.org/abs/1409.4842",
    ranges={"min_area": Range(low=0.05, high=1.0), "aspect": Range(low=0.3, high=1.0)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ResizedCrop:
    """Cut out a window of `min_area` to 1 of the image and enlarge it bilinearly.

    Its width by its height is from `aspect` to 1 / `aspect`, uniform on a log scale, and its place uniform; a window
    that does not fit is drawn again, up to ten times, and then the whole image stays. Each image draws its own.
    """

    min_area: float = 0.08
    aspect: float = 0.75

    def __post_init__(self) -> None:
        require(
            "resized-crop",
            Bound(option="min_area", value=self.min_area, high=1.0, open_low=True),
            Bound(option="aspect", value=self.aspect, high=1.0, open_low=True),
        )

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with images cropped and targets as they are; at min_area 1 the batch itself."""
        if self.min_area == 1:
            return batch
        return replace(batch, images=enlarge(batch.images, self.windows(batch.images, generator)))

    def windows(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return a window for each image, float32 (4, N): top, left, height and width in whole pixels."""
        count, device = len(images), images.device
        height, width = images.shape[2:]
        area, shape = torch.rand(2, count, ATTEMPTS, generator=generator, device=device)
        pixels = height * width * (self.min_area + (1 - self.min_area) * area)
        ratio = torch.exp(math.log(self.aspect) * (1 - 2 * shape))
        wide, high = (pixels * ratio).sqrt().round(), (pixels / ratio).sqrt().round()
        fits = (high >= 1) & (wide >= 1) & (high <= height) & (wide <= width)
        first = fits.to(torch.uint8).argmax(1, keepdim=True)
        found = fits.any(1)
        high = torch.where(found, high.gather(1, first)[:, 0], height)
        wide = torch.where(found, wide.gather(1, first)[:, 0], width)
        down, across = torch.rand(2, count, generator=generator, device=device)
        top, left = (down * (height - high + 1)).floor(), (across * (width - wide + 1)).floor()
        return torch.stack((top, left, high, wide))
