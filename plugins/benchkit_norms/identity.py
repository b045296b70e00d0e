"""No normalisation, as a norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchkit import card


@card(
    title="No normalisation",
    summary="The maps pass unchanged: the baseline that shows what a norm is worth.",
)
class Identity(nn.Module):
    """Return the input itself; it has no parameters.

    `weight` and `bias` are None, so that model code which initialises a norm's weight finds that there is none.
    """

    weight: None
    bias: None

    def __init__(
        self, num_channels: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.weight = None
        self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    def extra_repr(self) -> str:
        """Return the channel count, for `print(model)`."""
        return str(self.num_channels)
