"""The augmentations against torchvision's operations with the same parameters; stochastic depth against its formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from benchkit_models.basenet import basenet
from benchkit_models.resnet import resnet
from benchkit_regularizers.auto_augment import AutoAugment, policy_table
from benchkit_regularizers.erasing import Erasing
from benchkit_regularizers.image_operations import OPERATIONS, transform
from benchkit_regularizers.rand_augment import RandAugment
from benchkit_regularizers.rectangles import Rectangles, covered, random_rectangles
from benchkit_regularizers.resized_crop import ResizedCrop, enlarge
from benchkit_regularizers.stochastic_depth import StochasticDepth
from pictures import batch_of, pictures, seeded
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import AutoAugment as PolicyOfTorchvision
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode
from torchvision.transforms import functional as theirs

from benchkit import PluginError

AUGMENTATIONS = (Erasing(), RandAugment(), RandAugment(operations=3, magnitude=30.0), AutoAugment(), ResizedCrop())
OFF = (Erasing(probability=0.0), RandAugment(operations=0), AutoAugment(probability=0.0), ResizedCrop(min_area=1.0))


# what every augmentation promises


@pytest.mark.parametrize("augmentation", OFF, ids=repr)
def test_strength_zero_is_the_baseline(augmentation: Any) -> None:
    batch, generator = batch_of(pictures()), seeded()
    before = generator.get_state()
    assert augmentation.augment(batch, generator) is batch
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 20, 33)], ids=str)
@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=repr)
def test_augmentations_keep_their_promises(augmentation: Any, shape: tuple[int, int, int]) -> None:
    batch = batch_of(pictures(64, *shape))
    images, targets = batch.images.clone(), batch.targets.clone()
    around = torch.get_rng_state()
    result = augmentation.augment(batch, seeded(3))
    assert torch.equal(torch.get_rng_state(), around)
    assert torch.equal(batch.images, images) and torch.equal(batch.targets, targets)
    assert torch.equal(result.targets, targets)
    assert result.images.shape == images.shape and result.images.dtype == torch.float32
    assert result.images.min() >= 0 and result.images.max() <= 1
    changed = (result.images != images).flatten(1).any(1)
    assert changed.sum() > 10
    assert torch.equal(augmentation.augment(batch, seeded(3)).images, result.images)
    assert not torch.equal(augmentation.augment(batch, seeded(4)).images, result.images)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=repr)
def test_every_image_draws_its_own(augmentation: Any) -> None:
    one = pictures(1).expand(32, -1, -1, -1)
    result = augmentation.augment(batch_of(one), seeded(1)).images
    assert len({image.numpy().tobytes() for image in result}) > 12


class Recording(TorchDispatchMode):
    """Writes down the name of every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=repr)
def test_nothing_waits_for_the_device(augmentation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("rand_augment", "auto_augment"):
        monkeypatch.setattr(f"benchkit_regularizers.{module}.transform", partial(transform, dense=True))
    batch = batch_of(pictures(8))
    augmentation.augment(batch, seeded())  # tables are made and kept
    with Recording() as recorded:
        augmentation.augment(batch, seeded())
    assert "rand" in recorded.names
    assert recorded.names.isdisjoint({"nonzero", "_local_scalar_dense", "item", "equal", "is_nonzero", "lift_fresh"})


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=repr)
def test_memory_layout_does_not_matter(augmentation: Any) -> None:
    images = pictures(16)
    first = augmentation.augment(batch_of(images), seeded(2)).images
    second = augmentation.augment(batch_of(images.contiguous()), seeded(2)).images
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("plugin", "options", "texts"),
    [
        (Erasing, {"probability": 2.0, "fill": "grey"}, ("probability = 2.0", "fill = 'grey': expected one of random")),
        (Erasing, {"min_area": 0.5, "max_area": 0.2}, ("min_area = 0.5: expected at most max_area = 0.2",)),
        (RandAugment, {"operations": -1, "magnitude": 31.0}, ("operations = -1", "magnitude = 31.0")),
        (AutoAugment, {"probability": -0.1}, ("probability = -0.1",)),
        (ResizedCrop, {"min_area": 0.0}, ("min_area = 0.0: expected a number above 0",)),
        (StochasticDepth, {"rate": 1.0, "rule": "x"}, ("rate = 1.0", "rule = 'x': expected one of linear, uniform")),
    ],
)
def test_options_are_checked(plugin: Callable[..., Any], options: Mapping[str, Any], texts: tuple[str, ...]) -> None:
    with pytest.raises(PluginError) as caught:
        plugin(**options)
    for text in texts:
        assert text in str(caught.value)


# RandAugment and AutoAugment


