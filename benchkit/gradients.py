"""The joint norm of gradients, which a step records and a regularizer may clip by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils import get_total_norm

from benchkit.device_kind import is_cpu

LARGE = 32_768
"""From more numbers on than these, PyTorch shares a tensor out among the threads of a CPU."""


def gradient_norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the Euclidean norm of all gradients together, sqrt(sum g^2), a scalar on their device; 0 for none.

    It is PyTorch's `torch.nn.utils.get_total_norm` up to rounding, but faster on a CPU. That groups gradients by device
    and type first, which takes a noticeable part of a small network's step. And one thread reads each of them, which
    takes large ones out of the caches of the threads that made them and update the weights by them next: here a large
    gradient's norm is taken of the norms of its rows, the slices [i] of a gradient of two dimensions or more.
    """
    if gradients and all(map(is_cpu, gradients)):
        norm = torch.linalg.vector_norm
        total: torch.Tensor = norm(torch.stack([norm(_row_norms(gradient)) for gradient in gradients]))
        return total
    return get_total_norm(gradients)


def _row_norms(gradient: torch.Tensor) -> torch.Tensor:
    """Return a large gradient's norms of rows; any other gradient as it is, whose norm is the same."""
    if gradient.numel() <= LARGE or gradient.dim() < 2:
        return gradient
    norms: torch.Tensor = torch.linalg.vector_norm(gradient, dim=tuple(range(1, gradient.dim())))
    return norms
