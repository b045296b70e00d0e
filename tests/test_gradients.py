"""The joint norm of gradients: against float64, and the same however many threads take it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from benchkit_regularizers.grad_clip import GradClip
from torch import nn

from benchkit.gradients import LARGE, gradient_norm


def gradients_of(*shapes: Sequence[int]) -> list[torch.Tensor]:
    drawn = [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(len(shape))) for shape in shapes]
    return [one.to(memory_format=torch.channels_last) if one.dim() == 4 else one for one in drawn]


CASES = {
    "small": [(3,), (4, 5), (8, 3, 3, 3)],
    "a large matrix": [(7,), (300, 200), (10, 300)],
    "large filters": [(64, 80, 3, 3), (64,)],
    "a large vector": [(LARGE + 1,)],
    "as large as not yet large": [(LARGE // 16, 16)],
    "a scalar and one row": [(), (1, LARGE * 2)],
}


@pytest.mark.parametrize("shapes", CASES.values(), ids=CASES)
def test_norm_is_that_of_all_numbers_together(shapes: Sequence[Sequence[int]]) -> None:
    gradients = gradients_of(*shapes)
    numbers = np.concatenate([gradient.double().numpy().ravel() for gradient in gradients])
    norm = gradient_norm(gradients)
    assert norm.shape == () and norm.dtype == torch.float32
    assert norm.item() == pytest.approx(float(np.linalg.norm(numbers)), rel=5e-6)


def test_norm_of_large_gradients_hangs_on_no_number_of_threads() -> None:
    gradients, before = gradients_of((300, 200), (64, 80, 3, 3)), torch.get_num_threads()
    norms = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            norms.append(gradient_norm(gradients).item())
    finally:
        torch.set_num_threads(before)
    assert norms == norms[:1] * 3


def test_norm_of_no_gradients_is_zero() -> None:
    assert gradient_norm([]).item() == 0.0


def test_norm_is_not_finite_where_a_large_gradient_is_not() -> None:
    broken = torch.zeros(300, 200)
    broken[123, 45] = torch.inf
    assert gradient_norm([broken]).item() == torch.inf
    broken[0, 0] = torch.nan
    assert gradient_norm([broken]).isnan()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_norm_stays_on_the_gpu() -> None:
    gradients = gradients_of((300, 200), (8, 3, 3, 3))
    there = gradient_norm([gradient.cuda() for gradient in gradients])
    assert there.is_cuda and there.item() == pytest.approx(gradient_norm(gradients).item(), rel=5e-6)


def test_clipping_scales_large_gradients_as_pytorch_does() -> None:
    ours, theirs = ([nn.Parameter(torch.zeros(300, 200)), nn.Parameter(torch.zeros(300))] for _ in range(2))
    for parameters in (ours, theirs):
        for parameter, gradient in zip(parameters, gradients_of((300, 200), (300,)), strict=True):
            parameter.grad = gradient
    GradClip(max_norm=0.5).clip(ours)
    nn.utils.clip_grad_norm_(theirs, 0.5)
    for one, other in zip(ours, theirs, strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=0)
