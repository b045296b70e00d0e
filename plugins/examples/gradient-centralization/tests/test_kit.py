"""The conformance kit on gradient-centralization, and its values worked by hand."""

import torch
from benchkit_gc import GradientCentralization
from torch import nn

from benchkit.testing import Check, parametrize_checks


@parametrize_checks("regularizers", "gradient-centralization")
def test_kit(check: Check) -> None:
    """Every promise that benchkit makes for a regularizer holds."""
    check()


def test_values() -> None:
    """Rows lose their mean, or half of it, and vectors stay."""
    weight, bias = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(2))
    weight.grad, bias.grad = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]]), torch.tensor([1.0, 3.0])
    GradientCentralization().clip([weight, bias])
    assert weight.grad.tolist() == [[-2.0, -1.0, 3.0], [-1.0, -1.0, 2.0]]
    assert bias.grad.tolist() == [1.0, 3.0]
    weight.grad = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    GradientCentralization(strength=0.5).clip([weight, bias])
    assert weight.grad.tolist() == [[-0.5, 0.5, 4.5], [-0.5, -0.5, 2.5]]
    GradientCentralization(linear=False).clip([weight])
    assert weight.grad.tolist() == [[-0.5, 0.5, 4.5], [-0.5, -0.5, 2.5]]
