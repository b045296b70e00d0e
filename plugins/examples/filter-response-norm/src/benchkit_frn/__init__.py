"""Filter response normalisation with thresholded linear units, as a norm for benchkit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchkit import PluginError, Range, card


@card(
    title="Filter response normalisation",
    summary="Each channel of each image is divided by its root mean square, then cut off below a learned threshold.",
    reference="S. Singh and S. Krishnan, Filter Response Normalization Layer: Eliminating Batch Dependence in the "
    "Training of Deep Neural Networks, CVPR 2020",
    url="https://arxiv.org/abs/1911.09737",
    ranges={"eps": Range(low=1e-8, high=1e-2, log=True)},
)
class FilterResponseNorm(nn.Module):
    """y = max(weight * x / sqrt(nu + eps) + bias, threshold), nu the mean of x^2 over H and W (FRN and TLU).

    The mean is not subtracted. `threshold` is a learned number for each channel, at first 0, at which the TLU is a
    ReLU; with `tlu` false there is no cut-off. `eps` is a constant. Where maps have one pixel, nu is x^2 and the sign
    of x is all that is left; the paper learns eps there, which this norm does not.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        eps: float = 1e-6,
        tlu: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not eps > 0:
            raise PluginError(f"frn: eps = {eps}: expected a positive number")
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(num_channels, device=device, dtype=dtype))
        self.threshold = nn.Parameter(torch.zeros(num_channels, device=device, dtype=dtype)) if tlu else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x (N, C, H, W), in its dtype; the mean square is float32 or wider."""
        wide = x if x.dtype == torch.float64 else x.float()
        nu = wide.square().mean((2, 3), keepdim=True)
        y = by_channel(self.weight) * (wide * torch.rsqrt(nu + self.eps)) + by_channel(self.bias)
        if self.threshold is not None:
            y = torch.maximum(y, by_channel(self.threshold))
        return y.to(x.dtype)


def by_channel(vector: Tensor) -> Tensor:
    """Return a vector (C) as (1, C, 1, 1)."""
    return vector.view(1, -1, 1, 1)
