"""Cross-entropy, with or without class weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from benchkit import Loss, card
from benchkit_losses.class_weights import Weighted, check_weights, class_weights, mean_over_images


@card(
    title="Cross-entropy",
    summary="The negative logarithm of the probability that the model gives to an image's class, averaged over images.",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEntropy:
    """L = sum_n sum_k w_k t_nk (-log p_nk) / sum_n sum_k w_k t_nk, with p the softmax of the logits and targets t.

    All w_k are 1, or with `balanced` n / (K n_c), with n_c of the n training images of class c, or what `class_weights`
    say, a number for each class in label order. One-hot targets give what class indices give in PyTorch.
    """

    balanced: bool = False
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_weights("cross-entropy", self.balanced, self.class_weights)

    def prepare(self, counts: Tensor) -> Loss:
        """Return the loss with the weights that `counts` (K,), images of each class in train, and the options give."""
        weights = class_weights(counts, self.balanced, self.class_weights)
        return self if weights is None else Weighted(of=_weighted, weights=weights)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits and targets (N, K) with every class alike."""
        return functional.cross_entropy(logits, targets)


def _weighted(logits: Tensor, targets: Tensor, *, weights: Tensor) -> Tensor:
    return mean_over_images(-targets * logits.log_softmax(1), targets, weights)
