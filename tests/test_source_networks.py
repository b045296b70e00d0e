"""Networks of the sources' studies: parameters counted from their texts, and what keys of earlier versions mean."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import benchkit
from benchkit.plan import fingerprint, make_plan, typed_settings
from benchkit.registry import Registry
from benchkit.study.studyfile import read_study

STUDIES = Path(benchkit.__file__).parent / "studies"
KEYS = json.loads((Path(__file__).parent / "fixtures" / "keys-a6d0f5e.json").read_text())


def structure(model: torch.nn.Module, shape: tuple[int, int, int]) -> str:
    """Return a digest of a model's tensors and of what its layers put out, in their order."""
    lines = [f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items()]
    for name, layer in model.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(
                lambda module, _, out, name=name: lines.append(f"{name} {type(module).__name__} {tuple(out.shape)}")
            )
    with torch.no_grad():
        model.eval()(torch.zeros(2, *shape, device="meta"))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


SHAPES = {
    "birds25": (25, (3, 64, 64)),
    "cifar10": (10, (3, 32, 32)),
    "coco5": (5, (3, 64, 64)),
    "mnist": (10, (1, 28, 28)),
    "tiny-cifar10": (10, (3, 32, 32)),
    "cifar100": (100, (3, 32, 32)),
    "birds200": (200, (3, 224, 224)),
    "digits": (10, (1, 8, 8)),
}


def base_net() -> int:
    """Return the parameters of the listed BaseNet, counted row by row of its table."""
    total, inputs = 3 * 64 * 9 + 64 + 2 * 64, 64
    for width in [64] * 3 + [128] * 4 + [256] * 6 + [512] * 3:
        total += inputs * width * 9 + width + 2 * width + width * width * 9 + width + 2 * width
        inputs = width
    return total + 512 * 16 * 16 * 50 + 50 + 50 * 100 + 100 + 2 * 100


COUNTED = {
    # 784-500-500-10
    ("regularization-mnist", "none"): 784 * 500 + 500 + 500 * 500 + 500 + 500 * 10 + 10,
    ("skip-coco5", "lr=0.001, network=skip 32"): 10_295_925,
    ("ablation-cifar100", "as listed"): base_net(),
    # the ResNet-18 of torchvision with 1,000 classes has 11,689,512, of which 513,000 in its classifier
    ("scratch-cifar10", "imagenet"): 11_689_512 - 513_000 + 512 * 10 + 10,
    ("transfer-birds200", "head only"): 11_689_512 - 513_000 + 512 * 200 + 200,
}


@pytest.mark.parametrize(("name", "label"), COUNTED)
def test_a_studys_network_has_the_parameters_of_its_source(name: str, label: str) -> None:
    study = read_study(STUDIES / f"{name}.toml")
    (found,) = [one for one in make_plan(study).conditions if one.label == label and one.kind == "grid"]
    settings = typed_settings(found.settings, study.seed)
    options = {key: value for key, value in settings.model.model.options.items() if key != "pretrained"}
    registry, (classes, shape) = Registry.installed(), SHAPES[settings.data.dataset.name]
    with torch.device("meta"):
        norm = registry.bind("norms", settings.model.norm)
        model = registry.bind("models", replace(settings.model.model, options=options))(classes, shape, norm)
    assert sum(one.numel() for one in model.parameters()) == COUNTED[name, label]
    if name in ("scratch-cifar10", "transfer-birds200"):
        assert (model.conv1.kernel_size, model.conv1.stride, model.maxpool.kernel_size) == ((7, 7), (2, 2), 3)


def test_no_key_of_an_earlier_version_means_another_network() -> None:
    """The conditions of all built-in studies of commit a6d0f5e: their keys, and what was built for them."""
    registry = Registry.installed()
    built: dict[str, str] = {}
    for one in KEYS:
        settings = typed_settings(one["settings"], one["seed"])
        assert fingerprint(settings) == one["key"]
        options = {name: value for name, value in settings.model.model.options.items() if name != "pretrained"}
        ref = replace(settings.model.model, options=options)
        classes, shape = SHAPES[settings.data.dataset.name]
        known = repr((ref, settings.model.norm, shape, classes))
        if known not in built:
            with torch.device("meta"):
                norm = registry.bind("norms", settings.model.norm)
                built[known] = structure(registry.bind("models", ref)(classes, shape, norm), shape)
        assert built[known] == one["structure"], one["settings"]["model"]
    assert len(built) == 39
