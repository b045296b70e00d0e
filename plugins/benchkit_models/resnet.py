"""The residual network for small images, with 6n+2 layers.

He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchkit import NormFactory, Range, card
from benchkit_models.initialisation import require


@card(
    title="ResNet (6n+2 layers)",
    summary="The residual network for small images: three stages of n blocks with w, 2w and 4w channels.",
    reference="He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016",
    url="https://arxiv.org/abs/1512.03385",
    ranges={"n": Range(low=1, high=200), "width": Range(low=1, high=1024)},
    choices={"shortcut": ("A", "B")},
)
def resnet(
    num_classes: int,
    image_shape: tuple[int, int, int],
    norm: NormFactory,
    /,
    *,
    n: int = 2,
    width: int = 16,
    shortcut: str = "A",
) -> ResNet:
    """Return the network with 6n+2 weighted layers: n = 2 is ResNet-14, n = 3 ResNet-20.

    `width` is the number of channels of the first stage. `shortcut` A carries the input over by taking every second
    pixel and filling new channels with zeros, without parameters, as in the paper's CIFAR experiments; B projects it
    with a 1x1 convolution and a norm.
    """
    problems = [f"{name} = {value}: expected at least 1" for name, value in (("n", n), ("width", width)) if value < 1]
    if shortcut not in ("A", "B"):
        problems.append(f"shortcut = {shortcut!r}: expected 'A' or 'B'")
    require("resnet", problems)
    return ResNet(num_classes, image_shape[0], norm, n=n, width=width, project=shortcut == "B")


class ResNet(nn.Module):
    """Convolution, three stages of n residual blocks, global average pooling, linear classifier.

    Convolutions start from He's normal distribution (fan-out) and have no bias.
    """

    dropout_sites = ("stem", "pool")

    def __init__(
        self, num_classes: int, channels: int, norm: NormFactory, *, n: int, width: int, project: bool
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), norm(width), nn.ReLU())
        self.stage1 = _stage(width, width, n, norm, project)
        self.stage2 = _stage(width, 2 * width, n, norm, project)
        self.stage3 = _stage(2 * width, 4 * width, n, norm, project)
        self.pool = GlobalPool()
        self.classifier = nn.Linear(4 * width, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, K) for images (N, C, H, W)."""
        features = self.stage3(self.stage2(self.stage1(self.stem(images))))
        logits: torch.Tensor = self.classifier(self.pool(features))
        return logits


def _stage(inputs: int, outputs: int, n: int, norm: NormFactory, project: bool) -> nn.Sequential:
    """Return n blocks, the first of which halves height and width when the channel count grows."""
    first = Block(inputs, outputs, norm, project=project)
    return nn.Sequential(first, *(Block(outputs, outputs, norm, project=project) for _ in range(n - 1)))


class Block(nn.Module):
    """conv-norm-ReLU-conv-norm, plus the shortcut, then ReLU; with more channels out than in, the stride is 2."""

    residual_branch = "norm2"

    def __init__(self, inputs: int, outputs: int, norm: NormFactory, *, project: bool) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = norm(outputs)
        self.shortcut = _shortcut(inputs, outputs, norm, project)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, outputs, H, W), or half of H and W at stride 2."""
        residual = functional.relu(self.norm1(self.conv1(features)))
        total = self.norm2(self.conv2(residual)) + self.shortcut(features)
        return functional.relu(total, inplace=True)


def _shortcut(inputs: int, outputs: int, norm: NormFactory, project: bool) -> nn.Module:
    if inputs == outputs:
        return nn.Identity()
    if project:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), norm(outputs))
    return ZeroPad(outputs - inputs)


class ZeroPad(nn.Module):
    """The parameter-free shortcut: every second pixel, and `extra` channels of zeros behind the others."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (N, C + extra, H/2, W/2), rounded up."""
        # Pooling over one pixel is slicing whose gradient keeps the memory layout; a slice's own does not.
        kept = functional.avg_pool2d(features, 1, stride=2)
        count, _, height, width = kept.shape
        # Concatenated, not padded: compiled for a CPU, padding takes a seventh of a whole step. Zeros in
        # channels-last memory leave the result in the layout of what is kept, whichever that is.
        return torch.cat((kept, kept.new_zeros(count, height, width, self.extra).permute(0, 3, 1, 2)), 1)


class GlobalPool(nn.Module):
    """The mean over all pixels."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (N, C) for (N, C, H, W)."""
        # Unlike nn.AdaptiveAvgPool2d(1), this gives a gradient in the features' memory layout.
        return functional.avg_pool2d(features, features.shape[-2:]).flatten(1)
