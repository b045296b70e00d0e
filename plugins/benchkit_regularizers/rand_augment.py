"""RandAugment."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from benchkit import Batch, Range, card
from benchkit_regularizers.bounds import SHARE, Bound, require
from benchkit_regularizers.image_operations import number, strengths, transform

STRONGEST = 30.0
"""The magnitude at which operations are as strong as AutoAugment lets them be."""


@card(
    title="RandAugment",
    summary="Each image goes through a few image operations drawn at random, all of one magnitude.",
    reference="E. D. Cubuk, B. Zoph, J. Shlens and Q. V. Le, RandAugment: Practical Automated Data Augmentation with a "
    "Reduced Search Space, NeurIPS 2020",
    url="https://arxiv.org/abs/1909.13719",
    ranges={
        "operations": Range(low=0, high=4),
        "magnitude": Range(low=0.0, high=STRONGEST),
        "fill": Range(low=0.0, high=1.0),
    },
)
@dataclass(frozen=True, slots=True, kw_only=True)
class RandAugment:
    """Apply `operations` (N in the paper) of fourteen operations, one after the other, at `magnitude` (M) of 0 to 30.

    The fourteen: identity, shears, translations, rotation, brightness, color, contrast, sharpness, posterize, solarize,
    autocontrast and equalize. Each image draws its own, and its own signs. What comes in from outside the image is
    `fill`, grey as in the paper's code.
    """

    operations: int = 2
    magnitude: float = 9.0
    fill: float = 0.5

    def __post_init__(self) -> None:
        require("rand-augment", self, operations=Bound(whole=True), magnitude=Bound(high=STRONGEST), fill=SHARE)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with images changed and targets as they are; with no operations the batch itself."""
        images = batch.images
        count, device = len(images), images.device
        for _ in range(self.operations):
            operation = torch.randint(number("invert"), (count,), generator=generator, device=device)
            negative = torch.rand(count, generator=generator, device=device) < 0.5
            level = torch.full((count,), self.magnitude / STRONGEST, device=device)
            strength = strengths(operation, level, negative, *images.shape[2:])
            images = transform(images, operation, strength, self.fill)
        return batch if self.operations == 0 else replace(batch, images=images)
