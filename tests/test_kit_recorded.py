"""The kit tells whether a plugin's steps would be recorded on a GPU, and which way of it was not tried."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from kit_failures import failure_of
from step_stand_ins import Counts, OptsOut, Replaces
from torch import nn

from benchkit.testing import NotApplicable, checks


def test_what_keeps_count_in_python_cannot_be_recorded() -> None:
    failure = failure_of("regularizers", Counts, "recorded")
    assert "Counts changes its attribute calls in each step" in failure.got
    assert "capturable = False" in failure.likely


def test_a_norm_that_replaces_its_tensor_cannot_be_recorded() -> None:
    assert "Replaces replaces its tensor mean in each step" in failure_of("norms", Replaces, "recorded").got


@dataclass
class CountingLoss:
    """A loss that grows with its calls."""

    calls: int = 0

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return nn.functional.cross_entropy(logits, targets) + self.calls / 64


def test_a_loss_that_keeps_count_cannot_be_recorded() -> None:
    failure = failure_of("losses", CountingLoss, "recorded")
    assert "CountingLoss changes its attribute calls in each step" in failure.got


def test_a_plugin_that_says_so_itself_is_not_held_to_it() -> None:
    with pytest.raises(NotApplicable, match="OptsOut says capturable = False"):
        dict(checks("regularizers", OptsOut))["recorded"]()


@dataclass(frozen=True)
class AsksTheTensor:
    """A penalty that does something else on a GPU, by its own question."""

    def penalty(self, model: nn.Module) -> torch.Tensor:
        weight = next(model.parameters())
        return weight.square().sum() * (1e-4 if weight.is_cuda else 2e-4)


def test_a_way_that_the_stand_in_cannot_take_is_named() -> None:
    with pytest.raises(NotApplicable, match=r"asks is_cuda, and not benchkit\.is_cpu"):
        dict(checks("regularizers", AsksTheTensor))["recorded"]()
