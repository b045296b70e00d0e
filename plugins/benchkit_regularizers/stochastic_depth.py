"""Stochastic depth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchkit import PluginError, Range, card
from benchkit_regularizers.bounds import SHARE_BELOW_1, require

RULES = ("linear", "uniform")


@dataclass(frozen=True, slots=True)
class DropBranch:
    """A forward hook that drops a module's output for some images of the batch while that module trains."""

    rate: float

    def __call__(self, module: nn.Module, inputs: tuple[object, ...], output: Tensor) -> Tensor:
        """Return the output (N, ...), zero with probability `rate` for each image and else scaled by 1 / (1 - rate)."""
        if not module.training:
            return output
        keep = 1 - self.rate
        mask = torch.empty(len(output), *[1] * (output.ndim - 1), dtype=output.dtype, device=output.device)
        return output * mask.bernoulli_(keep).div_(keep)


def residual_branches(model: nn.Module) -> list[list[nn.Module]]:
    """Return, for each residual block in the model's order, the modules whose outputs are added to what skips them.

    A block says so with the attribute `residual_branch`, the name of that module. In timm's models it is what a
    block's stochastic depth stands behind: `drop_path`, or `drop_path1` and `drop_path2`.
    """
    blocks = []
    for block in model.modules():
        name = getattr(block, "residual_branch", None)
        if name:
            blocks.append([block.get_submodule(name)])
            continue
        names = [name for name in ("drop_path", "drop_path1", "drop_path2") if hasattr(block, name)]
        for name in names:
            if getattr(block, name) is None:
                setattr(block, name, nn.Identity())
        places = [branch for name in names if isinstance(branch := getattr(block, name), nn.Module)]
        if places:
            blocks.append(places)
    return blocks


@card(
    title="Stochastic depth",
    summary="In training, residual blocks are skipped at random for each image, deeper ones more often.",
    reference="G. Huang, Y. Sun, Z. Liu, D. Sedra and K. Q. Weinberger, Deep Networks with Stochastic Depth, ECCV 2016",
    url="https://arxiv.org/abs/1603.09382",
    ranges={"rate": Range(low=0.0, high=0.8)},
    choices={"rule": RULES},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class StochasticDepth:
    """Drop the residual branch of block l of L with probability `rate` * l / L (linear) or `rate` (uniform).

    Each image draws for itself, and branches that stay are scaled by 1 / (1 - probability), so that nothing changes in
    evaluation. Attached as forward hooks: names in the state dict stay. It draws from PyTorch's global random state,
    as dropout does.
    """

    rate: float = 0.2
    rule: str = "linear"

    def __post_init__(self) -> None:
        require(
            "stochastic-depth",
            self,
            rate=SHARE_BELOW_1,
            problems=() if self.rule in RULES else (f"rule = {self.rule!r}: expected one of {', '.join(RULES)}",),
        )

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the same model with hooks on its residual branches; at rate 0 unchanged.

        Raise `PluginError` where the model has no residual blocks that can be told.
        """
        if self.rate == 0:
            return model
        blocks = residual_branches(model)
        if not blocks:
            raise PluginError(
                f"stochastic depth finds no residual blocks in {type(model).__name__}",
                hint="it works with resnet, basenet (residual = true) and timm's models; a block of your own names the "
                "module that ends its residual branch in an attribute `residual_branch`",
            )
        for depth, branches in enumerate(blocks, start=1):
            rate = self.rate * depth / len(blocks) if self.rule == "linear" else self.rate
            for branch in branches:
                branch.register_forward_hook(DropBranch(rate))
        return model
