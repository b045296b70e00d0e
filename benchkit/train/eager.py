"""Steps taken one operation after the other: the rule on a CPU, and what every other way is held against."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchkit.train.batches import BatchIndex
from benchkit.train.run import Run
from benchkit.train.step import Learn, train_step


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
