"""A stand-in for a device with graphs, whose replays call the recorded work again, and plugins that break a capture."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from benchkit import Batch
from benchkit.testing.stand_in_gpu import NoWaiting
from benchkit.train.run import Run
from benchkit.train.step import Learn, learn
from benchkit.train.steps.backends import StepBackend


@dataclass
class StandIn(StepBackend):
    """Records by doing the work once; a replay does it again. Seconds are made up: eager, replayed, compiled."""

    captures: bool = True
    eager: float = 3.0
    replayed: float = 1.0
    compiled: float = 6.0
    refuses: str = ""
    drifts: float = 0.0
    broken_compiler: str = ""
    wrong_compiler: bool = False
    graph: weakref.ref[Any] | None = None
    calls: dict[str, int] = field(default_factory=lambda: {"capture": 0, "replay": 0, "compile": 0, "compiled": 0})

    def aside(self) -> Any:
        return nullcontext()

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        with NoWaiting():
            yield

    def capture(self, work: Callable[[], object], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        self.calls["capture"] += 1
        assert len(generators) == 1
        gc.collect()  # a replay that does the work again belongs to a cycle, unlike a graph
        assert self.graph is None or self.graph() is None, "a graph is recorded while the one before it lives"
        work()
        if self.refuses:
            try:
                raise RuntimeError(self.refuses)
            finally:
                raise RuntimeError("capture was invalidated")

        def replay() -> None:
            self.calls["replay"] += 1
            work()
            if self.drifts:
                self.spoil()

        self.graph = weakref.ref(replay)
        return replay

    def spoil(self) -> None:
        """Do what a graph that misses something does; a test puts it in place."""

    def lacking(self) -> str:
        return ""

    def compile(self, run: Run, batch: Batch) -> Learn:
        self.calls["compile"] += 1
        if self.broken_compiler:
            raise ValueError(self.broken_compiler)

        return Compiled(run, self)

    def seconds(self, work: Callable[[], object]) -> float:
        before = dict(self.calls)
        work()
        if self.calls["compiled"] > before["compiled"]:
            return self.compiled
        return self.replayed if self.calls["replay"] > before["replay"] else self.eager


@dataclass
class Compiled:
    """A compiled step; a wrong one takes the images for their negatives."""

    run: Run
    maker: StandIn

    def __call__(self, batch: Batch) -> torch.Tensor:
        self.maker.calls["compiled"] += 1
        images = 1 - batch.images if self.maker.wrong_compiler else batch.images
        return learn(self.run, replace(batch, images=images))


@dataclass(frozen=True, slots=True)
class Reads:
    """A regularizer that looks at the gradients' size."""

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        if sum(float(p.grad.abs().sum()) for p in parameters if p.grad is not None) < 0:
            raise AssertionError


@dataclass(frozen=True, slots=True)
class DrawsPython:
    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch if random.random() < 2 else Batch(images=-batch.images, targets=batch.targets)


@dataclass(frozen=True, slots=True)
class DrawsNumpy:
    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch if np.random.rand() < 2 else Batch(images=-batch.images, targets=batch.targets)


@dataclass(slots=True)
class Counts:
    """A penalty that counts its calls, and grows with them."""

    calls: int = 0

    def penalty(self, model: nn.Module) -> torch.Tensor:
        self.calls += 1
        return torch.tensor(self.calls / 64)


@dataclass(frozen=True, slots=True)
class Lists:
    """A penalty that counts its calls in a list, though it is frozen."""

    calls: list[int]

    def penalty(self, model: nn.Module) -> torch.Tensor:
        self.calls.append(len(self.calls))
        return torch.tensor(len(self.calls) / 64)


class OptsOut:
    capturable = False

    def penalty(self, model: nn.Module) -> torch.Tensor:
        return torch.zeros(())


class Replaces(nn.Module):
    """A norm that keeps its running mean by putting a new tensor in the old one's place."""

    mean: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * images.detach().mean((0, 2, 3))
        return images - self.mean[:, None, None]
