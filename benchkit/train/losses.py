"""What the optimizer lowers: the usual loss, or a loss plugin fitted to the training labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchkit.study.settings import USUAL_LOSS, PluginRef

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Logits float32 (N, K) and targets float32 (N, K), whose rows sum to 1, to a scalar."""


def loss_function(plugin: Any, labels: Tensor, class_names: Sequence[str]) -> LossFunction:
    """Return the loss to train with on images with `labels` int64 (n,): `plugin`, fitted where it can be, or the usual.

    The usual one (None) is mean cross-entropy. Raise `TrainingError` where a class that the plugin needs has no image.
    """
    if plugin is None:
        return functional.cross_entropy
    if not hasattr(plugin, "prepare"):
        fixed: LossFunction = plugin
        return fixed
    prepared: LossFunction = plugin.prepare(torch.bincount(labels, minlength=len(class_names)))
    return prepared


def notes(settings: PluginRef) -> list[str]:
    """Return what a report says of a loss that is not the usual one."""
    if settings == USUAL_LOSS:
        return []
    given = ", ".join(f"{name} = {value}" for name, value in settings.options.items())
    return [
        f"trained by the loss {settings.name}{f' ({given})' if given else ''}: the training loss of an epoch is this "
        "one, every other loss is mean cross-entropy on the images as they are"
    ]
