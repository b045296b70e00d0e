"""The fast ways of our norms, held to the plain form of each; the framework's kernels among them: what they move."""

from __future__ import annotations

import pytest
import torch
from benchkit_norms import native_kernels
from benchkit_norms.batch import BatchNorm
from benchkit_norms.batch_instance import BatchInstanceNorm
from benchkit_norms.group import GroupNorm
from benchkit_norms.instance import InstanceNorm
from benchkit_norms.layer import LayerNorm
from torch.nn import functional

from benchkit import PluginError


@pytest.mark.parametrize("kind", [BatchNorm, BatchInstanceNorm, GroupNorm, InstanceNorm, LayerNorm])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_the_plain_form_is_what_forward_computes(kind: type, training: bool, affine: bool) -> None:
    norm = kind(6, eps=0.3, affine=affine, dtype=torch.float64).train(training)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in (*norm.parameters(), *norm.buffers()):
            value.copy_(torch.rand(value.shape, generator=generator) * 0.8 + 0.1)
    x = torch.randn(4, 6, 5, 7, generator=generator, dtype=torch.float64).mul(3).add(2).requires_grad_()
    fast, plain = norm(x), norm.plain(x)
    torch.testing.assert_close(fast, plain, rtol=1e-11, atol=1e-11)
    upstream = torch.linspace(-1, 2, x.numel(), dtype=torch.float64).view(x.shape)
    values = [x, *norm.parameters()]
    found, expected = torch.autograd.grad(fast, values, upstream), torch.autograd.grad(plain, values, upstream)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("side", [6, 3])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("by_kernels", [True, False])
