"""Where a trial's time goes: a stopwatch that the run's parts press as they are called. The loop knows nothing of it.

The run's loader, augmentations, input, model and precision are replaced by ones that do the same and say when: so a
profiled run computes exactly what any other does, and a run without a profile pays nothing. Its steps run eagerly: a
captured step has no parts.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.autograd import profiler

from benchkit.protocols import Batch
from benchkit.train.batches import InputTransform, Loader
from benchkit.train.device import now
from benchkit.train.run import Run
from benchkit.train.step import Precision

PHASES = (
    "preparation",
    "first step",
    "data",
    "augmentation",
    "forward",
    "loss",
    "backward",
    "gradient norm",
    "optimizer",
    "records",
    "evaluation",
    "ledger",
    "checkpoint",
    "scoring",
)
"""preparation: data set, model and plugins are made ready; first step: all of a trial's first step, in which libraries
warm up, the others only their part of the later ones; data: batches and the model's input are put together; loss:
with penalties; gradient norm: with clipping; records: running metrics and constraints; evaluation: the validation
split after each epoch; ledger: history, pruner and events; scoring: all splits at the end, and what is kept."""

OF_STEPS = PHASES[PHASES.index("data") : PHASES.index("evaluation")]
"""The phases that every step goes through."""

Augment = Callable[[Batch, torch.Generator], Batch]

FIRST_TRACED, TRACED = 3, 5
"""Steps before the traced ones, which warm up, and steps that are traced."""


class Stopwatch:
    """Adds up seconds by phase; on CUDA it waits for the device at every change of phase, which slows the run down.

    A few steps after the first ones are traced operation by operation when there is a `trace` to write; because that
    slows them down, their time is left out of the sums.
    """

    def __init__(self, device: torch.device, trace: Path | None = None) -> None:
        """Begin with the preparation."""
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.trace = trace
        self._device = device
        self._phase = "preparation"
        self._steps = 0
        self._profiler: Any = None
        self._span: Any = None
        self._since = now(device)

    def enter(self, phase: str) -> None:
        """End the phase that lasts and begin another."""
        moment = now(self._device)
        phase = "first step" if phase in OF_STEPS and not self._steps else phase
        if self._profiler is None:
            self.seconds[self._phase] += moment - self._since
        elif self._span is not None:
            self._span.__exit__(None, None, None)
            self._span = profiler.record_function(phase)
            self._span.__enter__()
        self._phase, self._since = phase, moment

    def step(self) -> None:
        """Count a step of training; begin and end the trace where it is time to."""
        self._steps += 1
        if self.trace is not None and self._steps == FIRST_TRACED:
            self._begin_trace()
        elif self._steps == FIRST_TRACED + TRACED:
            self.end_trace()

    def _begin_trace(self) -> None:
        self.enter(self._phase)
        # torch.profiler.profile does the same, and takes seconds to import PyTorch's compiler first.
        self._profiler = profiler.profile(use_device="cuda" if self._device.type == "cuda" else None)
        self._profiler.__enter__()
        self._span = profiler.record_function(self._phase)
        self._span.__enter__()

    def end_trace(self) -> None:
        """Write the trace when one is being taken."""
        if self._profiler is None or self.trace is None:
            return
        self._span.__exit__(None, None, None)
        self._profiler.__exit__(None, None, None)
        _write_compressed(self._profiler, self.trace)
        self._profiler = self._span = None
        self._since = now(self._device)

    def stop(self) -> dict[str, float]:
        """End the phase that lasts; return the seconds by phase."""
        self.end_trace()
        self.enter(self._phase)
        return self.seconds


def _write_compressed(profile: profiler.profile, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        plain = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(plain))  # type: ignore[no-untyped-call]
        path.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))


def watch(run: Run, stopwatch: Stopwatch) -> None:
    """Let the parts of a run press the stopwatch, and note in the run that its speed is that of a profiled one."""
    run.notes.append("profiled: its speed does not compare with that of other trials")
    run.eager = "the trial is profiled"
    run.train = _LoaderWatched(**_values(run.train), stopwatch=stopwatch)
    augments = tuple(_watched(augment, stopwatch) for augment in run.hooks.augments)
    run.hooks = replace(run.hooks, augments=augments)
    run.input_transform = _InputTransformWatched(**_values(run.input_transform), run=run, stopwatch=stopwatch)
    run.precision = _PrecisionWatched(**_values(run.precision), stopwatch=stopwatch)
    run.model.register_forward_pre_hook(lambda model, _: stopwatch.enter("forward") if model.training else None)
    run.model.register_forward_hook(lambda model, _in, _out: stopwatch.enter("loss") if model.training else None)


def _values(part: Any) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(part)}


def _watched(augment: Augment, stopwatch: Stopwatch) -> Augment:
    def timed(batch: Batch, generator: torch.Generator) -> Batch:
        stopwatch.enter("augmentation")
        return augment(batch, generator)

    return timed


@dataclass(frozen=True, slots=True, kw_only=True)
class _LoaderWatched(Loader):
    stopwatch: Stopwatch

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch; what is not training is evaluation."""
        self.stopwatch.enter("data")
        for batch in Loader.epoch(self, generator):
            yield batch
            self.stopwatch.step()
            self.stopwatch.enter("data")
        self.stopwatch.end_trace()
        self.stopwatch.enter("evaluation")


@dataclass(frozen=True, slots=True, kw_only=True)
class _InputTransformWatched(InputTransform):
    run: Run
    stopwatch: Stopwatch

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the model's input."""
        if self.run.model.training:
            self.stopwatch.enter("data")
        return InputTransform.__call__(self, images)


@dataclass(frozen=True, slots=True, kw_only=True)
class _PrecisionWatched(Precision):
    stopwatch: Stopwatch

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients."""
        self.stopwatch.enter("backward")
        Precision.backward(self, loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Undo the scaling."""
        Precision.unscale(self, optimizer)
        self.stopwatch.enter("gradient norm")

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimizer step."""
        self.stopwatch.enter("optimizer")
        Precision.step(self, optimizer)
        self.stopwatch.enter("records")
