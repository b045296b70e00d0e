"""Steps replayed from one graph: on a GPU a whole step, from fetching its images to its summary, is one launch.

A small network's step is some 700 operations, each of which the processor launches in about the time that the device
needs for it. A CUDA graph records them once; replaying it costs what a few launches do. What a graph cannot do is
decide: a step that looks at its own numbers, keeps count, or draws random numbers elsewhere has to run eagerly. So a
graph is trusted only after it has taken the same steps as eager ones did.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchkit.errors import first_line
from benchkit.train import optimizers
from benchkit.train.batches import BatchIndex
from benchkit.train.device import MEBIBYTE, forget_peak, peak_memory
from benchkit.train.run import Run
from benchkit.train.step import EagerSteps, Learn, set_rate, train_step, update
from benchkit.train.steps.backends import StepBackend
from benchkit.train.steps.validation import Refused, StepValidation

TOLERANCE = {"float32": 1e-3, "bf16": 1e-2, "fp16": 1e-2}
"""The relative difference of replayed and eager steps that counts as rounding."""

NOISE = 4.0
"""How many times as far from eager steps as these are from themselves (where kernels add in any order) is allowed."""


class CudaGraphSteps:
    """Replays a graph for each batch of the usual size; what is left over at an epoch's end is trained eagerly.

    Streamed images and their labels are copied to where the graph reads them; of images on the device, only positions
    are. Raise `Refused` when the step cannot be recorded. The graph reads and writes the tensors that the run holds
    now, so none of them may be replaced while it is used; the learning rate is read from the device. `memory` is a
    step's peak in MiB, which replays do not show: they allocate nothing.
    """

    def __init__(self, run: Run, backend: StepBackend, learning: Learn | None, held: int) -> None:
        """Record the step; nothing of it is done. `held` are the device's bytes that are freed before training."""
        self._run = run
        self._learning = learning
        first = torch.zeros(run.train.batch_size, dtype=torch.int64, device=run.device)
        self._batch_index = run.train.batch_index(first)
        self._summary = torch.zeros(4, device=run.device)
        forget_peak(run.device)
        try:
            self._replay = backend.capture(self._work, (run.randomness.augment,))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise Refused(f"a step cannot be recorded ({first_line(_first(error)).rstrip('.')})") from error
        self.memory = peak_memory(run.device) - held / MEBIBYTE
        # The graph goes on writing to the gradients' memory: as long as it lives, nothing else may get it.
        self._gradients = [parameter.grad for parameter in run.parameters]

    def _work(self) -> None:
        self._summary.copy_(update(self._run, self._run.train.batch(self._batch_index), self._learning))

    def take(self, batch_index: BatchIndex, step: int) -> torch.Tensor:
        """Take one step on a batch and return its summary, as `train_step` does."""
        run = self._run
        if len(batch_index[-1]) != run.train.batch_size:
            return train_step(run, run.train.batch(batch_index), step)
        for read, given in zip(self._batch_index, batch_index, strict=True):
            read.copy_(given)
        set_rate(run.optimizer, run.schedule(step))
        self._replay()
        return self._summary.clone()

    def epoch(self, first: int) -> Iterator[torch.Tensor]:
        """Take an epoch's steps, numbered from `first`, and yield the summary of each."""
        for step, batch_index in enumerate(self._run.train.batch_indices(self._run.randomness.order), first):
            yield self.take(batch_index, step)


def _first(error: BaseException) -> BaseException:
    """Return the error that came first: the end of a broken recording raises another."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return error


def cuda_graph_steps(validation: StepValidation, learning: Learn | None = None) -> CudaGraphSteps:
    """Return steps that replay a graph of the run's step, or of one with `learning`, after they agreed with eager ones.

    The validation has taken eager steps before, and is not ended here. Raise `Refused` when steps cannot be captured.
    """
    run, backend = validation.run, validation.backend
    if reason := validation.obstacle():
        raise Refused(reason)
    optimizers.use_device_rates(run.optimizer, run.device)
    eager = EagerSteps(run, learning).take
    with backend.aside():
        try:
            expected = validation.play(eager, backend.without_waiting())
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise  # the step itself is broken, in whatever way it is taken
            raise Refused(f"a step waits for the device's results ({first_line(error).rstrip('.')})") from error
        again = validation.play(eager)
    if not expected.finite():
        raise Refused("the first losses are not finite")
    if expected.skipped():
        raise Refused("loss scaling skipped every step that was tried")
    validation.snapshot.put_back()
    steps = CudaGraphSteps(run, backend, learning, validation.nbytes + expected.nbytes + again.nbytes)
    allowed = TOLERANCE[run.precision.name] + NOISE * validation.difference(expected, again)
    if (apart := validation.difference(expected, validation.play(steps.take))) > allowed:
        raise Refused("replayed steps differ from eager ones", f"by {apart:.2g} of their size, {allowed:.2g} allowed")
    return steps
