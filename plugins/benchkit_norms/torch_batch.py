"""The framework's batch norm, as a norm: the reference beside our own."""

from __future__ import annotations

import torch
from torch import nn

from benchkit import Range, card


@card(
    title="Batch normalisation (PyTorch)",
    summary="PyTorch's own batch normalisation layer, the reference for ours.",
    reference="S. Ioffe and C. Szegedy, Batch Normalization: Accelerating Deep Network Training by Reducing Internal "
    "Covariate Shift, ICML 2015",
    url="https://arxiv.org/abs/1502.03167",
    ranges={"eps": Range(low=1e-8, high=1e-2, log=True), "momentum": Range(low=0.001, high=1.0, log=True)},
)
def torch_batch_norm(
    num_channels: int,
    *,
    eps: float = 1e-5,
    momentum: float = 0.1,
    affine: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.BatchNorm2d:
    """Return `torch.nn.BatchNorm2d`; it raises `ValueError` in training when a channel has a single value."""
    return nn.BatchNorm2d(num_channels, eps=eps, momentum=momentum, affine=affine, device=device, dtype=dtype)
