"""Random crops of random size, enlarged to the size of the image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from benchkit import Batch, Range, card
from benchkit_regularizers.bounds import SHARE_ABOVE_0, require
from benchkit_regularizers.rectangles import random_rectangles


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

    Its height by its width is from `aspect` to 1 / `aspect`, uniform on a log scale, and its place uniform; a window
    that does not fit is drawn again, up to ten times, and then the whole image stays. Each image draws its own.
    """

    min_area: float = 0.08
    aspect: float = 0.75

    def __post_init__(self) -> None:
        require("resized-crop", self, min_area=SHARE_ABOVE_0, aspect=SHARE_ABOVE_0)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with images cropped and targets as they are; at min_area 1 the batch itself."""
        if self.min_area == 1:
            return batch
        return replace(batch, images=enlarge(batch.images, self.windows(batch.images, generator)))

    def windows(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return a window for each image, float32 (4, N): top, left, height and width in whole pixels."""
        height, width = images.shape[2:]
        drawn = random_rectangles(images, min_area=self.min_area, max_area=1.0, aspect=self.aspect, generator=generator)
        places = (drawn.top, drawn.left, drawn.height, drawn.width)
        whole = (0, 0, height, width)
        return torch.stack([torch.where(drawn.found, *pair) for pair in zip(places, whole, strict=True)])
