"""CutMix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchkit import Batch, Range, card
from benchkit_regularizers.bounds import AT_LEAST_0, require
from benchkit_regularizers.pairing import beta_share, partners, take


def box(share: Tensor, centre: Tensor, height: int, width: int) -> Tensor:
    """Return a mask, bool (height, width), that is true inside the box to be replaced.

    The box is centred on `centre` (2,), fractions in [0, 1) of height and width, and would take 1 - share of the area
    (a scalar in [0, 1]) if it were not clipped at the borders. As in the paper its sides are sqrt(1 - share) of the
    image's, rounded down to an even number of pixels, half of them on each side of the centre.
    """
    side = (1 - share).sqrt()
    return _within(side, centre[0], height)[:, None] & _within(side, centre[1], width)


def _within(side: Tensor, centre: Tensor, length: int) -> Tensor:
    """Return which of 0..length-1 lie in a span of side * length around centre * length, bool (length,)."""
    half = (side * length).floor().div(2).floor()
    distance = torch.arange(length, device=side.device) - (centre * length).floor()
    return (distance >= -half) & (distance < half)


def paste(batch: Batch, partner: Tensor, inside: Tensor) -> Batch:
    """Return the batch with its partners' pixels where `inside` (H, W) is true, and targets mixed by that area."""
    images, targets = batch.images, batch.targets
    replaced = inside.to(targets.dtype).mean()
    return Batch(
        images=torch.where(inside, take(images, partner), images),
        targets=torch.lerp(targets, targets.index_select(0, partner), replaced),
    )


@card(
    title="CutMix",
    summary="A box of each image is replaced by that of another one, and the target mixed by the share of the area.",
    reference="S. Yun, D. Han, S. J. Oh, S. Chun, J. Choe and Y. Yoo, CutMix: Regularization Strategy to Train Strong "
    "Classifiers with Localizable Features, ICCV 2019",
    url="https://arxiv.org/abs/1905.04899",
    ranges={"alpha": Range(low=0.05, high=2.0, log=True)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class CutMix:
    """A box of area 1 - l, l from Beta(`alpha`, `alpha`), moves between images; one l and one box for the batch.

    The box's centre is uniform over the image and the box clipped at its borders, so that targets are mixed by the
    area truly replaced. The partners are the batch in a random order.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        require("cutmix", self, alpha=AT_LEAST_0)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with boxes exchanged; at alpha 0, where l is 1, the batch itself."""
        if self.alpha == 0:
            return batch
        share = beta_share(self.alpha, generator)
        centre = torch.rand(2, generator=generator, device=generator.device)
        inside = box(share, centre, *batch.images.shape[2:])
        return paste(batch, partners(len(batch.images), generator), inside)
