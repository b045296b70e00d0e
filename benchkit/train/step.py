"""One training step, and steps taken one after the other: augmentation, both passes, clipping, update, constraints."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.nn import functional

from benchkit.gradients import gradient_norm
from benchkit.protocols import Batch
from benchkit.train.batches import BatchIndex, in_unit_range
from benchkit.train.run import Run
from benchkit.train.weight_update import align_gradients, set_rate

Learn = Callable[[Batch], torch.Tensor]
"""What `learn` does for one run, or a compiled form of it."""


def train_step(run: Run, batch: Batch, step: int, learning: Learn | None = None) -> torch.Tensor:
    """Take one step and return (images, summed loss, correct images, gradient norm), float32 (4,), on the device.

    `step` counts from 0 over the whole of training; `learning` takes the place of `learn` where it is given.
    """
    set_rate(run.optimizer, run.schedule(step))
    return update(run, batch, learning)


def update(run: Run, batch: Batch, learning: Learn | None = None) -> torch.Tensor:
    """Do all of `train_step` but setting the learning rate: work for the device alone, which a CUDA graph can hold."""
    batch = augmented(run, batch)
    return learn(run, batch) if learning is None else learning(batch)


def augmented(run: Run, batch: Batch) -> Batch:
    """Return the batch as the run's regularizers change it, who get its images as float32 in [0, 1]."""
    if run.augments:
        batch = Batch(images=in_unit_range(batch.images), targets=batch.targets)
    for augment in run.augments:
        batch = augment(batch, run.randomness.augment)
    return batch


def learn(run: Run, batch: Batch) -> torch.Tensor:
    """Change the model by what an augmented batch tells and return the step's summary, as `train_step` does.

    What it reads and changes from one step to the next are tensors, so it can be traced as a whole.
    """
    # Autocast begins and ends in here, so its copies of the weights never outlive the graph that made them.
    with run.precision.autocast:
        logits = run.model(run.input_transform(batch.images))
        loss = functional.cross_entropy(logits.float(), batch.targets)
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
    return _summary(loss.detach(), logits.detach(), batch.targets, norm)


def _summary(loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    correct = (logits.argmax(1) == targets.argmax(1)).sum()
    return torch.stack((torch.full_like(loss, len(targets)), loss * len(targets), correct, norm))


class EagerSteps:
    """Takes one operation after the other, or what a compiled step makes of them."""

    def __init__(self, run: Run, learning: Learn | None = None) -> None:
        """Take the steps of `run`, with `learning` in the place of `learn` where it is given."""
        self._run = run
        self._learning = learning

    def take(self, batch_index: BatchIndex, step: int) -> torch.Tensor:
        """Take one step on a batch and return its summary, as `train_step` does."""
        return train_step(self._run, self._run.train.batch(batch_index), step, self._learning)

    def epoch(self, first: int) -> Iterator[torch.Tensor]:
        """Take an epoch's steps, numbered from `first`, and yield the summary of each."""
        run = self._run
        for step, batch in enumerate(run.train.epoch(run.randomness.order), first):
            yield train_step(run, batch, step, self._learning)
