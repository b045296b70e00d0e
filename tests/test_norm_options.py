"""The options of the norms: what they are where nothing is told, what they mean, and what is refused."""

from __future__ import annotations

import pytest
import torch
from benchkit_norms.batch import BatchNorm
from benchkit_norms.group import GroupNorm, group_count
from test_norms import CHANNELS, NORMS, OURS
from torch import nn

from benchkit import PluginError, Range, card_of


@pytest.mark.parametrize(
    ("channels", "groups", "expected"),
    [(64, 32, 32), (32, 32, 16), (16, 32, 8), (48, 32, 24), (20, 32, 10), (7, 32, 1), (1, 32, 1), (64, 5, 4)],
)
def test_group_count(channels: int, groups: int, expected: int) -> None:
    assert group_count(channels, groups) == expected
    assert GroupNorm(channels, groups=groups).num_groups == expected


def test_groups_are_32_where_none_are_told_as_in_the_paper() -> None:
    assert GroupNorm(64).num_groups == 32


def test_exact_groups_are_as_many_as_told() -> None:
    """At 16 channels 16 groups are instance normalisation; without `exact` there are 8, two channels each."""
    maps = torch.randn(2, 16, 5, 5, generator=torch.Generator().manual_seed(0))
    exact, loose = GroupNorm(16, groups=16, exact=True), GroupNorm(16, groups=16)
    torch.testing.assert_close(exact(maps), nn.functional.instance_norm(maps))
    torch.testing.assert_close(loose(maps), nn.functional.group_norm(maps, 8))
    assert GroupNorm(64, groups=16, exact=True).num_groups == 16
    with pytest.raises(PluginError, match="groups = 16 and exact = true for 24 channels"):
        GroupNorm(24, groups=16, exact=True)


@pytest.mark.parametrize("name", OURS)
def test_wrong_options_and_shapes_are_named(name: str) -> None:
    with pytest.raises(PluginError, match=r"num_channels = 0.*\n.*eps = 0"):
        NORMS[name](0, eps=0)
    for shape in [(2, CHANNELS + 1, 4, 4), (2, 1, 4, 4), (2, CHANNELS)]:
        with pytest.raises(PluginError, match=rf"\(N, {CHANNELS}, H, W\) was given \({shape[0]}, {shape[1]}"):
            NORMS[name](CHANNELS)(torch.zeros(shape))


def test_wrong_momentum_and_groups_are_named() -> None:
    for momentum in (2, -0.1):
        with pytest.raises(PluginError, match=f"momentum = {momentum}"):
            BatchNorm(4, momentum=momentum)
    with pytest.raises(PluginError, match="groups = 0"):
        GroupNorm(4, groups=0)


def test_every_eps_may_be_searched_over_the_same_range() -> None:
    for name in OURS:
        card = card_of(NORMS[name])
        assert card is not None and card.ranges["eps"] == Range(low=1e-8, high=1e-2, log=True), name
