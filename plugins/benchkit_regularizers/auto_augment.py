"""AutoAugment with the policy that was found for CIFAR-10."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from benchkit import Batch, Range, card
from benchkit_regularizers.bounds import SHARE, require
from benchkit_regularizers.image_operations import number, strengths, transform

POLICY = """
invert 1 7, contrast 2 6
rotate 7 2, translate-x 3 9
sharpness 8 1, sharpness 9 3
shear-y 5 8, translate-y 7 9
autocontrast 5 8, equalize 9 2
shear-y 2 7, posterize 3 7
color 4 3, brightness 6 7
sharpness 3 9, brightness 7 9
equalize 6 5, equalize 5 1
contrast 6 7, sharpness 6 5
color 7 7, translate-x 5 8
equalize 3 7, autocontrast 4 8
translate-y 4 3, sharpness 2 6
brightness 9 6, color 2 8
solarize 5 2, invert 0 3
equalize 2 0, autocontrast 6 0
equalize 2 8, equalize 6 4
color 9 9, equalize 6 6
autocontrast 8 4, solarize 2 8
brightness 1 3, color 7 0
solarize 4 5, autocontrast 9 3
translate-y 9 9, translate-y 7 9
autocontrast 9 2, solarize 8 3
equalize 8 8, invert 1 3
translate-y 7 9, autocontrast 9 1
"""
"""The paper's table 7: 25 pairs of an operation, its probability in tenths, and its level in 0..9."""


@card(
    title="AutoAugment (CIFAR-10 policy)",
    summary="Each image goes through one of 25 pairs of image operations that a search found for CIFAR-10.",
    reference="E. D. Cubuk, B. Zoph, D. Mane, V. Vasudevan and Q. V. Le, AutoAugment: Learning Augmentation Strategies "
    "from Data, CVPR 2019",
    url="https://arxiv.org/abs/1805.09501",
    ranges={"probability": Range(low=0.0, high=1.0), "fill": Range(low=0.0, high=1.0)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class AutoAugment:
    """With `probability`, apply one of the 25 sub-policies, drawn uniformly: two operations, each by its own chance.

    Each image draws its own sub-policy, chances and signs. What comes in from outside the image is `fill`.
    """

    probability: float = 1.0
    fill: float = 0.5

    def __post_init__(self) -> None:
        require("auto-augment", self, probability=SHARE, fill=SHARE)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with images changed and targets as they are; at probability 0 the batch itself."""
        if self.probability == 0:
            return batch
        images = batch.images
        count, device = len(images), images.device
        policy = policy_table(device)
        chosen = torch.randint(len(policy), (count,), generator=generator, device=device)
        chance = torch.rand(3, count, generator=generator, device=device)
        negative = torch.rand(2, count, generator=generator, device=device) < 0.5
        takes_part = chance[2] < self.probability
        for at in range(2):
            operation, probability, level = policy[:, at].index_select(0, chosen).unbind(1)
            applied = torch.where(takes_part & (chance[at] < probability), operation.long(), number("identity"))
            strength = strengths(applied, level, negative[at], *images.shape[2:])
            images = transform(images, applied, strength, self.fill)
        return replace(batch, images=images)


@cache
def policy_table(device: torch.device) -> Tensor:
    """Return the policy, float32 (25, 2, 3): index of the operation, probability, level in 0..1; kept per device."""
    pairs = [[step.split() for step in line.split(",")] for line in POLICY.strip().splitlines()]
    rows = [[(number(name), int(tenths) / 10, int(level) / 9) for name, tenths, level in pair] for pair in pairs]
    return torch.tensor(rows, dtype=torch.float32, device=device)
