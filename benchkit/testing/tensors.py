"""Random maps for the checks, and differences between tensors in words."""

from __future__ import annotations

import torch
from torch import Tensor

from benchkit.testing.check import require
from benchkit.testing.subject import Subject

NOT_A_MODULE = "a `return` is missing, or it returns a function where a class derived from nn.Module is meant"
"""The likely reason of what is no module."""

NOT_FINITE = "a division by 0, the root or logarithm of what may be negative, or a number too large for its type"
"""The likely reason of values that are not finite."""

MODES = ((True, "in training"), (False, "in evaluation"))
"""A module's modes, and in words."""


def maps(
    subject: Subject, shape: tuple[int, ...], *, mean: float = 0.0, std: float = 1.0, purpose: str = "maps"
) -> Tensor:
    """Return normally distributed float32 maps of a shape (N, C, H, W); the same for the same seed and purpose."""
    generator = torch.Generator().manual_seed(subject.seed_for(f"{purpose} {shape}"))
    return torch.randn(shape, generator=generator) * std + mean


def described(x: Tensor, more: str = "") -> str:
    """Return shape and dtype of a tensor in words."""
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}{', ' + more if more else ''}"


def require_finite(x: Tensor, *, given: str, what: str = "values", likely: str = "") -> None:
    """Fail unless every value is finite."""
    wrong = int(x.detach().isfinite().logical_not().sum())
    require(
        not wrong,
        given=given,
        expected=f"finite {what}",
        got=f"{wrong} of {x.numel()} {what} not finite",
        likely=likely,
    )


def require_equal(x: Tensor, reference: Tensor, *, given: str, expected: str, likely: str = "") -> None:
    """Fail unless two tensors are equal bit for bit."""
    same = x.shape == reference.shape and x.dtype == reference.dtype and torch.equal(x, reference)
    if not same:
        _require_finite_pair(x, reference, given)
    require(same, given=given, expected=expected, got=difference(x, reference), likely=likely)


def require_close(
    x: Tensor, reference: Tensor, tolerance: float, *, given: str, expected: str, likely: str = ""
) -> None:
    """Fail unless two tensors differ by at most `tolerance` times the larger of 1 and the reference's largest value."""
    close = x.shape == reference.shape
    if close and x.numel():
        bound = tolerance * max(1.0, float(reference.detach().double().abs().max()))
        close = bool((x.detach().double() - reference.detach().double()).abs().max() <= bound)
    if not close:
        _require_finite_pair(x, reference, given)
    require(close, given=given, expected=expected, got=difference(x, reference), likely=likely)


def _require_finite_pair(x: Tensor, reference: Tensor, given: str) -> None:
    """Fail for values that are not finite, which are the reason why two tensors differ."""
    for tensor in (x, reference):
        require_finite(tensor, given=given, likely=NOT_FINITE)


def difference(x: Tensor, reference: Tensor) -> str:
    """Return how two tensors differ, in words."""
    if x.shape != reference.shape or x.dtype != reference.dtype:
        return f"{described(x)} instead of {described(reference)}"
    gap = (x.detach().double() - reference.detach().double()).abs()
    return f"largest difference {float(gap.max()):.3g}, in {int((gap != 0).sum())} of {gap.numel()} values"
