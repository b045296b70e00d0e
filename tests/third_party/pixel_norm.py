"""Pixel norm: each pixel's vector of channels over its root mean square (Karras et al., ICLR 2018)."""

import torch
from torch import Tensor, nn


class PixelNorm(nn.Module):
    """y = x / sqrt(mean over channels of x^2 + eps) for x of shape (N, C, H, W)."""

    def __init__(self, num_channels: int, eps: float = 1e-8, device: object = None, dtype: object = None) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * (wide.square().mean(1, keepdim=True) + self.eps).rsqrt()).to(x.dtype)
