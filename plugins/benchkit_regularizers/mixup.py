"""Mixup."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchkit import Batch, Range, card
from benchkit_regularizers.bounds import AT_LEAST_0, require
from benchkit_regularizers.pairing import beta_share, partners, take


def mix(batch: Batch, partner: Tensor, share: Tensor) -> Batch:
    """Return share * batch + (1 - share) * its partners, images and targets alike; partner int64 (N,), share scalar."""
    images, targets = batch.images, batch.targets
    rest = 1 - share
    return Batch(
        images=torch.lerp(images, take(images, partner), rest.to(images.dtype)),
        targets=torch.lerp(targets, targets.index_select(0, partner), rest.to(targets.dtype)),
    )


@card(
    title="Mixup",
    summary="Each image is blended with another one of the batch, and its target in the same proportion.",
    reference="H. Zhang, M. Cisse, Y. N. Dauphin and D. Lopez-Paz, mixup: Beyond Empirical Risk Minimization, ICLR "
    "2018",
    url="https://arxiv.org/abs/1710.09412",
    ranges={"alpha": Range(low=0.05, high=2.0, log=True)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Mixup:
    """x <- l x + (1 - l) x', t <- l t + (1 - l) t', with one l from Beta(`alpha`, `alpha`) for the batch.

    The partners x' are the batch in a random order. The larger alpha, the nearer l is to one half.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        require("mixup", self, alpha=AT_LEAST_0)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the mixed batch; at alpha 0, where l is 1, the batch itself."""
        if self.alpha == 0:
            return batch
        share = beta_share(self.alpha, generator)
        return mix(batch, partners(len(batch.images), generator), share)
