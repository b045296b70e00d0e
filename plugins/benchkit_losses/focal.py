"""The focal loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchkit import Loss, PluginError, Range, card
from benchkit_losses.class_weights import Weighted, check_weights, class_weights, mean_over_images


@card(
    title="Focal loss",
    summary="Cross-entropy in which an image counts the less, the surer the model is of its class.",
    reference="T.-Y. Lin, P. Goyal, R. Girshick, K. He and P. Dollár, Focal Loss for Dense Object Detection, ICCV 2017",
    url="https://arxiv.org/abs/1708.02002",
    ranges={"gamma": Range(low=0.0, high=5.0)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Focal:
    """L = sum_n sum_k w_k t_nk (1 - p_nk)^gamma (-log p_nk) / sum_n sum_k w_k t_nk, p the softmax, t targets.

    `gamma` 0 is cross-entropy. All w_k are 1, or with `balanced` n / (K n_c), with n_c of the n training images of
    class c, or what `class_weights` say, a number for each class in label order.
    """

    gamma: float = 2.0
    balanced: bool = False
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < math.inf:
            raise PluginError(f"focal: gamma = {self.gamma}: expected a number from 0 up")
        check_weights("focal", self.balanced, self.class_weights)

    def prepare(self, counts: Tensor) -> Loss:
        """Return the loss with the weights that `counts` (K,), images of each class in train, and the options give."""
        weights = class_weights(counts, self.balanced, self.class_weights)
        return self if weights is None else Weighted(of=partial(_focal, gamma=self.gamma), weights=weights)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits and targets (N, K) with every class alike."""
        return _focal(logits, targets, gamma=self.gamma, weights=None)


def _focal(logits: Tensor, targets: Tensor, *, gamma: float, weights: Tensor | None) -> Tensor:
    logs = logits.log_softmax(1)
    # Below 1, gamma's power has no finite slope at 0: there the clamp has slope 0, and the loss as well.
    unsure = (-torch.expm1(logs)).clamp_min(torch.finfo(logs.dtype).tiny)
    return mean_over_images(-targets * unsure**gamma * logs, targets, weights)
