"""The network of the skip-connection study: blocks of 64 and 128 channels whose skips can be switched off."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from benchkit import NormFactory, Range, card
from benchkit_models.initialisation import INITIALISATIONS, initialise, require

NARROW, WIDE = 64, 128
LAYOUTS = ("three-samplers", "source")


@card(
    title="Skip network",
    summary="Blocks of 64 and 128 channels with skip connections that can be switched off, and two linear layers.",
    reference="He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016",
    url="https://arxiv.org/abs/1512.03385",
    ranges={"depth": Range(low=8, high=512)},
    choices={"layout": LAYOUTS, "init": INITIALISATIONS},
)
def skipnet(
    num_classes: int,
    image_shape: tuple[int, int, int],
    norm: NormFactory,
    /,
    *,
    depth: int = 32,
    skip_connections: bool = True,
    layout: str = "three-samplers",
    init: str = "kaiming-uniform",
) -> SkipNet:
    """Return the network with depth/8 blocks of 64 and depth/8 blocks of 128 channels.

    `depth` is a multiple of 8. With a norm of two tensors there are 172 parameter tensors at depth 64 and 108 at depth
    32, with and without `skip_connections`. `init` is kaiming-uniform, kaiming-uniform-conv, xavier or default. Images
    are at least 8x8.

    `layout` is "source", the network of the published code, or "three-samplers", in which no parameter is idle; see
    `SkipNet`.
    """
    height, width = image_shape[1:]
    problems = [] if depth > 0 and depth % 8 == 0 else [f"depth = {depth}: expected a positive multiple of 8"]
    if min(height, width) < 8:
        problems.append(f"images are {height}x{width}: expected at least 8x8")
    if layout not in LAYOUTS:
        problems.append(f"layout = {layout!r}: expected one of {', '.join(LAYOUTS)}")
    require("skipnet", problems, init=init)
    plan = _as_published if layout == "source" else _with_three_samplers
    model = SkipNet(num_classes, image_shape, plan(image_shape, norm, depth // 8, skip_connections))
    initialise(model, init)
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a layout is made of, in the order of the forward pass, and the height and width of the last maps."""

    stem: nn.Sequential
    group1: nn.Sequential
    group2: nn.Sequential
    widen: nn.Module
    group3: nn.Sequential
    size: tuple[int, int]
    unused: nn.Module | None = None


class SkipNet(nn.Module):
    """Stem, two groups of 64 channels, a widening block, a group of 128 channels, and 8192 -> 1000 -> K for 64x64.

    The stem is a 3x3 convolution, ReLU and a 2x2 max pool. Both layouts make 128 maps of 8x8 of images of 64x64.

    source: the max pool halves (64 becomes 32). A quarter of the blocks of 64 channels, a down-sampling block, the rest
    of them, a second down-sampling block, the widening block, the blocks of 128 channels. A third down-sampling
    block is declared and never called, and so are the second convolution and norm of the widening block: 10,295,925
    parameters for 5 classes at depth 32, of whose 108 tensors 94 get a gradient.

    three-samplers: the max pool has stride 1 (64 becomes 63), and each of the three groups ends with a down-sampling
    block; half of the blocks of 64 channels stand in each of the first two. Everything declared takes part.
    """

    dropout_sites = ("stem", "hidden")

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], parts: Parts) -> None:
        super().__init__()
        self.stem, self.group1, self.group2 = parts.stem, parts.group1, parts.group2
        self.widen, self.group3 = parts.widen, parts.group3
        if parts.unused is not None:
            self.unused = parts.unused
        height, width = parts.size
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(WIDE * height * width, 1000), nn.ReLU())
        self.classifier = nn.Linear(1000, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, K) for images (N, C, H, W)."""
        features = self.group2(self.group1(self.stem(images)))
        features = self.group3(self.widen(features))
        logits: torch.Tensor = self.classifier(self.hidden(features))
        return logits


def _with_three_samplers(image_shape: tuple[int, int, int], norm: NormFactory, blocks: int, skip: bool) -> Parts:
    channels, height, width = image_shape
    return Parts(
        stem=_stem(channels, stride=1),
        group1=_group(NARROW, blocks // 2, norm, skip),
        group2=_group(NARROW, blocks - blocks // 2, norm, skip),
        widen=SkipBlock(NARROW, WIDE, norm, skip=skip),
        group3=_group(WIDE, blocks, norm, skip),
        size=(_shrunk(height - 1, 8), _shrunk(width - 1, 8)),
    )


def _as_published(image_shape: tuple[int, int, int], norm: NormFactory, blocks: int, skip: bool) -> Parts:
    channels, height, width = image_shape
    return Parts(
        stem=_stem(channels, stride=2),
        group1=_group(NARROW, blocks // 4, norm, skip),
        group2=_group(NARROW, blocks - blocks // 4, norm, skip),
        widen=HalfBlock(NARROW, WIDE, norm, skip=skip),
        group3=nn.Sequential(*(SkipBlock(WIDE, WIDE, norm, skip=skip) for _ in range(blocks))),
        size=(_shrunk(height // 2, 4), _shrunk(width // 2, 4)),
        unused=SkipBlock(WIDE, WIDE, norm, skip=skip, downsample=True),
    )


def _stem(channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, NARROW, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, stride=stride))


def _group(channels: int, blocks: int, norm: NormFactory, skip: bool) -> nn.Sequential:
    """Return the blocks of a group and the one that halves height and width."""
    plain = [SkipBlock(channels, channels, norm, skip=skip) for _ in range(blocks)]
    return nn.Sequential(*plain, SkipBlock(channels, channels, norm, skip=skip, downsample=True))


def _shrunk(side: int, times: int) -> int:
    """Return a side after down-samplers that divide it by `times` together; each rounds up."""
    return -(-side // times)


class SkipBlock(nn.Module):
    """conv-norm-ReLU-conv-norm-ReLU, a down-sampler for both paths or none, plus the input.

    When the block widens, the input is concatenated with itself: 64 channels become 128. Without `skip` nothing is
    added. The down-sampler is a 1x1 convolution of stride 2 that both paths share.
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


class HalfBlock(nn.Module):
    """The widening block as published: conv-norm-ReLU plus the input twice; its second half is declared and idle."""

    def __init__(self, inputs: int, outputs: int, norm: NormFactory, *, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        self.copies = outputs // inputs
        self.branch = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), norm(outputs), nn.ReLU())
        self.unused = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), norm(outputs))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, outputs, H, W)."""
        result: torch.Tensor = self.branch(features)
        return result + torch.cat([features] * self.copies, dim=1) if self.skip else result
