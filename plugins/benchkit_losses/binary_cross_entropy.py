"""Binary cross-entropy, one yes or no for each class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor
from torch.nn import functional

from benchkit import Loss, card
from benchkit_losses.class_weights import check_weights, class_weights


@card(
    title="Binary cross-entropy",
    summary="Each class is a yes or no of its own, by the sigmoid of its logit; averaged over images and classes, so "
    "that its gradients are about K times smaller than those of cross-entropy over K classes.",
    reference="R. Wightman, H. Touvron and H. Jégou, ResNet Strikes Back: An Improved Training Procedure in timm, "
    "NeurIPS Workshop ImageNet PPF 2021",
    url="https://arxiv.org/abs/2110.00476",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryCrossEntropy:
    """L = sum_n sum_k w_k b_nk / (N sum_k w_k), b = -t log s - (1 - t) log(1 - s), s the sigmoid, t targets.

    It is a mean over N images and K classes. All w_k are 1, or with `balanced` n / (K n_c), with n_c of the n training
    images of class c, or what `class_weights` say, a number for each class in label order.
    """

    balanced: bool = False
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_weights("binary-cross-entropy", self.balanced, self.class_weights)

    def prepare(self, counts: Tensor) -> Loss:
        """Return the loss with the weights that `counts` (K,), images of each class in train, and the options give."""
        weights = class_weights(counts, self.balanced, self.class_weights)
        return self if weights is None else partial(_weighted, weights=weights)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits and targets (N, K) with every class alike."""
        return functional.binary_cross_entropy_with_logits(logits, targets)


def _weighted(logits: Tensor, targets: Tensor, *, weights: Tensor) -> Tensor:
    each = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (each * weights).sum() / (len(logits) * weights.sum())
