"""The network of the CIFAR-100 ablation ladder: every rung of it is one option changed.

The options of the model at each step (steps 8 to 10 change the data, the augmentation and the epochs):

    step  blocks                          pool_after  norm_position  doubled  residual  residual_scale  fc_norm
    0     64, 128                         1, 2        none           false    false     1.0             none
    1     64, 128                         1, 2        after-conv     false    false     1.0             none
    2     64, 64, 128, 128, 256           2, 4        after-conv     false    false     1.0             none
    3     64, 64, 128, 128, 256, 256      2, 4        after-conv     false    false     1.0             none
    4     64, 64, 128, 128, 256, 256      2, 4        after-conv     true     false     1.0             none
    5     64, 64, 128, 128, 256, 256      2, 4        after-conv     true     true      1.0             none
    6     64, 64, 128, 128, 256, 256      2, 4        after-conv     true     true      0.1             none
    7-10  64, 64, 128, 128, 256, 256      2, 4        after-conv     true     true      0.1             hidden

The report gives the number of sub-blocks but not their channels, which are ours. The network that it lists at its end
is blocks = 3 times 64, 4 times 128, 6 times 256 and 3 times 512, pool_after = [16], doubled, residual, residual_scale
= 0.1 and fc_norm = "logits": there the last norm stands after the second linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from benchkit import NormFactory, Range, card
from benchkit_models.initialisation import INITIALISATIONS, initialise, require

NORM_POSITIONS = ("after-conv", "after-relu", "none")
FC_NORMS = ("none", "hidden", "logits")
STEM = 64


@card(
    title="BaseNet (ablation ladder)",
    summary="Convolution blocks whose norm, length, doubling, residual path and scaling are switched one by one.",
    reference="He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016",
    url="https://arxiv.org/abs/1512.03385",
    ranges={
        "blocks": Range(low=1, high=4096),
        "pool_after": Range(low=1, high=100),
        "residual_scale": Range(low=0.0, high=1.0),
        "hidden": Range(low=1, high=4096),
    },
    choices={"norm_position": NORM_POSITIONS, "fc_norm": FC_NORMS, "init": INITIALISATIONS},
    ignores={"model.norm": {"norm_position": "none", "fc_norm": "none"}},
)
def basenet(
    num_classes: int,
    image_shape: tuple[int, int, int],
    norm: NormFactory,
    /,
    *,
    blocks: Sequence[int] = (64, 64, 128, 128, 256, 256),
    pool_after: Sequence[int] = (2, 4),
    norm_position: str = "after-conv",
    doubled: bool = True,
    residual: bool = True,
    residual_scale: float = 0.1,
    fc_norm: str = "hidden",
    hidden: int = 50,
    init: str = "default",
) -> BaseNet:
    """Return the network with one sub-block of each width in `blocks` after a convolution to 64 channels.

    `pool_after` counts sub-blocks from 1: a 2x2 max pool stands after each of these. `norm_position` says where the
    study's norm stands in a sub-block, `doubled` gives every sub-block a second convolution, `residual` adds its input
    to its output times `residual_scale`. `fc_norm` puts the study's norm after the first linear layer (hidden), after
    the second (logits) or nowhere, where norms that average over pixels alone have nothing to average; `hidden` is the
    size of the first. `init` is default, kaiming-uniform or xavier.
    """
    shrunk = 2 ** len(pool_after)
    problems = [f"blocks = {list(blocks)}: expected widths of at least 1"] if not blocks or min(blocks) < 1 else []
    if len(set(pool_after)) != len(pool_after) or not set(pool_after) <= set(range(1, len(blocks) + 1)):
        problems.append(f"pool_after = {list(pool_after)}: expected different numbers from 1 to {len(blocks)}")
    if min(image_shape[1:]) < shrunk:
        problems.append(f"images are {image_shape[1]}x{image_shape[2]}: {len(pool_after)} pools leave nothing of them")
    for name, value, known in (("norm_position", norm_position, NORM_POSITIONS), ("fc_norm", fc_norm, FC_NORMS)):
        if value not in known:
            problems.append(f"{name} = {value!r}: expected one of {', '.join(known)}")
    if hidden < 1:
        problems.append(f"hidden = {hidden}: expected at least 1")
    require("basenet", problems, init=init)
    scale = residual_scale if residual else None
    layers = _sub_blocks(blocks, pool_after, norm, norm_position, doubled, scale)
    stem = nn.Sequential(*_convolution(image_shape[0], STEM, norm, norm_position))
    inputs = blocks[-1] * (image_shape[1] // shrunk) * (image_shape[2] // shrunk)
    model = BaseNet(stem, layers, _head(inputs, hidden, num_classes, norm, fc_norm))
    initialise(model, init)
    return model


class BaseNet(nn.Module):
    """A convolution, the sub-blocks with their max pools, and two linear layers."""

    dropout_sites = ("stem", "head.hidden")

    def __init__(self, stem: nn.Sequential, blocks: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = blocks
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, K) for images (N, C, H, W)."""
        logits: torch.Tensor = self.head(self.blocks(self.stem(images)).flatten(1))
        return logits


class SubBlock(nn.Module):
    """The layers of a sub-block; with `scale`, their output times `scale` plus the input, filled up with zero channels.

    There is no ReLU after the sum.
    """

    def __init__(self, branch: nn.Sequential, *, extra: int, scale: float | None) -> None:
        super().__init__()
        self.branch = branch
        self.extra = extra
        self.scale = scale
        self.residual_branch = None if scale is None else "branch"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, outputs, H, W) of the same height and width."""
        result: torch.Tensor = self.branch(features)
        if self.scale is None:
            return result
        if self.extra < 0:
            features = features[:, : self.extra]
        carried = functional.pad(features, (0, 0, 0, 0, 0, self.extra)) if self.extra > 0 else features
        return torch.add(carried, result, alpha=self.scale)


def _sub_blocks(
    widths: Sequence[int],
    pool_after: Sequence[int],
    norm: NormFactory,
    position: str,
    doubled: bool,
    scale: float | None,
) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = STEM
    for number, outputs in enumerate(widths, start=1):
        branch = _convolution(inputs, outputs, norm, position)
        if doubled:
            branch += _convolution(outputs, outputs, norm, position)
        layers.append(SubBlock(nn.Sequential(*branch), extra=outputs - inputs, scale=scale))
        if number in pool_after:
            layers.append(nn.MaxPool2d(2))
        inputs = outputs
    return nn.Sequential(*layers)


def _convolution(inputs: int, outputs: int, norm: NormFactory, position: str) -> list[nn.Module]:
    """Return a 3x3 convolution and ReLU, with the norm between them, behind them or nowhere."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    if position != "none":
        layers.insert(1 if position == "after-conv" else 2, norm(outputs))
    return layers


def _head(inputs: int, hidden: int, classes: int, norm: NormFactory, fc_norm: str) -> nn.Sequential:
    head = nn.Sequential()
    head.add_module("linear", nn.Linear(inputs, hidden))
    if fc_norm == "hidden":
        head.add_module("norm", _pixelwise(norm, hidden))
    head.add_module("hidden", nn.ReLU())
    head.add_module("classifier", nn.Linear(hidden, classes))
    if fc_norm == "logits":
        head.add_module("norm", _pixelwise(norm, classes))
    return head


def _pixelwise(norm: NormFactory, size: int) -> nn.Sequential:
    """Return the norm for features (N, size), which it sees as the channels of a one-pixel image."""
    return nn.Sequential(nn.Unflatten(1, (size, 1, 1)), norm(size), nn.Flatten())
