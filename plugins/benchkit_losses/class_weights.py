"""Weights of the classes in a loss: given by the study, or by how many images train has of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchkit import PluginError, TrainingError


def check_weights(loss: str, balanced: bool, given: Sequence[float]) -> None:
    """Raise `PluginError` for weights that are not finite and above 0, and where both ways of weighting are asked."""
    problems = [f"class_weights has {value!r}: expected numbers above 0" for value in given if not 0 < value < math.inf]
    if balanced and given:
        problems.append("balanced = true and class_weights are both given: expected one of them")
    if problems:
        raise PluginError(f"the loss {loss!r} was given wrong options", problems=problems)


def class_weights(counts: Tensor, balanced: bool, given: Sequence[float]) -> Tensor | None:
    """Return the weight of each class, float32 (K,) on the device of `counts`, or None where all count alike.

    Balanced weights are n / (K n_c), with n_c the n training images of a class. Raise `TrainingError` where the given
    ones are not one for each class, or balanced ones are asked of classes without a training image.
    """
    classes = len(counts)
    if given:
        if len(given) != classes:
            raise TrainingError(f"train.loss.class_weights has {len(given)} numbers: expected {classes}, one a class")
        return torch.tensor(given, dtype=torch.float32, device=counts.device)
    if not balanced:
        return None
    if absent := (counts == 0).nonzero().flatten().tolist():
        raise TrainingError(
            f"train.loss.balanced: train has no image of {len(absent)} of {classes} classes, first number {absent[0]}",
            hint="take more training images, or give train.loss.class_weights",
        )
    weights: Tensor = counts.sum().double() / (classes * counts.double())
    return weights.to(torch.float32)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Weighted:
    """A loss in which class k's share of an image counts w_k: `of` logits, targets (N, K) and `weights` (K,)."""

    of: Callable[..., Tensor]
    weights: Tensor

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        return self.of(logits, targets, weights=self.weights)

    def divisor(self, targets: Tensor) -> Tensor:
        """Return what the sum over a batch with targets (N, K) is divided by, a scalar."""
        return (targets * self.weights).sum()


def mean_over_images(losses: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean over images of what each class adds to an image's loss, losses (N, K) already times targets.

    With weights, class k's share of an image counts w_k, and the sum is divided by the sum of w_k t_nk: for one-hot
    targets the mean weighted by each image's class. In a batch of one class weights have no effect.
    """
    if weights is None:
        return losses.sum(1).mean()
    return (losses * weights).sum() / (targets * weights).sum()
