"""A CPU that stands in for a GPU with CUDA graphs: what is recorded is a list of operations on tensors.

While it records, Python runs once, what a capturing stream refuses is refused, and each operation is noted with the
very tensors that it read and wrote; at the end everything outside is as it was, since a recording does nothing, and the
graph's own memory holds no number. A replay runs the list again and no Python of the step: whatever a step decides,
counts, draws or replaces in Python is frozen, as in a CUDA graph. Code takes the ways of a GPU where it asks
`benchkit.is_cpu`.

What it can never tell: the order of streams, what the allocator does, cuBLAS and cuDNN in a recording, the numbers of
a GPU's kernels, tensors left on another device, and time. It is stricter than a GPU in one thing: `torch.tensor(0.5)`
counts as a copy from the host, which on a GPU it is only with a device.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from benchkit.device_kind import standing_in
from benchkit.train import surroundings
from benchkit.train.compiler import skip_dynamo_import
from benchkit.train.steps import backends, executor, validation
from benchkit.train.steps.backends import CudaBackend, Work

aten = torch.ops.aten

WAITING = frozenset(
    {
        *(aten._local_scalar_dense, aten.nonzero, aten.nonzero_static, aten.masked_select, aten.equal, aten._unique2),
        *(aten.unique_dim, aten.unique_consecutive, aten.bincount, aten.histc, aten.is_pinned, aten.repeat_interleave),
        *(aten.randperm, aten.lift_fresh, aten.lift),
    }
)
"""Operations whose result has a size or a value that the host must know, or that copy from the host."""

INDEXING = frozenset({aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_})
UNWRITTEN = frozenset({aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided})
READS = ("tolist", "numpy", "cpu", "item", *(f"__{name}__" for name in ("array", "repr", "bool", "float", "int")))
"""What a CPU tensor answers at once, some of it without any operation, and a GPU's only after waiting."""

WAITS = "called a synchronizing CUDA operation"
REFUSED = "operation not permitted when stream is capturing"


def _waits(function: Any, args: Sequence[Any]) -> bool:
    packet = function.overloadpacket
    masked = packet in INDEXING and any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1])
    return packet in WAITING or masked


@contextmanager
def _no_reads(words: str) -> Iterator[None]:
    """Raise `RuntimeError` with these words where a method of a tensor reads its numbers."""
    with ExitStack() as stack:
        for name in READS:

            def refuse(tensor: Any, *_: Any, name: str = name, **__: Any) -> None:
                raise RuntimeError(f"{words}: Tensor.{name}")

            stack.enter_context(mock.patch.object(torch.Tensor, name, refuse))
        yield


class NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses operations that wait for the device or copy from the host, as CUDA's debug mode does."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, or raise `RuntimeError`."""
        if _waits(function, args):
            raise RuntimeError(f"{WAITS}: {function}")
        return function(*args, **(kwargs or {}))


