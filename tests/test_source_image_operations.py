"""The image operations of RandAugment and AutoAugment, against torchvision's with the same parameters."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from benchkit_regularizers.image_operations import OPERATIONS, number, strengths, transform
from pictures import pictures
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as theirs

NEAREST = InterpolationMode.NEAREST
FILL = 0.5


def ours(images: Tensor, name: str, strength: float, *, dense: bool = False) -> Tensor:
    count = len(images)
    return transform(images, torch.full((count,), number(name)), torch.full((count,), strength), FILL, dense=dense)


def affine(image: Tensor, *, translate: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    return theirs.affine(
        image, 0.0, list(translate), 1.0, list(shear), NEAREST, fill=[FILL], center=[0, 0] if any(shear) else None
    )


def degrees(slope: float) -> float:
    return math.degrees(math.atan(slope))


GEOMETRY: tuple[tuple[str, float, Callable[[Tensor], Tensor]], ...] = (
    ("shear-x", 0.21, lambda image: affine(image, shear=(degrees(0.21), 0.0))),
    ("shear-x", -0.3, lambda image: affine(image, shear=(degrees(-0.3), 0.0))),
    ("shear-y", 0.17, lambda image: affine(image, shear=(0.0, degrees(0.17)))),
    ("translate-x", 9.0, lambda image: affine(image, translate=(9, 0))),
    ("translate-x", -4.0, lambda image: affine(image, translate=(-4, 0))),
    ("translate-y", 5.0, lambda image: affine(image, translate=(0, 5))),
    ("rotate", 21.0, lambda image: theirs.rotate(image, 21.0, NEAREST, fill=[FILL])),
    ("rotate", -30.0, lambda image: theirs.rotate(image, -30.0, NEAREST, fill=[FILL])),
)
VALUES: tuple[tuple[str, float, Callable[[Tensor], Tensor]], ...] = (
    ("brightness", 1.7, lambda image: theirs.adjust_brightness(image, 1.7)),
    ("brightness", 0.3, lambda image: theirs.adjust_brightness(image, 0.3)),
    ("color", 1.9, lambda image: theirs.adjust_saturation(image, 1.9)),
    ("color", 0.1, lambda image: theirs.adjust_saturation(image, 0.1)),
    ("contrast", 1.6, lambda image: theirs.adjust_contrast(image, 1.6)),
    ("contrast", 0.4, lambda image: theirs.adjust_contrast(image, 0.4)),
    ("sharpness", 1.8, lambda image: theirs.adjust_sharpness(image, 1.8)),
    ("sharpness", 0.2, lambda image: theirs.adjust_sharpness(image, 0.2)),
    ("solarize", 0.4, lambda image: theirs.solarize(image, 0.4)),
    ("autocontrast", 0.0, theirs.autocontrast),
    ("invert", 0.0, theirs.invert),
)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("name", "strength", "reference"), GEOMETRY, ids=[f"{n} {s}" for n, s, _ in GEOMETRY])
def test_geometric_operations(name: str, strength: float, reference: Callable[[Tensor], Tensor], dense: bool) -> None:
    images = pictures(4, 3, 32, 24)
    expected = torch.stack([reference(image) for image in images])
    found = ours(images, name, strength, dense=dense)
    different = (found != expected).any(1).float().mean().item()
    # A pixel whose place falls between two others may be rounded either way.
    assert different <= (0.01 if name == "rotate" or "shear" in name else 0.0)
    assert (images != expected).any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "strength", "reference"), VALUES, ids=[f"{n} {s}" for n, s, _ in VALUES])
def test_value_operations(name: str, strength: float, reference: Callable[[Tensor], Tensor], channels: int) -> None:
    images = pictures(4, channels) * 0.8 + 0.1
    images[0] = 0.25  # a flat image
    expected = torch.stack([reference(image) for image in images])
    for dense in (False, True):
        torch.testing.assert_close(ours(images, name, strength, dense=dense), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("bits", [4, 5, 7, 8])
def test_posterize_on_the_256_levels(bits: int) -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    expected = theirs.posterize(levels, bits)
    found = ours(levels / 255, "posterize", float(bits))
    assert torch.equal((found * 255).round().to(torch.uint8), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_on_the_256_levels(channels: int) -> None:
    levels = (pictures(5, channels, 40, 40, seed=2) * 200 + 20).to(torch.uint8)
    levels[0] = 77  # one level only: stays
    levels[1, :, :20] = 3
    expected = torch.stack([theirs.equalize(image) for image in levels])
    found = ours(levels / 255, "equalize", 0.0)
    assert torch.equal((found * 255).round().to(torch.uint8), expected)
    assert not torch.equal(expected, levels)


def test_each_image_gets_its_own_operation_and_strength() -> None:
    images = pictures(1).expand(len(OPERATIONS), -1, -1, -1).contiguous()
    operation = torch.arange(len(OPERATIONS))
    strength = strengths(operation, torch.full((len(operation),), 0.6), operation % 2 == 0, 32, 32)
    expected = torch.cat(
        [ours(images[:1], name, amount) for name, amount in zip(OPERATIONS, strength.tolist(), strict=True)]
    )
    for dense in (False, True):
        torch.testing.assert_close(transform(images, operation, strength, FILL, dense=dense), expected)
    assert torch.equal(expected[0], images[0])
    assert all((expected[at] != images[0]).any() for at in range(1, len(OPERATIONS)))


def test_strengths_worked_by_hand() -> None:
    expected = {
        "identity": 0.0, "shear-x": -0.09, "shear-y": -0.09, "translate-x": -6.0, "translate-y": -4.0, "rotate": -9.0,
        "brightness": 0.73, "color": 0.73, "contrast": 0.73, "sharpness": 0.73, "posterize": 7.0, "solarize": 0.7,
        "autocontrast": 0.0, "equalize": 0.0, "invert": 0.0,
    }  # fmt: skip  # 150/331 * 0.3 of 48 and of 32 pixels: 6.53 and 4.35
    every = torch.arange(len(OPERATIONS))
    level, negative = torch.full((len(every),), 0.3), torch.ones(len(every), dtype=torch.bool)
    found = strengths(every, level, negative, 32, 48).tolist()
    assert dict(zip(OPERATIONS, found, strict=True)) == pytest.approx(expected)
    positive = strengths(every, level, ~negative, 32, 48).tolist()
    assert [positive[number(name)] for name in ("shear-x", "translate-x", "color")] == pytest.approx([0.09, 6, 1.27])
    none = strengths(every, 0 * level, negative, 32, 48).tolist()
    assert none == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 8, 1, 0, 0, 0]


def test_operations_at_level_zero_change_nothing() -> None:
    images = pictures(len(OPERATIONS))
    every = torch.arange(len(OPERATIONS))
    strength = strengths(every, torch.zeros(len(every)), torch.ones(len(every), dtype=torch.bool), 32, 32)
    result = transform(images, every, strength, FILL)
    for name in OPERATIONS[: number("solarize")]:
        torch.testing.assert_close(result[number(name)], images[number(name)], atol=1e-6, rtol=0)
