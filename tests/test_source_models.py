"""The models of the source studies: tensors and shapes counted by hand, forward passes redone with functional calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from benchkit_models.basenet import basenet
from benchkit_models.initialisation import initialise
from benchkit_models.net3 import net3
from benchkit_models.skipnet import HalfBlock, SkipBlock, skipnet
from torch import nn
from torch.nn import functional

from benchkit import PluginError

BATCH_NORM = nn.BatchNorm2d
LADDER: tuple[Mapping[str, Any], ...] = (
    {"blocks": (64, 128), "pool_after": (1, 2), "norm_position": "none"},
    {"norm_position": "after-conv"},
    {"blocks": (64, 64, 128, 128, 256), "pool_after": (2, 4)},
    {"blocks": (64, 64, 128, 128, 256, 256)},
    {"doubled": True},
    {"residual": True},
    {"residual_scale": 0.1},
    {"fc_norm": "hidden"},
)
PLAIN = {"doubled": False, "residual": False, "residual_scale": 1.0, "fc_norm": "none"}


def step(number: int) -> dict[str, Any]:
    """Return the options of a step of the ladder."""
    options: dict[str, Any] = dict(PLAIN)
    for change in LADDER[: number + 1]:
        options |= change
    return options


def gradients_reach_all(model: nn.Module, shape: tuple[int, int, int]) -> None:
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    model(images).square().sum().backward()
    idle = [name for name, one in model.named_parameters() if one.grad is None]
    assert idle == []
    silent = [name for name, one in model.named_parameters() if one.ndim > 1 and not one.grad.abs().sum() > 0]
    assert silent == []


# initialisation


@pytest.mark.parametrize(("init", "gain"), [("kaiming-uniform", 6 / 48), ("xavier", 6 / (48 + 320))])
def test_initialisations_have_the_published_bounds(init: str, gain: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 20, 4), nn.BatchNorm2d(20), nn.Flatten(), nn.Linear(48, 320))
    initialise(model, init)
    convolution, linear = model[0], model[3]
    bound = math.sqrt(gain)
    assert 0.99 * bound < linear.weight.abs().max().item() <= bound
    assert linear.weight.var().item() == pytest.approx(bound**2 / 3, rel=0.05)  # of a uniform distribution
    assert 0.95 * bound < convolution.weight.abs().max().item() <= bound  # fan_in 3*4*4 = 48, fan_out 20*4*4 = 320
    assert linear.bias.abs().sum() == 0 and convolution.bias.abs().sum() == 0
    assert model[1].weight.eq(1).all()


def test_kaiming_of_convolutions_alone_leaves_the_rest_by_default() -> None:
    weights = []
    for init in ("default", "kaiming-uniform-conv"):
        torch.manual_seed(0)
        weights.append(nn.Sequential(nn.Conv2d(3, 20, 4), nn.Flatten(), nn.Linear(48, 320)))
        initialise(weights[-1], init)
    plain, drawn = weights
    assert torch.equal(plain[0].bias, drawn[0].bias) and torch.equal(plain[2].weight, drawn[2].weight)
    bound = math.sqrt(6 / 48)
    assert 0.95 * bound < drawn[0].weight.abs().max().item() <= bound


def test_default_initialisation_is_pytorchs() -> None:
    torch.manual_seed(5)
    model = nn.Linear(6, 4)
    before = model.weight.clone()
    initialise(model, "default")
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("model", [skipnet, net3, basenet])
def test_unknown_initialisation_is_refused(model: Any) -> None:
    with pytest.raises(
        PluginError, match="init = 'he': expected one of default, kaiming-uniform, kaiming-uniform-conv, xavier"
    ):
        model(5, (3, 64, 64), BATCH_NORM, init="he")


@pytest.mark.parametrize("model", [skipnet, net3, basenet])
@pytest.mark.parametrize("init", ["default", "kaiming-uniform", "kaiming-uniform-conv", "xavier"])
def test_same_seed_same_weights(model: Any, init: str) -> None:
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(nn.utils.parameters_to_vector(model(5, (1, 16, 16), BATCH_NORM, init=init).parameters()))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# skipnet


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(("depth", "tensors"), [(64, 172), (32, 108)])
def test_skipnet_has_the_counted_parameter_tensors(depth: int, tensors: int, skip: bool) -> None:
    with torch.device("meta"):
        model = skipnet(5, (3, 64, 64), BATCH_NORM, depth=depth, skip_connections=skip, init="default")
    assert len(list(model.parameters())) == tensors
    # stem 2, classifier 4; blocks of 8 tensors, 10 with a down-sampler
    assert tensors == 2 + 4 + 8 * (2 * depth // 8 + 1) + 10 * 3
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(8192, 1000), (1000, 5)]
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    assert norms == 2 * (2 * depth // 8 + 4)


def test_skipnet_maps_are_8_by_8_at_the_end() -> None:
    model = skipnet(5, (3, 64, 64), BATCH_NORM, depth=8).eval()
    shapes = []
    for layer in (model.stem, model.group1, model.group2, model.widen, model.group3):
        layer.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert shapes == [(64, 63, 63), (64, 32, 32), (64, 16, 16), (128, 16, 16), (128, 8, 8)]


@pytest.mark.parametrize(
    ("inputs", "outputs", "downsample"), [(64, 64, False), (64, 64, True), (64, 128, False), (128, 128, True)]
)
@pytest.mark.parametrize("skip", [True, False])
def test_skipnet_block_redone_by_hand(inputs: int, outputs: int, downsample: bool, skip: bool) -> None:
    torch.manual_seed(0)
    block = SkipBlock(inputs, outputs, BATCH_NORM, skip=skip, downsample=downsample).double()
    assert len(list(block.parameters())) == (10 if downsample else 8)
    images = torch.randn(2, inputs, 7, 6, dtype=torch.float64)
    (w1, b1, g1, s1, w2, b2, g2, s2), down = list(block.parameters())[:8], list(block.parameters())[8:]

    def norm(x: torch.Tensor, gain: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(x, None, None, gain, shift, training=True)

    expected = functional.relu(norm(functional.conv2d(images, w1, b1, padding=1), g1, s1))
    expected = functional.relu(norm(functional.conv2d(expected, w2, b2, padding=1), g2, s2))
    identity = torch.cat([images, images], 1) if outputs == 2 * inputs else images
    if downsample:
        expected = functional.conv2d(expected, *down, stride=2)
        identity = functional.conv2d(identity, *down, stride=2)
    torch.testing.assert_close(block(images), expected + identity if skip else expected)


@pytest.mark.parametrize(("depth", "blocks"), [(32, [1, 3, 4]), (64, [2, 6, 8])])
def test_skipnet_as_published_has_the_published_shapes(depth: int, blocks: list[int]) -> None:
    model = skipnet(5, (3, 64, 64), BATCH_NORM, depth=depth, layout="source").eval()
    shapes = []
    for layer in (model.stem, model.group1, model.group2, model.widen, model.group3):
        layer.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert shapes == [(64, 32, 32), (64, 16, 16), (64, 8, 8), (128, 8, 8), (128, 8, 8)]
    assert [len(model.group1) - 1, len(model.group2) - 1, len(model.group3)] == blocks
    assert [(one.in_features, one.out_features) for one in model.modules() if isinstance(one, nn.Linear)] == [
        (8192, 1000),
        (1000, 5),
    ]


def test_skipnet_as_published_has_the_counted_parameters_and_idle_tensors() -> None:
    """Counted by hand from the published code: four blocks of 64 and of 128, two called down-samplers, one idle."""
    model = skipnet(5, (3, 64, 64), BATCH_NORM, depth=32, layout="source")
    narrow, wide = 2 * (64 * 64 * 9 + 64 + 2 * 64), 2 * (128 * 128 * 9 + 128 + 2 * 128)
    samplers = 2 * (narrow + 64 * 64 + 64) + wide + 128 * 128 + 128
    widen = 2 * (64 * 128 * 9 + 128 + 2 * 128)
    counted = 3 * 64 * 9 + 64 + 4 * narrow + 4 * wide + samplers + widen + 8192 * 1000 + 1000 + 1000 * 5 + 5
    assert sum(one.numel() for one in model.parameters()) == counted == 10_295_925
    model(torch.rand(2, 3, 64, 64)).sum().backward()
    tensors = list(model.parameters())
    assert (len(tensors), sum(one.grad is not None for one in tensors)) == (108, 94)
    assert {name.split(".")[0] for name, one in model.named_parameters() if one.grad is None} == {"unused", "widen"}


@pytest.mark.parametrize("skip", [True, False])
def test_skipnet_widening_as_published_redone_by_hand(skip: bool) -> None:
    torch.manual_seed(0)
    block = HalfBlock(64, 128, BATCH_NORM, skip=skip).double()
    images = torch.randn(2, 64, 7, 6, dtype=torch.float64)
    weight, bias, gain, shift = list(block.branch.parameters())
    expected = functional.conv2d(images, weight, bias, padding=1)
    expected = functional.relu(functional.batch_norm(expected, None, None, gain, shift, training=True))
    torch.testing.assert_close(block(images), expected + torch.cat([images, images], 1) if skip else expected)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 9, 11)])
@pytest.mark.parametrize("skip", [True, False])
def test_skipnet_on_small_images_trains_every_parameter(shape: tuple[int, int, int], skip: bool) -> None:
    model = skipnet(4, shape, BATCH_NORM, depth=16, skip_connections=skip)
    gradients_reach_all(model, shape)


def test_skipnet_options_are_checked() -> None:
    with pytest.raises(PluginError) as caught:
        skipnet(5, (1, 4, 8), BATCH_NORM, depth=12, layout="mine")
    assert "layout = 'mine': expected one of three-samplers, source" in str(caught.value)
    assert "depth = 12: expected a positive multiple of 8" in str(caught.value)
    assert "images are 4x8: expected at least 8x8" in str(caught.value)


# net3


def test_net3_is_a_plain_chain() -> None:
    model = net3(5, (3, 64, 64), BATCH_NORM)
    kinds = {type(layer) for layer in model.modules() if not list(layer.children())}
    assert kinds == {nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Flatten, nn.Linear}
    widths = [(one.in_channels, one.out_channels) for one in model.modules() if isinstance(one, nn.Conv2d)]
    assert widths == [(3, 16), (16, 32)] + [(32, 32)] * 10
    assert model.hidden[1].in_features == 32 * 16 * 16
    assert len(list(model.parameters())) == 2 * 14


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 33, 30)])
def test_net3_trains_every_parameter(shape: tuple[int, int, int]) -> None:
    gradients_reach_all(net3(4, shape, BATCH_NORM, layers=3, width=8), shape)


def test_net3_options_are_checked() -> None:
    with pytest.raises(PluginError) as caught:
        net3(5, (3, 3, 9), BATCH_NORM, layers=-1, width=0)
    for text in ("layers = -1: expected at least 0", "width = 0: expected at least 1", "images are 3x9"):
        assert text in str(caught.value)


# basenet


@pytest.mark.parametrize("number", range(8))
def test_every_step_of_the_ladder_trains_every_parameter(number: int) -> None:
    gradients_reach_all(basenet(10, (3, 32, 32), BATCH_NORM, **step(number)), (3, 32, 32))


def count(number: int, kind: type[nn.Module]) -> int:
    with torch.device("meta"):
        model = basenet(100, (3, 32, 32), BATCH_NORM, **step(number))
    return sum(isinstance(layer, kind) for layer in model.modules())


def test_steps_of_the_ladder_change_what_they_say() -> None:
    assert [count(number, nn.Conv2d) for number in range(8)] == [3, 3, 6, 7, 13, 13, 13, 13]
    assert [count(number, nn.BatchNorm2d) for number in range(8)] == [0, 3, 6, 7, 13, 13, 13, 14]
    assert [count(number, nn.MaxPool2d) for number in range(8)] == [2] * 8


def test_basenet_default_is_the_seventh_step() -> None:
    torch.manual_seed(0)
    ours = basenet(10, (3, 32, 32), BATCH_NORM)
    torch.manual_seed(0)
    theirs = basenet(10, (3, 32, 32), BATCH_NORM, **step(7))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(ours(images), theirs(images))


def test_residual_paths_add_no_parameters_and_no_random_numbers() -> None:
    models = []
    for number in (4, 5, 6):
        torch.manual_seed(0)
        models.append(basenet(10, (3, 32, 32), BATCH_NORM, **step(number)))
    states = [model.state_dict() for model in models]
    for state in states[1:]:
        assert all(torch.equal(state[name], value) for name, value in states[0].items())
        assert list(state) == list(states[0])


@pytest.mark.parametrize("position", ["none", "after-conv", "after-relu"])
def test_basenet_redone_by_hand(position: str) -> None:
    torch.manual_seed(0)
    options = {"blocks": (64, 96), "pool_after": (1,), "norm_position": position, "residual_scale": 0.1}
    model = basenet(7, (1, 8, 8), BATCH_NORM, fc_norm="logits", **options).double()
    images = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    left = list(model.parameters())

    def take(number: int) -> list[torch.Tensor]:
        taken, left[:] = left[:number], left[number:]
        return taken

    def norm(x: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(x, None, None, *take(2), training=True)

    def layer(x: torch.Tensor) -> torch.Tensor:
        x = functional.conv2d(x, *take(2), padding=1)
        if position == "after-conv":
            return functional.relu(norm(x))
        return norm(functional.relu(x)) if position == "after-relu" else functional.relu(x)

    x = layer(images)
    x = functional.max_pool2d(x + 0.1 * layer(layer(x)), 2)
    wide = torch.cat([x, torch.zeros(4, 32, 4, 4, dtype=torch.float64)], 1)
    x = (wide + 0.1 * layer(layer(x))).flatten(1)
    x = functional.linear(functional.relu(functional.linear(x, *take(2))), *take(2))
    torch.testing.assert_close(model(images), norm(x))
    assert left == []


def test_basenet_norm_after_the_first_linear_layer() -> None:
    model = basenet(7, (1, 16, 16), BATCH_NORM, blocks=(8,), pool_after=())
    hidden = []
    model.head.hidden.register_forward_hook(lambda _m, inputs, _o: hidden.append(inputs[0]))
    model(torch.randn(6, 1, 16, 16))
    assert hidden[0].shape == (6, 50)
    torch.testing.assert_close(hidden[0].mean(0), torch.zeros(50), atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden[0].var(0, correction=0), torch.ones(50), atol=1e-2, rtol=0)


def test_basenet_as_the_report_lists_it() -> None:
    widths = (64,) * 3 + (128,) * 4 + (256,) * 6 + (512,) * 3
    with torch.device("meta"):
        model = basenet(100, (3, 32, 32), BATCH_NORM, blocks=widths, pool_after=(16,), fc_norm="logits")
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 100)
    assert model.head.linear.in_features == 512 * 16 * 16
    assert sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) == 1 + 2 * 16


def test_basenet_options_are_checked() -> None:
    with pytest.raises(PluginError) as caught:
        basenet(
            9, (3, 2, 8), BATCH_NORM, blocks=(8, 8), pool_after=(1, 3), norm_position="before", fc_norm="x", hidden=0
        )
    for text in (
        "pool_after = [1, 3]: expected different numbers from 1 to 2",
        "images are 2x8: 2 pools leave nothing of them",
        "norm_position = 'before': expected one of after-conv, after-relu, none",
        "fc_norm = 'x': expected one of none, hidden, logits",
        "hidden = 0: expected at least 1",
    ):
        assert text in str(caught.value)


# norms


@pytest.mark.parametrize("model", [partial(skipnet, depth=16), basenet])
def test_every_norm_is_the_studys(model: Any) -> None:
    def marked(channels: int) -> nn.Module:
        return nn.GroupNorm(4 if channels % 4 == 0 else 1, channels)

    built = model(8, (1, 16, 16), marked)
    known = {nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Flatten, nn.Unflatten, nn.Linear, nn.Identity, nn.GroupNorm}
    assert {type(layer) for layer in built.modules() if not list(layer.children())} <= known
    plain = model(8, (1, 16, 16), lambda channels: nn.Identity())
    assert not any(isinstance(layer, nn.GroupNorm) for layer in plain.modules())
    images = torch.rand(2, 1, 16, 16)
    assert built(images).shape == plain(images).shape == (2, 8)
