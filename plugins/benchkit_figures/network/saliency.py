"""Grad-CAM: which places of an image speak for a class.

Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra, Grad-CAM: Visual Explanations from Deep Networks via
Gradient-Based Localization, ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from benchkit_figures.network.layer_outputs import last_maps

AT_ONCE = 32
"""Images whose maps are computed together: their gradients bound the memory."""


def heat_maps(
    model: nn.Module, images: torch.Tensor, classes: torch.Tensor, layer: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Grad-CAM (N, h, w) at a layer for the class of each image, and the logits (N, K), both float32.

    ReLU(sum over c of w_c A_c), where A (N, C, h, w) is the layer's output and w_c the mean over h and w of the
    gradient of the class's logit with respect to A_c. A negative entry of `classes` (N,) stands for the
    predicted class. No gradient reaches the model's parameters, and none of them needs to take any.
    """
    taken: list[torch.Tensor] = []

    def detach(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        taken[:] = [output.detach().requires_grad_()]
        return taken[0].clone()  # what follows may change it in place

    handle = model.get_submodule(layer).register_forward_hook(detach)
    try:
        with torch.enable_grad():
            logits: torch.Tensor = model(images)
            wanted = torch.where(classes < 0, logits.argmax(1), classes)
            score = logits.gather(1, wanted[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, taken[0])
    finally:
        handle.remove()
    maps = taken[0].detach().float()
    weights = gradient.float().mean(dim=(2, 3), keepdim=True)
    return torch.relu((weights * maps).sum(1)), logits.detach().float()


def explained(model: nn.Module, images: torch.Tensor) -> Mapping[str, np.ndarray]:
    """Return Grad-CAM of the predicted classes at the last feature maps, or nothing for a model without them.

    `maps.LAYER` uint8 (N, h, w): each image's map divided by its greatest value, in 255 steps (0 where nothing speaks
    for the class). `predicted` int64 (N,), `probability` float32 (N,): that of the predicted class.
    """
    layer = last_maps(model, images[:1])
    if layer is None:
        return {}
    maps, predicted, probability = [], [], []
    for part in torch.split(images, AT_ONCE):
        nowhere = torch.full((len(part),), -1, device=part.device)
        heat, logits = heat_maps(model, part, nowhere, layer)
        most = heat.amax(dim=(1, 2), keepdim=True)
        maps.append((255 * heat / torch.where(most > 0, most, 1.0)).round().to(torch.uint8).cpu())
        share, called = torch.softmax(logits, 1).max(1)
        predicted.append(called.cpu())
        probability.append(share.cpu())
    return {
        f"maps.{layer}": torch.cat(maps).numpy(),
        "predicted": torch.cat(predicted).numpy(),
        "probability": torch.cat(probability).numpy(),
    }
