"""Random crop and horizontal flip of a whole batch at once."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from benchkit import Batch, Range, card
from benchkit_regularizers.bounds import SHARE, Bound, require


def crop(images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, padding: int) -> Tensor:
    """Return one window of each zero-padded image, at its top and left (N,) in 0..2 * padding, mirrored where true.

    Images (N, C, H, W) keep their size, dtype and memory format. All pixels of the batch are fetched by one gather.
    """
    channels, height, width = images.shape[1:]
    wide = width + 2 * padding
    places = _places(height, width, wide, images.device).index_select(0, mirrored.to(torch.int64))
    pixels = places + torch.add(left, top, alpha=wide)[:, None]
    padded = functional.pad(images, (padding, padding, padding, padding))
    if images.is_contiguous(memory_format=torch.channels_last):
        return _gather_pixels(padded, pixels).view(-1, height, width, channels).permute(0, 3, 1, 2)
    index = pixels[:, None].expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view(images.shape)


def _gather_pixels(padded: Tensor, pixels: Tensor) -> Tensor:
    """Return the pixels (N, P) of channels-last images, all channels of a pixel at once: (N * P, C)."""
    count, channels, height, width = padded.shape
    pixels = pixels + _starts(count, height * width, padded.device)
    return padded.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, pixels.flatten())


# What depends on shapes alone is kept: for a small batch, each of these operations takes as long as copying the pixels.
# It is kept for good, because a recorded CUDA graph goes on reading it.


@functools.cache
def _places(height: int, width: int, wide: int, device: torch.device) -> Tensor:
    """Return where the pixels of a window at the top left lie in an image `wide` pixels wide, plain and mirrored."""
    across = torch.arange(width, device=device)
    rows = torch.arange(0, height * wide, wide, device=device)[:, None]
    return torch.stack(((rows + across).flatten(), (rows + across.flip(0)).flatten()))


@functools.cache
def _starts(count: int, size: int, device: torch.device) -> Tensor:
    """Return where each of `count` images of `size` pixels begins, (N, 1)."""
    return torch.arange(0, count * size, size, device=device)[:, None]


@card(
    title="Random crop and flip",
    summary="Each image is padded with zeros, cropped back to its size at random, and mirrored at random.",
    reference="K. He, X. Zhang, S. Ren and J. Sun, Deep Residual Learning for Image Recognition, CVPR 2016, "
    "section 4.2",
    url="https://arxiv.org/abs/1512.03385",
    ranges={"padding": Range(low=0, high=8), "flip": Range(low=0.0, high=1.0)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class CropFlip:
    """Crop from `padding` pixels of zeros on each side, and mirror left to right with probability `flip`.

    Every image draws its own offsets, uniform over all (2 * padding + 1)^2 places, and its own flip.
    """

    padding: int = 4
    flip: float = 0.5

    def __post_init__(self) -> None:
        require("crop-flip", self, padding=Bound(whole=True), flip=SHARE)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with images cropped and flipped; with padding 0 and flip 0 the batch itself."""
        if self.padding == 0 and self.flip == 0:
            return batch
        count, device = len(batch.images), batch.images.device
        top, left = torch.randint(2 * self.padding + 1, (2, count), generator=generator, device=device)
        mirrored = torch.rand(count, generator=generator, device=device) < self.flip
        return replace(batch, images=crop(batch.images, top, left, mirrored, self.padding))
