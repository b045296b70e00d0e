"""What a device offers to make steps faster: recording work as a graph, compiling a step, and timing both."""

from __future__ import annotations

import functools
import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from benchkit.protocols import Batch
from benchkit.train.compiler import compiler_found
from benchkit.train.device import now
from benchkit.train.run import Run
from benchkit.train.step import Learn
from benchkit.train.steps.compiled import CompiledLearning, sum_by_planes

Work = Callable[[], object]


class StepBackend:
    """A device without graphs: only compiling, which must be asked for. Tests put a stand-in in its place."""

    captures = False
    """Whether `capture` works here; compiling then is tried unasked, too."""

    def __init__(self, device: torch.device) -> None:
        """Offer what `device` has."""
        self._device = device

    def aside(self) -> AbstractContextManager[Any]:
        """Return a context in which work is queued where it is later captured: first calls set up libraries there."""
        return nullcontext()

    def without_waiting(self) -> AbstractContextManager[Any]:
        """Return a context in which waiting for the device's results raises `RuntimeError`; on a CPU nobody waits."""
        return nullcontext()

    def tuned(self) -> AbstractContextManager[Any]:
        """Return a context in which libraries choose how they compute a shape by trying, once for each shape."""
        return nullcontext()

    def capture(self, work: Work, generators: Sequence[torch.Generator]) -> Callable[[], None]:
        """Return what replays `work`, which draws from `generators` and the global one; it is recorded, not done.

        Raise `RuntimeError` when it cannot be recorded; the device and the generators then are as before.
        """
        raise RuntimeError(f"there are no graphs on {self._device.type}")

    def lacking(self) -> str:
        """Return what the machine lacks for compiling, with the package that brings it; empty where all is there."""
        return compiler_found(self._device.type)[1]

    def compile(self, run: Run, batch: Batch) -> Learn:
        """Return the compiled form of `learn` for `run` and batches like `batch`, an augmented one; steps are taken.

        It is one graph and draws the same random numbers.
        """
        if self._device.type == "cpu":
            sum_by_planes(run.model)
        return CompiledLearning(run, batch)

    def seconds(self, work: Work) -> float:
        """Return how long `work` takes, the device's part included."""
        began = now(self._device)
        work()
        return now(self._device) - began


class CudaBackend(StepBackend):
    """CUDA graphs, recorded on a stream of their own (PyTorch, CUDA semantics: CUDA graphs).

    `broken` tells that a recording of this process broke off: some versions of PyTorch then keep its memory and take
    the device to be recording still, so this process records no more.
    """

    captures = True
    broken = False

    def __init__(self, device: torch.device) -> None:
        """Open the stream; `device` may lack its number and then is the current one."""
        super().__init__(device)
        self._number = torch.cuda.current_device() if device.index is None else device.index
        current = torch.cuda.current_stream(self._number)
        # A trial that takes turns with others has a stream of its own, where no graph of theirs is recorded.
        usual = current == torch.cuda.default_stream(self._number)
        self._stream = _side_stream(self._number) if usual else current

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Queue work on the stream, after what is queued already and before what follows."""
        with torch.cuda.device(self._number):
            usual = torch.cuda.current_stream()
            self._stream.wait_stream(usual)
            try:
                with torch.cuda.stream(self._stream):
                    yield
            finally:
                usual.wait_stream(self._stream)

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Let PyTorch raise where it would wait for the device."""
        before = torch.cuda.get_sync_debug_mode()
        _set_sync_debug_mode(2)
        try:
            yield
        finally:
            _set_sync_debug_mode(before)

    @contextmanager
    def tuned(self) -> Iterator[None]:
        """Let cuDNN time its ways of a convolution, and take the fastest again for each of that shape.

        Only what is recorded computes so: it meets one shape, and in a recording nothing can be timed any more.
        """
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before

    def capture(self, work: Work, generators: Sequence[torch.Generator]) -> Callable[[], None]:
        """Record `work` as a CUDA graph and return its replay."""
        if CudaBackend.broken:
            raise RuntimeError("an earlier recording of this process broke off")
        gc.collect()  # a graph that dies later than a younger one takes memory along that the younger one still uses
        drawn = (torch.cuda.default_generators[self._number], *generators)
        states = [generator.graphsafe_get_state() for generator in drawn]
        for generator in drawn:
            # A failed capture leaves a generator's state useless in some versions of PyTorch: it gets one to spoil.
            generator.graphsafe_set_state(generator.clone_state())
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._number):
            usual = torch.cuda.current_stream()
            try:
                register(graph, generators)
                with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                    work()
            except BaseException:
                CudaBackend.broken = True
                torch.cuda.set_stream(usual)  # some versions leave the graph's current
                for generator, state in zip(drawn, states, strict=True):
                    generator.graphsafe_set_state(state)
                raise
        return graph.replay


@functools.cache
def _side_stream(number: int) -> torch.cuda.Stream:
    """Return the stream of a device on which this process records: libraries keep memory for each that they see."""
    return torch.cuda.Stream(number)  # type: ignore[no-untyped-call]


def _set_sync_debug_mode(mode: int) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode")
        torch.cuda.set_sync_debug_mode(mode)


def register(graph: torch.cuda.CUDAGraph, generators: Sequence[torch.Generator]) -> None:
    """Tell the graph of the generators that it draws from: newer versions of PyTorch find them, and warn if told."""
    tell = getattr(graph, "register_generator_state", lambda generator: None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*register_generator_state")
        for generator in generators:
            tell(generator)


def backend_of(device: torch.device) -> StepBackend:
    """Return what a device offers."""
    return CudaBackend(device) if device.type == "cuda" else StepBackend(device)
