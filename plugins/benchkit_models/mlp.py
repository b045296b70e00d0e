"""The multi-layer perceptron on flattened images."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from benchkit import NormFactory, card
from benchkit_models.initialisation import require


@card(
    title="Multi-layer perceptron",
    summary="Fully connected layers with ReLU between them, on flattened images.",
    reference="Rumelhart, Hinton and Williams, Learning Representations by Back-Propagating Errors, Nature 323, 1986",
    url="https://doi.org/10.1038/323533a0",
    ignores={"model.norm": {"normalize": False}},
)
def mlp(
    num_classes: int,
    image_shape: tuple[int, int, int],
    norm: NormFactory,
    /,
    *,
    hidden: Sequence[int] = (500, 500),
    normalize: bool = False,
) -> MLP:
    """Return the perceptron with one hidden layer of each size in `hidden`.

    The study's norm is used only with `normalize`: it then stands before every ReLU and sees the features as channels
    of a one-pixel image, (N, C, 1, 1), where norms that average over pixels alone have nothing to average.
    """
    problems = [f"hidden = {list(hidden)}: expected sizes of at least 1"] if any(size < 1 for size in hidden) else []
    require("mlp", problems)
    return MLP(num_classes, prod(image_shape), tuple(hidden), norm if normalize else None)


class MLP(nn.Module):
    """Flatten, hidden layers named `hidden1`, `hidden2`, ..., and a linear classifier."""

    def __init__(self, num_classes: int, inputs: int, hidden: tuple[int, ...], norm: NormFactory | None) -> None:
        super().__init__()
        self.dropout_sites = tuple(f"hidden{index}" for index, _ in enumerate(hidden, start=1))
        for site, size in zip(self.dropout_sites, hidden, strict=True):
            self.add_module(site, nn.Sequential(nn.Linear(inputs, size), *_pixelwise(norm, size), nn.ReLU()))
            inputs = size
        self.classifier = nn.Linear(inputs, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, K) for images (N, C, H, W)."""
        features = images.flatten(1)
        for site in self.dropout_sites:
            features = getattr(self, site)(features)
        logits: torch.Tensor = self.classifier(features)
        return logits


def _pixelwise(norm: NormFactory | None, size: int) -> tuple[nn.Module, ...]:
    return () if norm is None else (nn.Unflatten(1, (size, 1, 1)), norm(size), nn.Flatten())
