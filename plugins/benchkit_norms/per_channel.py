"""What every norm here has: the channel count, eps, and a weight and a bias for each channel."""

from __future__ import annotations

import torch
from torch import nn

from benchkit import PluginError


class PerChannel(nn.Module):
    """A module with `weight` (C), at first ones, and `bias` (C), at first zeros; both None when not `affine`."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        num_channels: int,
        eps: float,
        affine: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        problems = []
        if num_channels < 1:
            problems.append(f"num_channels = {num_channels}: expected a positive number")
        if not eps > 0:
            problems.append(f"eps = {eps}: expected a positive number")
        if problems:
            raise PluginError(f"{type(self).__name__} was given wrong options", problems=problems)
        self.num_channels = num_channels
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels, device=device, dtype=dtype)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_channels, device=device, dtype=dtype)) if affine else None

    def extra_repr(self) -> str:
        """Return the options, for `print(model)`."""
        return f"{self.num_channels}, eps={self.eps}, affine={self.weight is not None}"
