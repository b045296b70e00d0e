"""One training step: augmentation, forward and backward pass, clipping, update, constraints, and what it tells."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from benchkit.gradients import gradient_norm
from benchkit.protocols import Batch
from benchkit.train.optimizers import align_gradients, set_rate
from benchkit.train.run import Run

Forward = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""What `forward_of` makes of a model, or a compiled form of it."""


def forward_of(model: nn.Module) -> Forward:
    """Return what computes, of input (N, C, H, W) and targets (N, K), their mean loss and how many images are correct.

    The loss is the cross entropy in float32; it is compiled together with the model.
    """

    def forward(images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = model(images)
        loss = functional.cross_entropy(logits.float(), targets)
        return loss, (logits.argmax(1) == targets.argmax(1)).sum()

    return forward


def train_step(run: Run, batch: Batch, step: int, forward: Forward | None = None) -> torch.Tensor:
    """Take one step and return (images, summed loss, correct images, gradient norm), float32 (4,), on the device.

    `step` counts from 0 over the whole of training; `forward` is that of the run's model unless given.
    """
    set_rate(run.optimizer, run.schedule(step))
    return update(run, batch, forward_of(run.model) if forward is None else forward)


def update(run: Run, batch: Batch, forward: Forward) -> torch.Tensor:
    """Do all of `train_step` but setting the learning rate: work for the device alone, which a CUDA graph can hold."""
    for augment in run.augments:
        batch = augment(batch, run.randomness.augment)
    # Autocast begins and ends in here, so its copies of the weights never outlive the graph that made them.
    with run.precision.autocast:
        loss, correct = forward(run.pixels(batch.images), batch.targets)
    for penalty in run.penalties:
        loss = loss + penalty(run.model)
    for parameter in run.parameters:  # what optimizer.zero_grad does, at a fraction of its price
        parameter.grad = None
    run.precision.backward(loss, run.optimizer)
    norm = gradient_norm([p.grad for p in run.parameters if p.grad is not None])
    for clip in run.clips:
        clip(run.parameters)
    if run.clips:
        align_gradients(run.parameters)
    run.precision.step(run.optimizer)
    for constrain in run.constraints:
        constrain()
    return _summary(loss.detach(), correct, len(batch.targets), norm)


def _summary(loss: torch.Tensor, correct: torch.Tensor, images: int, norm: torch.Tensor) -> torch.Tensor:
    return torch.stack((torch.full_like(loss, images), loss * images, correct, norm))
