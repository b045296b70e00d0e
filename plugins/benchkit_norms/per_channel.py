"""What every norm here has for each channel: a weight and a bias, and running statistics where it keeps them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchkit import PluginError
from benchkit_norms.feature_maps import by_channel
from benchkit_norms.standardize import group_standardize


class PerChannel(nn.Module):
    """A module with `weight` (C), at first ones, and `bias` (C), at first zeros; both None when not `affine`."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        num_channels: int,
        *,
        eps: float = 1e-5,
        affine: bool = True,
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

    def check(self, x: Tensor) -> None:
        """Raise `PluginError` unless x is (N, num_channels, H, W)."""
        if x.dim() != 4 or x.shape[1] != self.num_channels:
            raise PluginError(
                f"a norm made for (N, {self.num_channels}, H, W) was given {tuple(x.shape)}",
                hint="pass the number of channels of the maps that reach the norm; add H = W = 1 to plain features",
            )

    def affine(self, x: Tensor) -> Tensor:
        """Return weight * x + bias, x itself when there are none."""
        if self.weight is None or self.bias is None:
            return x
        return by_channel(self.weight) * x + by_channel(self.bias)

    def extra_repr(self) -> str:
        """Return the options, for `print(model)`."""
        return f"{self.num_channels}, eps={self.eps}, affine={self.weight is not None}"


class PerImage(PerChannel):
    """A norm of each image by itself: its channels make equal groups, each with one mean and variance."""

    num_groups: int = 0
    """0 makes each channel a group of its own."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x (N, C, H, W), in its dtype; raise `PluginError` for another shape."""
        self.check(x)
        return group_standardize(x, self.weight, self.bias, self.num_groups or self.num_channels, self.eps)

    def plain(self, x: Tensor) -> Tensor:
        """Return what `forward` does, as the formula says: in x's dtype."""
        sets = x.reshape(len(x), self.num_groups or self.num_channels, -1)
        mean, variance = sets.mean(2, keepdim=True), sets.var(2, correction=0, keepdim=True)
        return self.affine(((sets - mean) / torch.sqrt(variance + self.eps)).view(x.shape))


class Running(PerChannel):
    """Buffers `running_mean` and `running_var` (C) and `num_batches_tracked`, by the conventions of `nn.BatchNorm2d`.

    running <- (1 - momentum) * running + momentum * batch, with the unbiased variance, begun at mean 0 and variance 1.
    The names are the framework's too, so that a state dict moves from one layer to the other and back.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_channels, eps=eps, affine=affine, device=device, dtype=dtype)
        if not 0 <= momentum <= 1:
            raise PluginError(f"{type(self).__name__} was given momentum = {momentum}", hint="give 0 to 1, such as 0.1")
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(num_channels, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones(num_channels, device=device, dtype=dtype))
        self.register_buffer("num_batches_tracked", torch.zeros((), device=device, dtype=torch.long))

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance (1, C, 1, 1) that normalise x: its own in training, else the running ones."""
        if self.training:
            return x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        return by_channel(self.running_mean), by_channel(self.running_var)

    def track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the statistics towards a batch's mean and biased variance (1, C, 1, 1), taken over `count` values."""
        with torch.no_grad():
            unbiased = variance.view(-1) * (count / max(count - 1, 1))
            self.running_mean.lerp_(mean.view(-1).to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)

    def extra_repr(self) -> str:
        """Return the options, for `print(model)`."""
        return f"{super().extra_repr()}, momentum={self.momentum}"