def test_rand_augment_draws_all_fourteen_operations_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []

    def spy(images: Tensor, operation: Tensor, strength: Tensor, fill: float) -> Tensor:
        drawn.append(operation)
        return images

    monkeypatch.setattr("benchkit_regularizers.rand_augment.transform", spy)
    RandAugment(operations=2).augment(batch_of(pictures(1).expand(7000, -1, -1, -1)), seeded())
    assert len(drawn) == 2
    counts = torch.bincount(torch.cat(drawn), minlength=15)
    assert counts[-1] == 0
    assert ((counts[:14] - 1000).abs() < 5 * 30.5).all()  # sqrt(14000 * 1/14 * 13/14) = 30.5
    assert (drawn[0] != drawn[1]).float().mean() == pytest.approx(13 / 14, abs=0.02)


def test_the_policy_is_that_of_torchvision() -> None:
    spelt = {name.replace("-", ""): at for at, name in enumerate(OPERATIONS)}
    expected = [
        [(spelt[name.lower()], chance, (level or 0) / 9) for name, chance, level in pair]
        for pair in PolicyOfTorchvision(AutoAugmentPolicy.CIFAR10).policies
    ]
    table = policy_table(torch.device("cpu"))
    assert table.shape == (25, 2, 3) and len(expected) == 25
    for ours_, theirs_ in zip(table.tolist(), expected, strict=True):
        for mine, other in zip(ours_, theirs_, strict=True):
            assert mine[:2] == pytest.approx(other[:2])
            if OPERATIONS[other[0]] not in ("autocontrast", "equalize", "invert"):  # those have no level
                assert mine[2] == pytest.approx(other[2])


def test_auto_augment_applies_the_policy_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []

    def spy(images: Tensor, operation: Tensor, strength: Tensor, fill: float) -> Tensor:
        drawn.append(operation)
        return images

    monkeypatch.setattr("benchkit_regularizers.auto_augment.transform", spy)
    many = batch_of(pictures(1, height=8, width=8).expand(20000, -1, -1, -1))
    AutoAugment(probability=0.5).augment(many, seeded())
    table = policy_table(torch.device("cpu"))
    for at in range(2):
        counts = torch.bincount(drawn[at], minlength=15) / 20000
        expected = torch.zeros(15)
        for operation, chance, _ in table[:, at].tolist():
            expected[int(operation)] += 0.5 * chance / 25
        expected[0] = 1 - expected[1:].sum()
        torch.testing.assert_close(counts, expected, atol=0.015, rtol=0)


# erasing and cropping


def some_rectangles() -> tuple[list[tuple[int, int, int, int]], Rectangles]:
    places = [(0, 0, 4, 9), (3, 5, 1, 1), (10, 2, 6, 22), (0, 0, 16, 24)]
    columns = torch.tensor(places, dtype=torch.float32).unbind(1)
    names = ("top", "left", "height", "width")
    return places, Rectangles(found=torch.ones(4, dtype=torch.bool), **dict(zip(names, columns, strict=True)))


def test_covered_pixels_are_those_that_torchvision_erases() -> None:
    places, rectangles = some_rectangles()
    images = torch.zeros(4, 1, 16, 24)
    expected = torch.stack(
        [theirs.erase(image, *place, torch.tensor(1.0)) for image, place in zip(images, places, strict=True)]
    )
    assert torch.equal(covered(rectangles, 16, 24).float(), expected)
    spared = replace(rectangles, found=torch.tensor([True, False, True, False]))
    assert covered(spared, 16, 24).flatten(1).any(1).tolist() == [True, False, True, False]


def test_random_rectangles_have_the_areas_and_shapes_asked_for() -> None:
    images = torch.zeros(4000, 1, 100, 100)
    found = random_rectangles(images, min_area=0.02, max_area=0.4, aspect=0.3, generator=seeded())
    assert found.found.all()
    assert (found.top >= 0).all() and (found.left >= 0).all()
    assert (found.top + found.height <= 100).all() and (found.left + found.width <= 100).all()
    area = found.height * found.width / 10000
    assert 0.018 < area.min() and area.max() < 0.41
    ratio = found.height / found.width
    assert 0.27 < ratio.min() and ratio.max() < 3.7
    assert ratio.log().mean().item() == pytest.approx(0, abs=0.04)
    middle = (found.top / (100 - found.height).clamp(min=1)).mean().item()
    assert middle == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("fill", ["random", "mean", "zero"])
def test_erasing_fills_as_asked(fill: str) -> None:
    images = pictures(400)
    erasing = Erasing(probability=0.7, fill=fill)
    result = erasing.augment(batch_of(images), seeded(5)).images
    inside = covered(erasing.rectangles(images, seeded(5)), 32, 32)
    erased = inside.flatten(1).any(1)
    assert erased.float().mean().item() == pytest.approx(0.7, abs=0.08)
    assert torch.equal(torch.where(inside, 0.0, result), torch.where(inside, 0.0, images))
    values = result.masked_select(inside)
    if fill == "zero":
        assert values.abs().max() == 0
    elif fill == "mean":
        expected = images.mean((2, 3), keepdim=True).expand_as(images).masked_select(inside)
        torch.testing.assert_close(values, expected)
    else:
        assert values.mean().item() == pytest.approx(0.5, abs=0.01)
        assert values.var().item() == pytest.approx(1 / 12, abs=0.005)


