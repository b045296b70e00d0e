"""The network of the skip-connection study: blocks of 64 and 128 channels whose skips can be switched off."""

from __future__ import annotations

import torch
from torch import nn

from benchkit import NormFactory, Range, card
from benchkit_models.initialisation import INITIALISATIONS, initialise, require

NARROW, WIDE = 64, 128


@card(
    title="Skip network",
    summary="Blocks of 64 and 128 channels with skip connections that can be switched off, and two linear layers.",
    reference="He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016",
    url="https://arxiv.org/abs/1512.03385",
    ranges={"depth": Range(low=8, high=512)},
    choices={"init": INITIALISATIONS},
)
def skipnet(
    num_classes: int,
    image_shape: tuple[int, int, int],
    norm: NormFactory,
    /,
    *,
    depth: int = 32,
    skip_connections: bool = True,
    init: str = "kaiming-uniform",
) -> SkipNet:
    """Return the network with depth/8 blocks of 64 and depth/8 blocks of 128 channels.

    `depth` is a multiple of 8. With a norm of two tensors there are 172 parameter tensors at depth 64 and 108 at depth
    32, with and without `skip_connections`. `init` is kaiming-uniform, xavier or default. Images are at least 8x8.
    """
    height, width = image_shape[1:]
    problems = [] if depth > 0 and depth % 8 == 0 else [f"depth = {depth}: expected a positive multiple of 8"]
    if min(height, width) < 8:
        problems.append(f"images are {height}x{width}: expected at least 8x8")
    require("skipnet", init, problems)
    model = SkipNet(num_classes, image_shape, norm, blocks=depth // 8, skip=skip_connections)
    initialise(model, init)
    return model


class SkipNet(nn.Module):
    """Stem, two groups of 64 channels, a widening block, a group of 128 channels, and 8192 -> 1000 -> K for 64x64.

    The stem is a 3x3 convolution, ReLU and a 2x2 max pool. Half of the `blocks` blocks of 64 channels stand in each of
    the first two groups, `blocks` of 128 in the last, and each group ends with a down-sampling block: the tensors that
    the report counts are those of three. The max pool has stride 1 (64 becomes 63), because only then do the three
    leave the 8x8 maps of 128 channels that make the report's 8192 features.
    """

    dropout_sites = ("stem", "hidden")

    def __init__(
        self, num_classes: int, image_shape: tuple[int, int, int], norm: NormFactory, *, blocks: int, skip: bool
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.stem = nn.Sequential(nn.Conv2d(channels, NARROW, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, stride=1))
        self.group1 = _group(NARROW, blocks // 2, norm, skip)
        self.group2 = _group(NARROW, blocks - blocks // 2, norm, skip)
        self.widen = Block(NARROW, WIDE, norm, skip=skip)
        self.group3 = _group(WIDE, blocks, norm, skip)
        pixels = _quartered(height - 1) * _quartered(width - 1)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(WIDE * pixels, 1000), nn.ReLU())
        self.classifier = nn.Linear(1000, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, K) for images (N, C, H, W)."""
        features = self.group2(self.group1(self.stem(images)))
        features = self.group3(self.widen(features))
        logits: torch.Tensor = self.classifier(self.hidden(features))
        return logits


def _group(channels: int, blocks: int, norm: NormFactory, skip: bool) -> nn.Sequential:
    """Return the blocks of a group and the one that halves height and width."""
    plain = [Block(channels, channels, norm, skip=skip) for _ in range(blocks)]
    return nn.Sequential(*plain, Block(channels, channels, norm, skip=skip, downsample=True))


def _quartered(side: int) -> int:
    """Return a side after the three down-samplers, each of which halves it and rounds up."""
    return -(-side // 8)


class Block(nn.Module):
    """conv-norm-ReLU-conv-norm-ReLU, a down-sampler for both paths or none, plus the input.

    When the block widens, the input is concatenated with itself: 64 channels become 128. Without `skip` nothing is
    added. The down-sampler is a 1x1 convolution of stride 2 that both paths share. The report counts eight tensors for
    the widening block as well but says that its second convolution is left out; here it takes part, so that no
    parameter is idle.
    """

    def __init__(self, inputs: int, outputs: int, norm: NormFactory, *, skip: bool, downsample: bool = False) -> None:
        super().__init__()
        self.skip = skip
        self.copies = outputs // inputs
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            norm(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            norm(outputs),
            nn.ReLU(),
        )
        self.downsampler = nn.Conv2d(outputs, outputs, 1, stride=2) if downsample else nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, outputs, H, W), or half of H and W, rounded up, when down-sampling."""
        result: torch.Tensor = self.downsampler(self.branch(features))
        if not self.skip:
            return result
        carried = features if self.copies == 1 else torch.cat([features] * self.copies, dim=1)
        return torch.add(result, self.downsampler(carried))
