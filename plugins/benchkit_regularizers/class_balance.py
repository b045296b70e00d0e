"""Epochs in which classes occur equally often."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchkit import Range, TrainingError, card
from benchkit_regularizers.bounds import SHARE, require


def quotas(counts: Tensor, size: int, strength: float, generator: torch.Generator) -> Tensor:
    """Return how many images of each class an epoch of `size` has, int64 (K,), for `counts` (K,) images in train.

    Class k's share is n_k^(1 - strength) over the sum of these; what rounding leaves over goes to the largest
    remainders, and among equal ones to classes drawn at random.
    """
    shares = counts.to(torch.float64) ** (1 - strength)
    exact = shares * (size / shares.sum())
    whole = exact.floor().to(torch.int64)
    lottery = torch.randperm(len(counts), generator=generator)
    neediest = lottery[torch.argsort((exact - whole)[lottery].round(decimals=9), descending=True, stable=True)]
    whole[neediest[: size - int(whole.sum())]] += 1
    return whole


@card(
    title="Class-balanced sampling",
    summary="Each epoch shows as many images as there are, but of every class equally many: those of rare classes "
    "several times, those of frequent classes not all.",
    reference="L. Shen, Z. Lin and Q. Huang, Relay Backpropagation for Effective Learning of Deep Convolutional Neural "
    "Networks, ECCV 2016, section 4",
    url="https://arxiv.org/abs/1512.05830",
    ranges={"strength": Range(low=0.0, high=1.0)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class BalancedSampling:
    """Of class k, with n_k training images, an epoch has a share of n_k^(1 - `strength`) over the sum of these.

    At strength 1 all classes are alike, at 1/2 shares go by the square root, at 0 every image comes once, as without
    it. The images of a class come in a random order, none twice before all have come. An epoch's length stays.
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        require("class-balance", self, strength=SHARE)

    def batch_sampling(self, labels: Tensor, classes: int, size: int, generator: torch.Generator) -> Tensor:
        """Return the images of an epoch; raise `TrainingError` for a class without a training image."""
        if self.strength == 0:
            return torch.randperm(len(labels), generator=generator)[:size]
        counts = torch.bincount(labels, minlength=classes)
        if absent := (counts == 0).nonzero().flatten().tolist():
            raise TrainingError(
                f"class-balance: train has no image of {len(absent)} of {classes} classes, first number {absent[0]}",
                hint="take more training images, or leave the class out",
            )
        drawn = []
        for label, wanted in enumerate(quotas(counts, size, self.strength, generator).tolist()):
            members = (labels == label).nonzero().flatten()
            rounds = -(-wanted // len(members))
            orders = [members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)]
            drawn.append(torch.cat([members[:0], *orders])[:wanted])
        together = torch.cat(drawn)
        return together[torch.randperm(size, generator=generator)]
