"""Nothing of a training step lies on another device than its images: tried on fake tensors of `cuda:0`.

They hold no numbers: a mix-up raises there, and so does reading one. Not seen so: what autograd does, optimizers,
autocast, generators, and the loader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchkit_models.basenet import basenet
from benchkit_models.mlp import mlp
from benchkit_models.net3 import net3
from benchkit_models.resnet import resnet
from benchkit_models.skipnet import skipnet
from benchkit_models.timm_models import timm_model
from benchkit_norms.batch import BatchNorm
from benchkit_norms.batch_instance import BatchInstanceNorm, _BatchInstance, _ByTwoNorms
from benchkit_norms.group import GroupNorm
from benchkit_norms.identity import Identity
from benchkit_norms.instance import InstanceNorm
from benchkit_norms.layer import LayerNorm
from benchkit_norms.standardize import _GroupStandardize, _Standardize
from benchkit_regularizers import auto_augment, crop_flip, image_operations
from benchkit_regularizers.auto_augment import AutoAugment
from benchkit_regularizers.crop_flip import CropFlip
from benchkit_regularizers.cutmix import CutMix
from benchkit_regularizers.erasing import Erasing
from benchkit_regularizers.grad_clip import GradClip
from benchkit_regularizers.l1 import L1
from benchkit_regularizers.label_smoothing import LabelSmoothing
from benchkit_regularizers.mixup import Mixup
from benchkit_regularizers.rand_augment import RandAugment
from benchkit_regularizers.resized_crop import ResizedCrop
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchkit import Batch

DEVICE = torch.device("cuda:0")
KEPT = (crop_flip._places, crop_flip._starts, image_operations._scales, auto_augment.policy_table)
"""What is kept by device: fake tensors must not stay in it."""


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let tensors be fake, and random ones be drawn without a generator of the device, which needs a driver."""

    def without_generator(own: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: own(*given, **{key: named[key] for key in named if key != "generator"})

    for name in ("rand", "randint", "_standard_gamma", "randn", "randperm"):
        monkeypatch.setattr(torch, name, without_generator(getattr(torch, name)))
    for kept in KEPT:
        kept.cache_clear()
    with FakeTensorMode():
        yield
    for kept in KEPT:
        kept.cache_clear()


def moved(model: nn.Module) -> nn.Module:
    """Return the model with its tensors on the fake device."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.detach().to(DEVICE), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(DEVICE)
    return model


AUGMENTS = (
    AutoAugment(), CropFlip(), CutMix(), Erasing(), Erasing(fill="mean"), Erasing(fill="zero"), LabelSmoothing(),
    Mixup(), RandAugment(), ResizedCrop(),
)  # fmt: skip
LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("regularizer", AUGMENTS, ids=lambda one: f"{type(one).__name__}-{getattr(one, 'fill', '')}")
def test_augmentations_stay_on_their_device(regularizer: Any, layout: torch.memory_format) -> None:
    images = torch.rand(8, 3, 32, 32, device=DEVICE).contiguous(memory_format=layout)
    batch = Batch(images=images, targets=torch.rand(8, 10, device=DEVICE))
    if isinstance(regularizer, CutMix | Mixup):
        try:
            torch._standard_gamma(torch.ones(1, device=DEVICE))
        except RuntimeError:
            pytest.skip("this PyTorch starts CUDA to draw for a fake device")
    after = regularizer.augment(batch, SimpleNamespace(device=DEVICE))
    assert after.images.device == after.targets.device == DEVICE and after.images.dtype == torch.float32


NORMS = (nn.BatchNorm2d, BatchNorm, BatchInstanceNorm, GroupNorm, InstanceNorm, LayerNorm, Identity)
MODELS: dict[str, tuple[Any, int]] = {
    "resnet": (partial(resnet, n=1), 32),
    "resnet-B": (partial(resnet, n=1, shortcut="B"), 32),
    "mlp": (partial(mlp, normalize=True), 32),
    "basenet": (basenet, 32),
    "net3": (net3, 32),
    "skipnet": (partial(skipnet, depth=16), 64),
    "timm": (partial(timm_model, variant="resnet18", stem="cifar"), 32),
    "timm-head": (partial(timm_model, variant="resnet18", trained="head"), 64),
}
PAIRS = [
    pytest.param(model, norm, id=f"{model}-{norm.__name__}")
    for model in MODELS
    for norm in (NORMS if model in ("resnet", "mlp") else NORMS[2:4])
]


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_networks_stay_on_their_device(name: str, norm: Any) -> None:
    build, side = MODELS[name]
    model = moved(build(10, (3, side, side), norm))
    images = torch.rand(4, 3, side, side, device=DEVICE)
    with torch.no_grad():
        assert model.train()(images).device == model.eval()(images).device == DEVICE
        assert L1().penalty(model).device == DEVICE
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    GradClip().clip(parameters)
    for layer in model.modules():
        if callable(getattr(layer, "constrain", None)):
            layer.constrain()


class Context:
    """What an autograd function is given to keep things in."""

    needs_input_grad = (True,) * 6
    saved_tensors: tuple[torch.Tensor, ...]

    def save_for_backward(self, *tensors: torch.Tensor) -> None:
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *tensors: torch.Tensor) -> None:
        pass


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_hand_written_backward_passes_stay_on_their_device(dtype: torch.dtype, layout: torch.memory_format) -> None:
    maps = torch.randn(4, 16, 8, 8, device=DEVICE, dtype=dtype).contiguous(memory_format=layout)
    weight, bias = torch.ones(16, device=DEVICE), torch.zeros(16, device=DEVICE)
    cases: list[tuple[Any, tuple[Any, ...]]] = [
        *((_Standardize, (weight, bias, groups, 1e-5)) for groups in (None, 16, 4, 1)),
        *((_GroupStandardize, (weight, bias, groups, 1e-5)) for groups in (16, 4, 1)),
        (_BatchInstance, (torch.ones(16, device=DEVICE), weight, bias, None, 1e-5)),
        (_ByTwoNorms, (torch.ones(16, device=DEVICE), weight, bias, (bias.clone(), weight.clone()), (0.1, 1e-5))),
    ]
    with torch.no_grad():
        for function, given in cases:
            context = Context()
            output = function.forward(context, maps, *given)
            first = output[0] if isinstance(output, tuple) else output
            rest = (None,) * (len(output) - 1) if isinstance(output, tuple) else ()
            gradients = function.backward(context, first, *rest)
            assert all(one is None or one.device == DEVICE for one in gradients)
            assert gradients[0].dtype == first.dtype == dtype and gradients[0].is_contiguous(memory_format=layout)


def test_a_tensor_left_on_the_cpu_is_noticed() -> None:
    with pytest.raises(RuntimeError, match=r"devices?.* cuda:0"):
        torch.rand(3, device=DEVICE) + torch.rand(3)