def test_both_forms_of_batch_instance_norm_are_its_plain_one_in_float64(
    by_kernels: bool, layout: torch.memory_format, affine: bool, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_kernels, "usable_for_both", lambda *_: by_kernels)
    norm, exact = (BatchInstanceNorm(6, affine=affine, dtype=dtype) for dtype in (torch.float32, torch.float64))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in (*norm.parameters(), norm.running_mean, norm.running_var):
            value.copy_(torch.rand(value.shape, generator=generator) * 0.8 + 0.1)
    exact.load_state_dict(norm.state_dict())
    x = (torch.randn(8, 6, side, side, generator=generator) * 2 + 1).contiguous(memory_format=layout).requires_grad_()
    wide = x.detach().double().requires_grad_()
    upstream = torch.linspace(-1, 2, x.numel()).view(x.shape)
    # A CPU's kernel adds channels-last maps up value by value; CUDA's, for which this form is, does not.
    tolerance = 1e-5 if by_kernels and layout == torch.channels_last else 1e-6
    fast, plain = norm(x), exact.plain(wide)
    found = [fast, *torch.autograd.grad(fast, [x, *norm.parameters()], upstream)]
    expected = [plain, *torch.autograd.grad(plain, [wide, *exact.parameters()], upstream.double())]
    exact.track(*(exact.statistics(wide.detach())), x.numel() // 6)
    for ours, reference in zip((*found, *norm.buffers()), (*expected, *exact.buffers()), strict=True):
        distance = (ours.double() - reference.double()).norm().item()
        assert distance <= tolerance * max(reference.double().norm().item(), 1.0)
    assert fast.is_contiguous(memory_format=layout) and found[1].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_batch_norm_moves_its_averages_once(offset: float) -> None:
    norm = BatchNorm(6, momentum=0.25)
    seeded = torch.Generator().manual_seed(0)
    x = (torch.randn(4, 6, 5, 5, generator=seeded) + offset).contiguous(memory_format=torch.channels_last)
    unmoved = torch.zeros(6), torch.ones(6)
    norm(x)
    mean, variance = x.double().mean((0, 2, 3)), x.double().var((0, 2, 3), unbiased=True)
    torch.testing.assert_close(norm.running_mean.double(), 0.25 * mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(norm.running_var.double(), 0.75 + 0.25 * variance, rtol=5e-5, atol=0)
    assert norm.num_batches_tracked == 1
    if offset:
        assert native_kernels.batch_norm(x, None, None, unmoved, 0.25, 1e-5) is None
        assert torch.equal(torch.cat(unmoved), torch.tensor([0.0] * 6 + [1.0] * 6))


def test_group_norm_at_a_far_mean_is_ours() -> None:
    x = (torch.randn(2, 6, 4, 4) + 1000).contiguous(memory_format=torch.channels_last)
    assert native_kernels.by_groups(x, None, None, 3, 1e-5) is None
    found = native_kernels.by_groups(x - 1000, None, None, 3, 1e-5) or ()
    torch.testing.assert_close(found[1], (x - 1000).view(2, 3, 2, 4, 4).mean((2, 3, 4)), rtol=0, atol=1e-3)
    assert native_kernels.by_groups((x - 1000).bfloat16(), None, None, 3, 1e-5) is None


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_instance_norm_of_large_maps_in_low_precision(layout: torch.memory_format, offset: float) -> None:
    generator = torch.Generator().manual_seed(3)
    x = (torch.randn(3, 5, 16, 16, generator=generator) + offset).bfloat16().contiguous(memory_format=layout)
    norm = InstanceNorm(5)
    torch.nn.init.normal_(norm.weight, generator=generator)
    assert native_kernels.usable_by_map(x, norm.weight) and not native_kernels.usable_by_map(x[..., :8], norm.weight)
    given, wide = x.clone().requires_grad_(), x.double().requires_grad_()
    output, upstream = norm(given), torch.randn(x.shape, generator=generator).bfloat16()
    output.backward(upstream)
    expected = functional.layer_norm(wide, (16, 16), eps=norm.eps) * norm.weight.double().view(1, -1, 1, 1)
    expected.backward(upstream.double())
    assert output.dtype == torch.bfloat16 and output.is_contiguous(memory_format=layout)
    # A step of bfloat16 is 2**-8 of a value; gradients are sums of products of such values.
    torch.testing.assert_close(output.double(), expected, rtol=2**-7, atol=2**-7)
    assert given.grad is not None and wide.grad is not None
    torch.testing.assert_close(given.grad.double(), wide.grad, rtol=2**-5, atol=2**-5)


def test_the_frameworks_instance_norm_is_for_large_maps_in_low_precision() -> None:
    """Maps of 256 values are large, whatever their sides."""

    def taken(height: int, width: int, dtype: torch.dtype = torch.bfloat16) -> bool:
        return native_kernels.usable_by_map(torch.zeros(1, 3, height, width, dtype=dtype))

    assert taken(16, 16) and taken(1, 256) and taken(256, 1) and taken(32, 32)
    assert not taken(15, 17) and not taken(1, 20) and not taken(20, 1)
    assert not taken(16, 16, torch.float32) and not taken(16, 16, torch.float64)


@pytest.mark.parametrize(
    ("norm", "words"),
    [
        (BatchNorm(4), "BatchNorm(4, eps=1e-05, affine=True, momentum=0.1)"),
        (BatchInstanceNorm(4, momentum=0.0), "BatchInstanceNorm(4, eps=1e-05, affine=True, momentum=0.0)"),
        (GroupNorm(64), "GroupNorm(64, eps=1e-05, affine=True, num_groups=32)"),
        (InstanceNorm(4, affine=False), "InstanceNorm(4, eps=1e-05, affine=False)"),
        (LayerNorm(4, eps=0.5), "LayerNorm(4, eps=0.5, affine=True)"),
    ],
)
def test_a_printed_norm_names_its_options(norm: torch.nn.Module, words: str) -> None:
    assert repr(norm) == words


@pytest.mark.parametrize("momentum", [-0.1, 1.1])
def test_a_momentum_is_from_0_to_1(momentum: float) -> None:
    with pytest.raises(PluginError, match=f"BatchNorm was given momentum = {momentum}"):
        BatchNorm(4, momentum=momentum)
    moved = BatchNorm(1, momentum=1.0)
    moved(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1))
    assert (float(moved.running_mean), float(moved.running_var)) == (2.0, 2.0)


def test_a_single_value_has_no_spread() -> None:
    norm = BatchNorm(1, momentum=0.5)
    norm(torch.full((1, 1, 1, 1), 3.0))
    assert (float(norm.running_mean), float(norm.running_var)) == (1.5, 0.5)
