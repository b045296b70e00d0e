"""Several trials of one architecture fused into one network, in two ways, to be trained as if each were alone.

Wang, Zhao, Zheng, Wu, Jiang, Xu and others, Horizontally Fused Training Array, MLSys 2021: layers of equal shape become
one layer, a convolution a grouped one, so that small networks fill a large device. `torch.func` gets there by batching
every operation over stacked weights, whatever the layers are; replacing layers one by one needs to know each of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

Forward = Callable[[torch.Tensor], torch.Tensor]
"""Images (T, N, C, H, W) of T trials to logits (T, N, K)."""


class GroupedLinear(nn.Module):
    """T linear layers side by side, features (N, T * F) to (N, T, K)."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return each layer's outputs on its own part of the features."""
        parts = features.unflatten(1, (len(self.weight), -1)).transpose(0, 1)
        return torch.baddbmm(self.bias.unsqueeze(1), parts, self.weight.transpose(1, 2)).transpose(0, 1)


def by_layers(models: Sequence[nn.Module]) -> tuple[Forward, Sequence[torch.Tensor]]:
    """Return the forward pass of all models as one network, and its parameters: layers replaced by grouped ones.

    It knows convolutions, batch norm, one linear layer at the end, and what works on each channel or map alone.
    """
    fused = copy.deepcopy(models[0])
    for name, layer in list(fused.named_modules()):
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            parent, _, own = name.rpartition(".")
            alike = [model.get_submodule(name) for model in models]
            setattr(fused.get_submodule(parent), own, _side_by_side(alike))

    def forward(images: torch.Tensor) -> torch.Tensor:
        together = images.transpose(0, 1).flatten(1, 2)
        logits: torch.Tensor = fused(together)
        return logits.transpose(0, 1)

    return forward, list(fused.parameters())


def _side_by_side(layers: Sequence[nn.Module]) -> nn.Module:
    """Return one layer that does what equal-shaped layers do, each on its own channels."""
    first, times = layers[0], len(layers)
    if isinstance(first, nn.Linear):
        return GroupedLinear([layer for layer in layers if isinstance(layer, nn.Linear)])
    if isinstance(first, nn.BatchNorm2d):
        made: nn.Module = nn.BatchNorm2d(times * first.num_features)
    else:
        assert isinstance(first, nn.Conv2d)
        sizes = times * first.in_channels, times * first.out_channels, first.kernel_size
        shape = {"stride": first.stride, "padding": first.padding, "bias": first.bias is not None}
        made = nn.Conv2d(*sizes, groups=times * first.groups, **shape)  # type: ignore[arg-type]
    states = [layer.state_dict() for layer in layers]
    made.load_state_dict({name: _joined([state[name] for state in states]) for name in states[0]})
    return made


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(parts)) if parts[0].ndim else parts[0]


def by_batching(models: Sequence[nn.Module]) -> tuple[Forward, Sequence[torch.Tensor]]:
    """Return the forward pass of all models as one network, and its parameters: by `torch.func`, for any layers."""
    parameters, buffers = stack_module_state(list(models))
    shape = copy.deepcopy(models[0]).to("meta")

    def one(
        weights: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], images: torch.Tensor
    ) -> torch.Tensor:
        logits: torch.Tensor = functional_call(shape, (dict(weights), dict(state)), (images,))
        return logits

    def forward(images: torch.Tensor) -> torch.Tensor:
        return vmap(one)(parameters, buffers, images)

    return forward, list(parameters.values())


def apart(models: Sequence[nn.Module]) -> tuple[Forward, Sequence[torch.Tensor]]:
    """Return the forward passes of all models one after another, and all their parameters."""

    def forward(images: torch.Tensor) -> torch.Tensor:
        return torch.stack([model(part) for model, part in zip(models, images, strict=True)])

    return forward, [parameter for model in models for parameter in model.parameters()]


WAYS: Mapping[str, Callable[[Sequence[nn.Module]], tuple[Forward, Sequence[torch.Tensor]]]] = {
    "one after another": apart,
    "fused, grouped layers": by_layers,
    "fused, torch.func": by_batching,
}


def training_step(
    forward: Forward, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor, bf16: bool
) -> Callable[[], torch.Tensor]:
    """Return a step on images (T, N, C, H, W) with labels (T, N) that returns each trial's loss before it, (T,).

    The losses are summed, so that every trial has the gradients that it would have alone.
    """

    def step() -> torch.Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits = forward(images)
        each = functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="none")
        losses = each.view_as(labels).mean(1)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        return losses.detach()

    return step