class Operation(NamedTuple):
    """An operation as it was called."""

    function: Any
    args: Any
    kwargs: Any
    results: list[torch.Tensor]
    """What it made; empty where it only writes to what was there."""


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operations of a piece of work, in order, with the tensors that they read and write."""

    def __init__(self) -> None:
        """Record nothing yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self._inside: set[int] = set()
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation once and note it; raise `RuntimeError` for what no recording may hold."""
        kwargs = kwargs or {}
        if _waits(function, args):
            raise RuntimeError(f"{REFUSED}: {function}")
        read, changes = _tensors((args, kwargs)), function._schema.is_mutable
        for tensor in read if changes else ():
            self._keep(tensor.untyped_storage())
        found = function(*args, **kwargs)
        known = {_place(tensor) for tensor in read}
        made = [tensor.detach() for tensor in _tensors(found)]
        fresh = {_place(tensor) for tensor in made} - known
        self._inside |= fresh
        if changes or fresh:  # what is left is views, which the list's own tensors are already
            given, named = tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs))
            self.operations.append(Operation(function, given, named, [] if changes else made))
        return found

    def _keep(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._inside and key not in self._before:
            self._before[key] = storage, storage.clone()  # type: ignore[no-untyped-call]

    def undo(self) -> None:
        """Make all that lies outside as it was, and spoil what lies inside: nothing has been done."""
        for storage, copy in self._before.values():
            storage.copy_(copy)
        self._before.clear()
        for tensor in (result for operation in self.operations for result in operation.results):
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))
            elif tensor.dtype in (torch.int64, torch.int32):
                tensor.fill_(torch.iinfo(tensor.dtype).max)

    @torch.no_grad()
    def replay(self) -> None:
        """Do what was recorded."""
        for operation in self.operations:
            if operation.function.overloadpacket in UNWRITTEN:
                continue
            found = operation.function(*operation.args, **operation.kwargs)
            if operation.results:
                for old, new in zip(operation.results, _tensors(found), strict=True):
                    old.copy_(new)


skip_dynamo_import(*(mode.__torch_dispatch__ for mode in TorchDispatchMode.__subclasses__()))


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _place(tensor: torch.Tensor) -> int:
    place: int = tensor.untyped_storage()._cdata
    return place


class StandInStream:
    """Stands in for `torch.cuda.Stream`: work is done at once, wherever it is queued."""

    usual: StandInStream
    current: StandInStream
    device_index = 0

    def wait_stream(self, other: StandInStream) -> None:
        """Do nothing: what was queued is done."""

    @classmethod
    @contextmanager
    def entered(cls, stream: StandInStream) -> Iterator[None]:
        """Stand in for `torch.cuda.stream`."""
        before, cls.current = cls.current, stream
        try:
            yield
        finally:
            cls.current = before

    @classmethod
    def set(cls, stream: StandInStream) -> None:
        """Stand in for `torch.cuda.set_stream`."""
        cls.current = stream


StandInStream.usual = StandInStream.current = StandInStream()


class Graph:
    """Stands in for `torch.cuda.CUDAGraph`; one that is recorded while another of its stream lives is a mistake."""

    living: weakref.WeakSet[Graph] = weakref.WeakSet()
    recorded_on: StandInStream

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.stream = Graph.recorded_on
        alike = [one for one in Graph.living if one.stream is self.stream]
        assert not alike, "a graph is recorded while the one before it lives"
        self.tape = Tape()
        Graph.living.add(self)

    def replay(self) -> None:
        """Do what was recorded."""
        self.tape.replay()


@contextmanager
def _recording(graph: Graph, **_: Any) -> Iterator[None]:
    """Stand in for `torch.cuda.graph`."""
    drawn = torch.get_rng_state()
    try:
        with graph.tape, _no_reads(REFUSED):
            yield
    finally:
        graph.tape.undo()
        torch.set_rng_state(drawn)


class _Generator:
    """Stands in for a GPU's generator: the state that a recording draws from is put back by whoever records."""

    graphsafe_get_state = clone_state = staticmethod(lambda: None)
    graphsafe_set_state = staticmethod(lambda state: None)


class StandInGpu(CudaBackend):
    """CUDA's own way of recording steps, on the stand-in. Its clock tells 3 seconds of eager work and 1 of replays.

    `tape` is that of the last recording, None before one; `replays` counts.
    """

    def __init__(self) -> None:
        """Open the stand-in's only device; to be used within `stand_in_gpu`."""
        super().__init__(torch.device("cuda", 0))
        self.tape: Tape | None = None
        self.replays = 0

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Raise where an operation or a method waits for the device."""
        with NoWaiting(), _no_reads(WAITS):  # type: ignore[no-untyped-call]
            yield

    def capture(self, work: Work, generators: Sequence[torch.Generator]) -> Callable[[], None]:
        """Record `work`; see `StepBackend.capture`."""
        states = [generator.get_state() for generator in generators]
        Graph.recorded_on = self._stream  # type: ignore[assignment]
        try:
            replay = super().capture(work, ())
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
        (graph,) = (one for one in Graph.living if one.stream is Graph.recorded_on)
        self.tape = graph.tape

        def counted() -> None:
            self.replays += 1
            replay()

        return counted

    def seconds(self, work: Work) -> float:
        """Return made-up seconds."""
        before = self.replays
        work()
        return 1.0 if self.replays > before else 3.0


@contextmanager
def stand_in_gpu() -> Iterator[StandInGpu]:
    """Put the stand-in in the place of CUDA in this process while the context lasts, and return what `fit` takes it by.

    Runs of any length are recorded. Tensors stay on the CPU.
    """
    places: dict[str, Any] = {
        "CUDAGraph": Graph,
        "graph": _recording,
        "Stream": lambda *_: StandInStream(),
        "stream": StandInStream.entered,
        "current_stream": lambda *_: StandInStream.current,
        "default_stream": lambda *_: StandInStream.usual,
        "set_stream": StandInStream.set,
        "device": lambda _: nullcontext(),
        "default_generators": (_Generator,),
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(torch.cuda, **places))
        stack.enter_context(mock.patch.object(executor, "FEWEST", 1))
        stack.enter_context(mock.patch.object(validation, "LOOKS", 1))
        stack.enter_context(mock.patch.object(CudaBackend, "broken", False))
        stack.enter_context(standing_in())
        stack.enter_context(mock.patch.object(surroundings, "own_stream", lambda device: StandInStream()))
        stack.callback(backends._side_stream.cache_clear)
        backends._side_stream.cache_clear()
        yield StandInGpu()
