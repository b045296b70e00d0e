"""Losses that each break one promise, for the tests of the conformance kit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchkit import Range, card


@dataclass
class NotFrozen:
    """Not frozen."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets)


@dataclass(frozen=True)
class EachImage:
    """A loss for each image."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return -(targets * logits.log_softmax(1)).sum(1)


@dataclass(frozen=True)
class LogOfSoftmax:
    """The logarithm of a probability that is 0."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return -(targets * logits.softmax(1).log()).sum(1).mean()


@dataclass(frozen=True)
class ByPlace:
    """The first image counts most."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        each = -(targets * logits.log_softmax(1)).sum(1)
        return (each / torch.arange(1, len(each) + 1)).mean()


@dataclass(frozen=True)
class Summed:
    """A sum where a mean is meant."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets, reduction="sum")


@dataclass(frozen=True)
class DividedByTargets:
    """A mean over the weights of the targets' classes, which nobody is told."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        weights = 1.0 + torch.arange(targets.shape[1])
        return -(weights * targets * logits.log_softmax(1)).sum() / (weights * targets).sum()


@dataclass(frozen=True)
class TellsItsDivisor(DividedByTargets):
    """The same, told."""

    def divisor(self, targets: Tensor) -> Tensor:
        return ((1.0 + torch.arange(targets.shape[1])) * targets).sum()


@dataclass(frozen=True)
class Hardened:
    """Only the largest target counts."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets.argmax(1))


@dataclass(frozen=True)
class WrongSign:
    """The likelihood where its negative is meant."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return -functional.cross_entropy(logits, targets)


@dataclass(frozen=True)
class Random:
    """Noise on the logits."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits + torch.randn(logits.shape), targets)


@dataclass(frozen=True)
class InPlace:
    """Smooths the caller's targets."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets.mul_(0.9))


@dataclass(frozen=True)
class Cut:
    """No gradient comes through."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits.detach(), targets) + 0 * logits.sum()


@dataclass(frozen=True)
class Counts:
    """A count that no checkpoint has."""

    calls: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "calls", [])

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        self.calls.append(1)
        return functional.cross_entropy(logits, targets) * (1 if len(self.calls) < 12 else 2)


@card(title="Narrow", summary="A range that it refuses.", ranges={"size": Range(low=0.0, high=2.0)})
@dataclass(frozen=True)
class RefusesItsRange:
    """Only up to 1."""

    size: float = 1.0

    def __post_init__(self) -> None:
        if self.size > 1:
            raise ValueError("expected 0 to 1")

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(self.size * logits, targets)


@dataclass(frozen=True)
class LooksAtNumbers:
    """Decides by a value."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss = functional.cross_entropy(logits, targets)
        return loss if loss.item() < 5 else loss / 2
