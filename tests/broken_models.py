"""Models that each break one promise, for the tests of the conformance kit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchkit import NormFactory, card

Shape = tuple[int, int, int]


class Sound(nn.Module):
    """A convolution, a norm, a linear classifier; the others change one thing."""

    def __init__(self, num_classes: int, image_shape: Shape, norm: NormFactory, width: int = 8) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(image_shape[0], width, 3, padding=1, bias=False)
        self.norm = norm(width)
        self.classifier = nn.Linear(width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        return self.norm(self.convolution(images)).relu().mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))


class TenClasses(Sound):
    def __init__(self, num_classes: int, image_shape: Shape, norm: NormFactory) -> None:
        super().__init__(10, image_shape, norm)


class ColourOnly(Sound):
    def __init__(self, num_classes: int, image_shape: Shape, norm: NormFactory) -> None:
        super().__init__(num_classes, (3, 1, 1), norm)


class OwnNorm(Sound):
    def __init__(self, num_classes: int, image_shape: Shape, norm: NormFactory) -> None:
        super().__init__(num_classes, image_shape, nn.BatchNorm2d)


@card(title="T", summary="S.", ignores={"model.norm": {"width": 8}})
class SaysItHasNoNorm(Sound):
    """It has one."""


@card(title="T", summary="S.", ignores={"model.norm": {"wide": True}})
class IgnoresByAnUnknownOption(Sound):
    """It has no such option."""


class NormOfOtherWidth(Sound):
    def __init__(self, num_classes: int, image_shape: Shape, norm: NormFactory) -> None:
        super().__init__(num_classes, image_shape, norm)
        self.norm = norm(4)

    def features(self, images: Tensor) -> Tensor:
        maps = self.convolution(images)
        return torch.cat([maps[:, :4], self.norm(maps)], 1).mean((2, 3))


class UnusedLayer(Sound):
    def __init__(self, num_classes: int, image_shape: Shape, norm: NormFactory) -> None:
        super().__init__(num_classes, image_shape, norm)
        self.spare = nn.Linear(3, 3)


class NumpyStart(Sound):
    def __init__(self, num_classes: int, image_shape: Shape, norm: NormFactory) -> None:
        super().__init__(num_classes, image_shape, norm)
        with torch.no_grad():
            self.classifier.bias.add_(float(np.random.random()))


class AlwaysDrops(Sound):
    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(nn.functional.dropout(self.features(images), 0.5, training=True))


class LooksAtTheBatch(Sound):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images - images.mean())


class ChangesItsInput(Sound):
    """Multiplies by infinity once training has begun."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits if not torch.is_grad_enabled() else logits * float("inf")


def returns_nothing(num_classes: int, image_shape: Shape, norm: NormFactory) -> Any:
    """Return no module."""
    return None
