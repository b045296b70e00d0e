"""The plain network that the skip-connection study compares with."""

from __future__ import annotations

import torch
from torch import nn

from benchkit import NormFactory, Range, card
from benchkit_models.initialisation import INITIALISATIONS, initialise, require


@card(
    title="Plain deep network (net3)",
    summary="A chain of 3x3 convolutions and ReLU without skip connections or norms, and two linear layers.",
    reference="LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition, Proc. IEEE "
    "86(11), 1998",
    url="https://doi.org/10.1109/5.726791",
    ranges={"layers": Range(low=0, high=100), "width": Range(low=1, high=1024)},
    choices={"init": INITIALISATIONS},
    ignores={"model.norm": {}},
)
def net3(
    num_classes: int,
    image_shape: tuple[int, int, int],
    norm: NormFactory,
    /,
    *,
    layers: int = 10,
    width: int = 32,
    init: str = "xavier",
) -> Net3:
    """Return the network with `layers` convolutions of `width` channels after the first two.

    The study's norm is not used. `init` is xavier, kaiming-uniform or default. Images are at least 4x4.
    """
    height, across = image_shape[1:]
    problems = [
        f"{name} = {value}: expected at least {least}"
        for name, value, least in (("layers", layers, 0), ("width", width, 1))
        if value < least
    ]
    if min(height, across) < 4:
        problems.append(f"images are {height}x{across}: expected at least 4x4")
    require("net3", problems, init=init)
    model = Net3(num_classes, image_shape, layers=layers, width=width)
    initialise(model, init)
    return model


class Net3(nn.Module):
    """Two convolutions with a 2x2 max pool each, the chain, a hidden layer of 64 and a linear classifier."""

    dropout_sites = ("stem", "hidden")

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], *, layers: int, width: int) -> None:
        super().__init__()
        channels, height, across = image_shape
        first = max(1, width // 2)
        self.stem = nn.Sequential(
            *_convolution(channels, first), nn.MaxPool2d(2), *_convolution(first, width), nn.MaxPool2d(2)
        )
        self.chain = nn.Sequential(*(layer for _ in range(layers) for layer in _convolution(width, width)))
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(width * (height // 4) * (across // 4), 64), nn.ReLU())
        self.classifier = nn.Linear(64, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, K) for images (N, C, H, W)."""
        logits: torch.Tensor = self.classifier(self.hidden(self.chain(self.stem(images))))
        return logits


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()
