"""Every norm against the framework's own layer, or a float64 reference written out from the paper's formula."""

from __future__ import annotations

import copy
import functools
import io
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from benchkit_norms import feature_maps, native_kernels
from benchkit_norms.batch import BatchNorm
from benchkit_norms.batch_instance import BatchInstanceNorm
from benchkit_norms.group import GroupNorm
from benchkit_norms.identity import Identity
from benchkit_norms.instance import InstanceNorm
from benchkit_norms.layer import LayerNorm
from benchkit_norms.torch_batch import torch_batch_norm
from torch import nn

from benchkit import card_of
from benchkit.train.compiler import without_its_own_warnings

NORMS: dict[str, Callable[..., nn.Module]] = {
    "none": Identity,
    "torch-bn": torch_batch_norm,
    "bn": BatchNorm,
    "in": InstanceNorm,
    "bin": BatchInstanceNorm,
    "ln": LayerNorm,
    "gn": GroupNorm,
}
OURS = ["bn", "in", "bin", "ln", "gn"]
NATIVE: dict[str, Callable[..., nn.Module]] = {
    "bn": nn.BatchNorm2d,
    "in": functools.partial(nn.InstanceNorm2d, affine=True),
    "ln": functools.partial(nn.GroupNorm, 1),
    "gn": functools.partial(nn.GroupNorm, 3),
}
CHANNELS = 6
EPS = 0.3
"""Far from the default, so that a norm that ignores its `eps` is far from every reference, too."""
every_norm = pytest.mark.parametrize("name", NORMS)
our_norm = pytest.mark.parametrize("name", OURS)
layouts = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


@pytest.fixture(params=[1, feature_maps.VALUES_AT_A_TIME], ids=["image by image", "whole batch"])
def values_at_a_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_maps, "VALUES_AT_A_TIME", request.param)


def maps(dtype: torch.dtype = torch.float64, layout: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, CHANNELS, 5, 7, generator=generator, dtype=torch.float64)
    spread = torch.arange(1, CHANNELS + 1).view(1, -1, 1, 1)
    return (x * spread + 2 * spread - 5).to(dtype).contiguous(memory_format=layout)


def made(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Return a norm whose parameters and buffers are not at their first values."""
    options = {} if name == "none" else {"eps": EPS, "groups": 3} if name == "gn" else {"eps": EPS}
    norm = NORMS[name](CHANNELS, dtype=dtype, **options)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in (*norm.parameters(), *norm.buffers()):
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator, dtype=torch.float64) * 0.8 + 0.1)
    return norm


def trained(norm: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the output, all gradients for a fixed upstream gradient, and the buffers after one forward pass."""
    x = x.detach().requires_grad_()
    y = norm(x)
    weights = (
        (torch.arange(y.numel(), dtype=torch.float64, device=y.device) * 0.7).cos().add(0.2).view(y.shape).to(y.dtype)
    )
    named = dict(norm.named_parameters())
    gradients = torch.autograd.grad((y * weights).sum(), [x, *named.values()])
    buffers = {key: value.clone() for key, value in norm.named_buffers()}
    return {"y": y.detach(), **dict(zip(["x", *named], gradients, strict=True)), **buffers}


def batch_instance_reference(norm: nn.Module, x: torch.Tensor, training: bool) -> torch.Tensor:
    """The formula of Nam and Kim (2018), written with plain differentiable operations."""
    rho, weight, bias, mean, var = (
        getattr(norm, key).view(1, -1, 1, 1) for key in ("rho", "weight", "bias", "running_mean", "running_var")
    )
    if training:
        mean = x.mean((0, 2, 3), keepdim=True)
        var = x.var((0, 2, 3), correction=0, keepdim=True)
    batch = (x - mean) / (var + EPS).sqrt()
    instance = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), correction=0, keepdim=True) + EPS).sqrt()
    return weight * (rho * batch + (1 - rho) * instance) + bias


def assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for key in expected:
        scale = expected[key].double().abs().max().clamp_min(1)
        error = (found[key].double() - expected[key].double()).abs().max() / scale
        assert error <= tolerance, f"{key}: {float(error):.2e}"


@pytest.mark.parametrize("name", NATIVE)
@layouts
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.usefixtures("values_at_a_time")
def test_forward_backward_and_buffers_equal_the_frameworks(
    name: str, layout: torch.memory_format, training: bool, dtype: torch.dtype, tolerance: float
) -> None:
    ours, native = made(name), NATIVE[name](CHANNELS, eps=EPS, dtype=torch.float64)
    native.load_state_dict(ours.state_dict())
    expected = trained(native.train(training), maps())
    assert_near(trained(ours.to(dtype).train(training), maps(dtype, layout)), expected, tolerance)


@layouts
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.usefixtures("values_at_a_time")
def test_batch_instance_norm_equals_its_formula(layout: torch.memory_format, training: bool) -> None:
    norm = made("bin").train(training)
    x = maps(layout=layout).requires_grad_()
    parameters = [x, *norm.parameters()]
    expected = batch_instance_reference(norm, x, training)
    upstream = torch.linspace(-1, 2, x.numel(), dtype=torch.float64).view(x.shape)
    found = norm(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for ours, reference in zip(
        torch.autograd.grad(found, parameters, upstream),
        torch.autograd.grad(expected, parameters, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)


def test_batch_instance_norm_by_numpy_and_its_running_statistics() -> None:
    norm, x = made("bin"), maps()
    before = {key: value.numpy().copy() for key, value in norm.state_dict().items()}
    a = x.numpy()
    mean, var = a.mean((0, 2, 3)), a.var((0, 2, 3))
    by_batch = (a - mean[:, None, None]) / np.sqrt(var + EPS)[:, None, None]
    own_mean, own_var = a.mean((2, 3), keepdims=True), a.var((2, 3), keepdims=True)
    by_instance = (a - own_mean) / np.sqrt(own_var + EPS)
    rho, weight, bias = (before[key][:, None, None] for key in ("rho", "weight", "bias"))
    np.testing.assert_allclose(
        norm(x).detach().numpy(), weight * (rho * by_batch + (1 - rho) * by_instance) + bias, rtol=1e-10, atol=1e-12
    )
    count = a.size // CHANNELS
    expected_var = 0.9 * before["running_var"] + 0.1 * var * count / (count - 1)
    np.testing.assert_allclose(norm.get_buffer("running_mean"), 0.9 * before["running_mean"] + 0.1 * mean, rtol=1e-12)
    np.testing.assert_allclose(norm.get_buffer("running_var"), expected_var, rtol=1e-12)


def test_the_gate_is_clipped_and_at_its_ends_is_batch_or_instance_norm() -> None:
    norm, x = BatchInstanceNorm(CHANNELS, dtype=torch.float64), maps()
    assert torch.equal(norm.rho.detach(), torch.ones(CHANNELS, dtype=torch.float64))
    with torch.no_grad():
        norm.rho.copy_(torch.tensor([-0.5, 0.0, 0.25, 1.0, 1.5, 7.0]))
    norm.constrain()
    assert norm.rho.tolist() == [0.0, 0.0, 0.25, 1.0, 1.0, 1.0]
    found = norm(x)
    torch.testing.assert_close(found[:, :2], nn.InstanceNorm2d(CHANNELS)(x)[:, :2])
    torch.testing.assert_close(found[:, 3:], nn.BatchNorm2d(CHANNELS, dtype=torch.float64)(x)[:, 3:])


@our_norm
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_gradients_equal_finite_differences(name: str, training: bool, affine: bool) -> None:
    norm = NORMS[name](4, affine=affine, dtype=torch.float64).train(training)
    x = maps()[:3, :4, :3, :2].clone().requires_grad_()
    names = [key for key, _ in norm.named_parameters()]
    values = [(parameter.detach() * 0.7 - 0.2).requires_grad_() for parameter in norm.parameters()]

    def output(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(norm, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(output, (x, *values))


@pytest.mark.parametrize("name", ["bn", "in", "ln", "gn", "bin"])
def test_variance_survives_a_mean_far_from_zero(name: str) -> None:
    x = maps(torch.float32) + 1000
    norm = NORMS[name](CHANNELS, affine=False)
    expected = NORMS[name](CHANNELS, affine=False, dtype=torch.float64)(x.double())
    # One step of float32 at 1000 is 6e-5, and the smallest standard deviation here is 1.
    torch.testing.assert_close(norm(x).double(), expected, rtol=0, atol=5e-4)


@every_norm
@layouts
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False])
def test_output_keeps_dtype_and_memory_format(
    name: str, layout: torch.memory_format, dtype: torch.dtype, training: bool
) -> None:
    norm = NORMS[name](CHANNELS).train(training)
    if name == "torch-bn" and dtype is torch.float64:
        norm = norm.double()
    x = maps(dtype, layout).requires_grad_()
    y = norm(x)
    y.sum().backward()
    assert y.dtype == dtype and y.shape == x.shape and y.is_contiguous(memory_format=layout)
    assert x.grad is not None and x.grad.dtype == dtype and bool(torch.isfinite(x.grad).all())


@our_norm
@layouts
@pytest.mark.usefixtures("values_at_a_time")
def test_low_precision_differs_from_float32_by_rounding_alone(name: str, layout: torch.memory_format) -> None:
    low = maps(torch.bfloat16, layout)
    norm = made(name, torch.float32)
    expected = trained(copy.deepcopy(norm), low.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = trained(norm, low)
    assert found["y"].dtype == torch.bfloat16
    rounded = {"y", "x"}
    assert_near({k: found[k] for k in rounded}, {k: expected[k] for k in rounded}, 2**-7)
    buffers = {key for key in expected if key.startswith("running")}
    assert_near({k: found[k] for k in buffers}, {k: expected[k] for k in buffers}, 1e-6)


@our_norm
def test_parameters_in_low_precision_train(name: str) -> None:
    norm = made(name).to(torch.bfloat16)
    norm(maps(torch.bfloat16)).sum().backward()
    assert all(value.grad is not None and value.grad.dtype == torch.bfloat16 for value in norm.parameters())


@pytest.mark.parametrize("name", ["none", *OURS])
@pytest.mark.parametrize("shape", [(1, CHANNELS, 1, 1), (1, CHANNELS, 3, 3), (4, CHANNELS, 1, 1)])
def test_a_single_image_and_single_pixels_stay_finite(name: str, shape: tuple[int, ...]) -> None:
    norm = NORMS[name](CHANNELS)
    found = trained(norm, torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    assert all(bool(torch.isfinite(value).all()) for value in found.values())


@pytest.mark.parametrize("name", ["bn", "in", "bin"])
def test_where_a_value_is_its_own_mean_the_output_is_the_bias(name: str) -> None:
    norm = made(name)
    expected = norm.get_parameter("bias").detach().view(1, -1, 1, 1)
    torch.testing.assert_close(norm(maps()[:1, :, :1, :1]), expected)


@every_norm
def test_copies_and_state_dicts_give_the_same_output(name: str) -> None:
    norm, x = made(name), maps()
    norm(x)
    buffer = io.BytesIO()
    torch.save(norm.state_dict(), buffer)
    buffer.seek(0)
    loaded = made(name)
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    for other in (loaded, copy.deepcopy(norm)):
        assert torch.equal(other.eval()(x), norm.eval()(x))


def test_state_dicts_move_between_the_frameworks_batch_norm_and_ours() -> None:
    ours, native = made("bn"), nn.BatchNorm2d(CHANNELS, dtype=torch.float64)
    assert list(ours.state_dict()) == list(native.state_dict())
    native.load_state_dict(ours.state_dict())
    again = BatchNorm(CHANNELS, dtype=torch.float64)
    again.load_state_dict(native.state_dict())
    assert all(torch.equal(again.state_dict()[key], value) for key, value in ours.state_dict().items())


@every_norm
def test_meta_device(name: str) -> None:
    norm = NORMS[name](CHANNELS, device="meta", dtype=torch.bfloat16)
    assert all(value.is_meta for value in (*norm.parameters(), *norm.buffers()))
    y = norm(torch.empty(2, CHANNELS, 4, 4, device="meta", dtype=torch.bfloat16))
    assert y.is_meta and y.shape == (2, CHANNELS, 4, 4)


@our_norm
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_compiles_without_a_graph_break(name: str, training: bool, memory_format: torch.memory_format) -> None:
    norm = made(name).train(training)
    compiled = copy.deepcopy(norm)
    torch._dynamo.reset()
    graph = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    x = maps().contiguous(memory_format=memory_format).requires_grad_()
    with without_its_own_warnings():
        y, again = norm(x), graph(x)
    torch.testing.assert_close(again, y)
    torch.testing.assert_close(torch.autograd.grad(again.square().sum(), x), torch.autograd.grad(y.square().sum(), x))
    for key, value in norm.named_buffers():
        torch.testing.assert_close(compiled.get_buffer(key), value)


def resnet18(name: str, **options: object) -> nn.Module:
    def norm_layer(channels: int, **kwargs: object) -> nn.Module:
        return NORMS[name](channels, **kwargs)

    return timm.create_model("resnet18", pretrained=False, num_classes=5, norm_layer=norm_layer, **options)


@every_norm
def test_trains_inside_a_timm_resnet(name: str) -> None:
    torch.manual_seed(0)
    model = resnet18(name)
    kinds = {type(module) for module in model.modules()}
    assert type(NORMS[name](4)) in kinds
    assert name == "torch-bn" or nn.BatchNorm2d not in kinds
    model(torch.rand(2, 3, 64, 64)).square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)
    last = model.layer1[0].bn2.weight
    assert last is None if name == "none" else torch.equal(last.detach(), torch.zeros(64))


def test_a_timm_resnet_with_our_batch_norm_equals_one_with_the_frameworks() -> None:
    ours, native = resnet18("bn", zero_init_last=False), resnet18("torch-bn", zero_init_last=False)
    ours.load_state_dict(native.state_dict())
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for training in (True, False):
        found, expected = ours.double().train(training)(x), native.double().train(training)(x)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@every_norm
def test_every_norm_has_a_card(name: str) -> None:
    card = card_of(NORMS[name])
    assert card.title and card.summary.endswith(".")
    assert name == "none" or card.url.startswith("https://")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@our_norm
@layouts
def test_on_cuda(name: str, layout: torch.memory_format) -> None:
    expected = trained(made(name), maps())
    found = trained(made(name, torch.float32).cuda(), maps(torch.float32, layout).cuda())
    assert_near({key: value.cpu() for key, value in found.items()}, expected, 1e-5)


@pytest.mark.parametrize("name", ["bn", "in", "ln", "gn"])
@layouts
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_kernels_of_the_framework_are_used_only_where_they_are_exact(
    name: str, layout: torch.memory_format, offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = (maps(torch.float32) + offset).contiguous(memory_format=layout)
    norm = made(name, torch.float32)
    expected = trained(copy.deepcopy(norm).double(), x.double())
    # One float32 step at 1000 is 6e-5 standard deviations; sums over hundreds of values add up some of them.
    assert_near(trained(copy.deepcopy(norm), x), expected, 2e-6 if not offset else 2e-3)
    monkeypatch.setattr(native_kernels, "usable", lambda *tensors: False)
    assert_near(trained(copy.deepcopy(norm), x), expected, 2e-6 if not offset else 2e-3)
    monkeypatch.setattr(native_kernels, "usable_on_cuda", lambda *tensors: True)  # those kernels work here, too
    assert_near(trained(copy.deepcopy(norm), x), expected, 2e-6 if not offset else 2e-3)
