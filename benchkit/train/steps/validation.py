"""The same few steps taken in two ways, each from the same start, and how far apart they end. Training is untouched."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchkit.protocols import Batch
from benchkit.train.batches import BatchIndex
from benchkit.train.run import Run
from benchkit.train.step import augmented
from benchkit.train.steps.backends import StepBackend
from benchkit.train.steps.snapshot import Snapshot

Take = Callable[[BatchIndex, int], torch.Tensor]
"""Takes the step of a number on a batch; returns the step's summary (see `train_step`)."""

STEPS = 3
"""Steps of one validation: with fewer, a step that reads what only the first one wrote would pass."""

LOOKS = 3
"""How often steps are timed: other processes may hold the device up at any single time."""


class Refused(Exception):
    """Steps are not taken in some way: `str` of it ends a sentence of the report, `detail` is for the log alone."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What some steps left: losses and gradient norms (steps,), and flat float32 vectors of all values of a kind.

    Buffers of one name, such as `running_mean`, are a kind. `moved` and `buffers` are those of the first step, which
    rounding has not driven apart yet; `parameters` are those after the last. `moved` is what the gradients, which only
    an eager step shows, have moved in proportion: the optimizer's first moments, or without these the parameters.
    """

    losses: torch.Tensor
    norms: torch.Tensor
    moved: torch.Tensor
    buffers: Mapping[str, torch.Tensor]
    parameters: torch.Tensor

    def finite(self) -> bool:
        """Return whether no loss overflowed."""
        return bool(torch.isfinite(self.losses).all())

    def skipped(self) -> bool:
        """Return whether loss scaling skipped every step, so that none shows what an update does."""
        return bool((self.norms < 0).all())

    @property
    def nbytes(self) -> int:
        """Return the bytes of the vectors."""
        return sum(one.nbytes for one in (self.moved, self.parameters, *self.buffers.values()))


class StepValidation:
    """Steps that are taken and undone; made and used while the run's random numbers are in charge."""

    def __init__(self, run: Run, backend: StepBackend) -> None:
        """Keep the run as it is now."""
        self.run = run
        self.backend = backend
        self.snapshot = Snapshot(run)
        size, stored = run.train.batch_size, len(run.train.images)
        places = torch.arange(STEPS * size, device=run.device) % stored
        first, last = len(run.history) * len(run.train), run.settings.train.epochs * len(run.train) - 1
        # Beyond the last step of training a schedule need not have a rate.
        self._steps = [
            (run.train.batch_index(index), min(first + at, last)) for at, index in enumerate(torch.split(places, size))
        ]
        self._parameters, self._buffers = _flat(run.parameters), _buffers(run.model)

    @property
    def nbytes(self) -> int:
        """Return the bytes of what is kept to compare with and to put back."""
        return self.snapshot.nbytes + sum(one.nbytes for one in (self._parameters, *self._buffers.values()))

    def obstacle(self) -> str:
        """Return why steps cannot be recorded or traced, as far as eager ones tell that were taken; else nothing."""
        if any(group.get("dampening") for group in self.run.optimizer.param_groups):
            return "with dampening, the optimizer's first step is unlike the others"
        return self.snapshot.changed()

    def batch(self) -> Batch:
        """Return the first step's batch, from the start."""
        self.snapshot.put_back()
        return augmented(self.run, self.run.train.batch(self._steps[0][0]))

    def play(self, take: Take, within: AbstractContextManager[Any] | None = None) -> Trace:
        """Take the steps from the start, in the context `within` if there is one, and return what they leave."""
        self.snapshot.put_back()
        summaries, before = [], self._movable()
        moved, buffers = before, self._buffers
        with within or nullcontext():
            for batch_index, number in self._steps:
                summaries.append(take(batch_index, number))
                self.snapshot.look()
                if len(summaries) == 1:
                    moved = self._movable()
                    buffers = _buffers(self.run.model)
        images, losses, _, norms = torch.stack(summaries).unbind(1)
        if self.run.precision.scaler is not None:
            norms = torch.where(torch.isfinite(norms), norms, -1.0)  # a step that loss scaling skips, in both ways
        return Trace(
            losses=losses / images,
            norms=norms,
            moved=moved - before,
            buffers=buffers,
            parameters=_flat(self.run.parameters),
        )

    def walk(self, take: Take) -> None:
        """Take the steps from the start and look at nothing but at what plugins keep in Python."""
        self.snapshot.put_back()
        for batch_index, number in self._steps:
            take(batch_index, number)
            self.snapshot.look()

    def seconds(self, take: Take) -> float:
        """Return the seconds of one step, after others have been taken: the quickest of several looks at all steps."""
        looks = []
        for _ in range(LOOKS):
            self.snapshot.put_back()
            looks.append(self.backend.seconds(lambda: self._take_all(take)))
        return min(looks) / len(self._steps)

    def _take_all(self, take: Take) -> None:
        for batch_index, number in self._steps:
            take(batch_index, number)

    def difference(self, expected: Trace, actual: Trace) -> float:
        """Return the largest relative difference after all steps: of what has changed since the start, by its norm."""
        return max(
            _apart(expected.losses, actual.losses),
            _apart(expected.norms, actual.norms),
            _apart(expected.parameters - self._parameters, actual.parameters - self._parameters),
            *self._buffers_apart(expected, actual),
        )

    def difference_at_once(self, expected: Trace, actual: Trace) -> float:
        """Return the largest relative difference of losses, and of what the first step made of norm and gradients."""
        return max(
            _apart(expected.losses, actual.losses),
            _apart(expected.norms[:1], actual.norms[:1]),
            _apart(expected.moved, actual.moved, self._resolution()),
            *self._buffers_apart(expected, actual),
        )

    def _resolution(self) -> float:
        """Return how far apart float32's rounding alone leaves what a step moves: moments start from nothing."""
        if self._first_moments():
            return 0.0
        size: float = self._parameters.norm().item()
        return torch.finfo(torch.float32).eps * size

    def _movable(self) -> torch.Tensor:
        """Return what a step moves by the gradients."""
        moments = self._first_moments()
        return _flat(moments if moments else self.run.parameters)

    def _first_moments(self) -> list[torch.Tensor]:
        kept = [self.run.optimizer.state.get(parameter, {}) for parameter in self.run.parameters]
        first = [moments.get("momentum_buffer", moments.get("exp_avg")) for moments in kept]
        return [moment for moment in first if moment is not None]

    def _buffers_apart(self, expected: Trace, actual: Trace) -> list[float]:
        return [
            _apart(expected.buffers[name] - start, actual.buffers[name] - start)
            for name, start in self._buffers.items()
        ]


def _flat(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    parts = [tensor.detach().flatten().to(torch.float32) for tensor in tensors]
    return torch.cat(parts) if parts else torch.zeros(0)


def _buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    kinds: dict[str, list[torch.Tensor]] = {}
    for name, buffer in model.named_buffers():
        kinds.setdefault(name.rpartition(".")[2], []).append(buffer)
    return {kind: _flat(buffers) for kind, buffers in kinds.items()}


def _apart(expected: torch.Tensor, actual: torch.Tensor, resolution: float = 0.0) -> float:
    """Return |expected - found| / |expected| by L2 norms; infinite where shapes differ or a value is not finite.

    Distances up to `resolution` count as none.
    """
    if expected.shape != actual.shape:
        return math.inf
    distance, scale = (expected - actual).norm().item(), expected.norm().item()
    if distance <= resolution:
        return 0.0
    return distance / scale if math.isfinite(distance) and scale > 0 else math.inf