def test_enlarged_windows_are_those_of_torchvision() -> None:
    places, rectangles = some_rectangles()
    images = pictures(4, 3, 16, 24)
    windows = torch.stack((rectangles.top, rectangles.left, rectangles.height, rectangles.width))
    expected = torch.stack(
        [
            theirs.resized_crop(image, *place, [16, 24], InterpolationMode.BILINEAR, antialias=False)
            for image, place in zip(images, places, strict=True)
        ]
    )
    torch.testing.assert_close(enlarge(images, windows), expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(enlarge(images, windows)[3], images[3], atol=2e-5, rtol=0)


def test_resized_crop_takes_windows_inside_the_image() -> None:
    top, left, height, width = ResizedCrop().windows(torch.zeros(3000, 3, 40, 60), seeded())
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 40).all() and (left + width <= 60).all()
    share = height * width / 2400
    assert 0.07 < share.min() < 0.1 and share.max() <= 1
    ratio = height / width
    proper = (height < 40) & (width < 60)
    assert 0.7 < ratio[proper].min() and ratio[proper].max() < 1.42


# stochastic depth


class Chain(nn.Module):
    """Blocks x + 1, so that the output counts the branches that were kept, each scaled by 1 / (1 - its rate)."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(PlusOne() for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.blocks(x)
        return result


class PlusOne(nn.Module):
    residual_branch = "end"

    def __init__(self) -> None:
        super().__init__()
        self.end = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.end(torch.ones_like(x))


@pytest.mark.parametrize(("rule", "rates"), [("linear", (0.15, 0.3, 0.45, 0.6)), ("uniform", (0.6,) * 4)])
def test_branches_are_dropped_at_the_rates_of_the_paper(rule: str, rates: tuple[float, ...]) -> None:
    model = StochasticDepth(rate=0.6, rule=rule).prepare(Chain(4))
    torch.manual_seed(0)
    steps: list[Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _m, inputs, output: steps.append(output - inputs[0]))
    model(torch.zeros(20000, 2, 1, 1))
    for rate, step in zip(rates, steps, strict=True):
        assert torch.equal(step[:, 0], step[:, 1])  # an image is dropped as a whole
        kept = step[:, 0].flatten() > 0
        assert kept.float().mean().item() == pytest.approx(1 - rate, abs=0.02)
        torch.testing.assert_close(step[:, 0].flatten()[kept].mean(), torch.tensor(1 / (1 - rate)), atol=1e-3, rtol=0)


def residual_models() -> dict[str, tuple[Callable[[], nn.Module], int]]:
    import timm

    norm = nn.BatchNorm2d
    return {
        "resnet": (lambda: resnet(4, (3, 16, 16), norm, n=2, width=4), 6),
        "basenet": (lambda: basenet(4, (3, 16, 16), norm, blocks=(8, 8, 16, 8)), 4),
        "timm resnet18": (lambda: timm.create_model("resnet18", num_classes=4), 8),
        "timm vit": (lambda: timm.create_model("test_vit", num_classes=4, img_size=16), 12),
    }


def with_open_branches(model: nn.Module) -> nn.Module:
    """Return the model with all norms' weights one; timm starts those at the end of a branch at zero."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
    return model


@pytest.mark.parametrize("name", ["resnet", "basenet", "timm resnet18", "timm vit"])
def test_residual_blocks_are_found(name: str) -> None:
    make, hooks = residual_models()[name]
    torch.manual_seed(1)
    plain = with_open_branches(make())
    torch.manual_seed(1)
    model = StochasticDepth(rate=0.5).prepare(with_open_branches(make()))
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks
    assert list(model.state_dict()) == list(plain.state_dict())
    images = torch.rand(4, 3, 16, 16, generator=seeded())
    assert torch.equal(model.eval()(images), plain.eval()(images))
    model.train(), plain.train()
    torch.manual_seed(2)
    first = model(images)
    assert not torch.allclose(first, plain(images))
    torch.manual_seed(2)
    assert torch.equal(model(images), first)


def test_stochastic_depth_off_is_the_baseline() -> None:
    model = basenet(4, (3, 16, 16), nn.BatchNorm2d, blocks=(8,), pool_after=())
    assert StochasticDepth(rate=0.0).prepare(model) is model
    assert not any(module._forward_hooks for module in model.modules())


def test_stochastic_depth_needs_residual_blocks() -> None:
    model = basenet(4, (3, 16, 16), nn.BatchNorm2d, blocks=(8,), pool_after=(), residual=False)
    with pytest.raises(PluginError, match="finds no residual blocks in BaseNet"):
        StochasticDepth().prepare(model)
