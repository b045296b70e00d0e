"""Label smoothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchkit import Batch, Range, card
from benchkit_regularizers.bounds import SHARE, require


def smooth(targets: Tensor, smoothing: float) -> Tensor:
    """Return (1 - smoothing) * targets + smoothing / K for targets (N, K), whose rows still sum to 1."""
    return targets * (1 - smoothing) + smoothing / targets.shape[1]


@card(
    title="Label smoothing",
    summary="Targets give up a share of the true class's probability, spread evenly over all classes.",
    reference="C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens and Z. Wojna, Rethinking the Inception Architecture for "
    "Computer Vision, CVPR 2016",
    url="https://arxiv.org/abs/1512.00567",
    ranges={"smoothing": Range(low=0.0, high=0.5)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSmoothing:
    """Targets t become (1 - `smoothing`) t + `smoothing` / K."""

    smoothing: float = 0.1

    def __post_init__(self) -> None:
        require("label-smoothing", self, smoothing=SHARE)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with smoothed targets; it draws no random number. At smoothing 0 the batch itself."""
        if self.smoothing == 0:
            return batch
        return replace(batch, targets=smooth(batch.targets, self.smoothing))
