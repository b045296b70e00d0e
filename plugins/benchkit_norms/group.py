"""Group normalisation."""

from __future__ import annotations

import torch

from benchkit import PluginError, Range, card
from benchkit_norms.standardize import PerImage


def group_count(num_channels: int, groups: int) -> int:
    """Return the largest divisor of `num_channels` that is at most `groups` and leaves two channels to a group.

    With one channel to a group, group norm would be instance norm: the usual 32 groups would be that for 16 or 32
    channels. A prime number of channels makes one group, which is layer norm.
    """
    most = max(1, min(groups, num_channels // 2))
    return next(count for count in range(most, 0, -1) if num_channels % count == 0)


@card(
    title="Group normalisation",
    summary="Channels are normalised in groups over the pixels of one image; the batch plays no part.",
    reference="Y. Wu and K. He, Group Normalization, ECCV 2018",
    url="https://arxiv.org/abs/1803.08494",
    ranges={"eps": Range(low=1e-8, high=1e-2, log=True), "groups": Range(low=1, high=64, log=True)},
)
class GroupNorm(PerImage):
    """y = weight * (x - mean) / sqrt(var + eps) + bias, mean and variance over a group's maps of one image.

    `groups` is the most groups to make; `num_groups` is how many there are, see `group_count`. With `exact` there are
    as many as `groups` says, also with one channel each, which is instance normalisation; a number that does not divide
    the channels is then refused. Weight and bias belong to channels. Training and evaluation are the same.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        groups: int = 32,
        exact: bool = False,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_channels, eps=eps, affine=affine, device=device, dtype=dtype)
        if groups < 1:
            raise PluginError(f"group norm was given groups = {groups}", hint="give a positive number, such as 32")
        if exact and num_channels % groups:
            raise PluginError(
                f"group norm was given groups = {groups} and exact = true for {num_channels} channels",
                hint="give a divisor of every layer's channels, or leave exact out",
            )
        self.num_groups = groups if exact else group_count(num_channels, groups)

    def extra_repr(self) -> str:
        """Return the options, for `print(model)`."""
        return f"{super().extra_repr()}, num_groups={self.num_groups}"
