"""Seats of a Ray cluster that train nothing: threads which speak a worker's protocol over the real transport.

Many of them share one actor. All else is what a sweep has: lines, calls, places in streams, frames.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any

import ray
from ray import cloudpickle

from benchkit.results import Cost, EpochRecord, Outcome, SplitMetrics
from benchkit.sweep import node_side
from benchkit.sweep.devices import Device
from benchkit.sweep.messages import (
    CheckpointTaken,
    EpochEnded,
    FileFinished,
    Job,
    Seat,
    Train,
    TrialBegan,
    TrialFinished,
    WorkerLost,
    WorkerReady,
    dump,
    frames,
    order_of,
)
from benchkit.sweep.pool import Line
from benchkit.sweep.ray_line import Place, Pump, RayLine, RaySeat, remote

RECORD = EpochRecord(
    epoch=1,
    train_loss=0.7,
    train_accuracy=0.8,
    val_loss=0.6,
    val_accuracy=0.8,
    learning_rate=0.1,
    gradient_norm=1.0,
    seconds=10.0,
    images_per_second=4500.0,
    peak_memory=120.0,
)
SCORED = SplitMetrics(
    n=4,
    loss=0.6,
    accuracy=0.75,
    micro_f1=0.75,
    macro_f1=0.75,
    calibration_error=0.04,
    class_accuracy=(0.5, 1.0),
    confusion=((1, 1), (0, 2)),
)
COST = Cost(
    parameters=7, flops=1, seconds=60.0, images_per_second=4500.0, peak_memory=120.0, device="none", precision="float32"
)
OUTCOME = Outcome(state="done", selected_epoch=1, metrics={"val": SCORED, "test": SCORED}, cost=COST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """How a simulated worker lives: epochs of some `seconds`, and bytes of each checkpoint and of its weights.

    Its trials' epochs take up to a fifth more or less, each trial's its own: no two trials are in step.
    """

    epochs: int
    seconds: float
    checkpoint: int


class SimulatedProcess:
    """A thread in the place of a worker's process, with the same three streams."""

    pid = 0

    def __init__(self, life: Life, late: Callable[[tuple[float, float]], None]) -> None:
        """Start it; `late` is told of each checkpoint when it was told, and how many seconds its answer took."""
        self.returncode: int | None = None
        self._ended = threading.Event()
        orders, self.stdin = _pipe()
        self.stdout, self._out = _pipe()
        self.stderr, printed = _pipe()
        printed.close()
        self._life, self._late = life, late
        threading.Thread(target=self._run, args=(orders,), daemon=True).start()

    def wait(self) -> int:
        """Wait for its end and return its exit status."""
        self._ended.wait()
        return 0

    def send_signal(self, number: int) -> None:
        """End it."""
        self._end()

    def _end(self) -> None:
        if not self._ended.is_set():
            self.returncode = 0
            self._ended.set()
            self._out.close()

    def _run(self, stream: IO[bytes]) -> None:
        orders = map(order_of, frames(stream))
        for order in orders:
            if isinstance(order, Job):
                self._tell(WorkerReady(device="cpu", seat=Seat(node="simulated", kind="cpu", device="none")))
            elif isinstance(order, Train):
                self._train(order, orders)
        self._end()

    def _tell(self, event: Any) -> None:
        if not self._ended.is_set():
            self._out.write(dump(event))
            self._out.flush()

    def _train(self, order: Train, orders: Iterator[Any]) -> None:
        named, life = {"trial": order.trial, "lease": order.lease}, self._life
        self._tell(TrialBegan(**named, epochs=life.epochs))
        history, end = [], time.monotonic()
        seconds = life.seconds * random.Random(order.trial).uniform(0.8, 1.2)
        for epoch in range(1, life.epochs + 1):
            end += seconds
            time.sleep(max(0.0, end - time.monotonic()))
            history.append(replace(RECORD, epoch=epoch, seconds=seconds))
            self._tell(EpochEnded(**named, record=history[-1], processor=1.0))
            asked = time.monotonic()
            self._tell(CheckpointTaken(**named, epoch=epoch, content=bytes(life.checkpoint)))
            if getattr(next(orders, None), "word", "drop") == "drop":
                return
            self._late((asked, time.monotonic() - asked))
        self._tell(FileFinished(**named, name="weights.safetensors", content=bytes(life.checkpoint)))
        self._tell(TrialFinished(**named, outcome=OUTCOME))


def _pipe() -> tuple[IO[bytes], IO[bytes]]:
    reader, writer = os.pipe()
    return os.fdopen(reader, "rb"), os.fdopen(writer, "wb")


class SimulatedWorker(node_side.NodeWorker):
    """A seat without a process."""

    def __init__(self, life: Life, late: Callable[[tuple[float, float]], None]) -> None:
        """Start nothing yet."""
        super().__init__()
        self._life, self._late = life, late

    def _started(self, code: str, environment: dict[str, str]) -> SimulatedProcess:
        return SimulatedProcess(self._life, self._late)


class Crowd:
    """The actor of many seats."""

    def __init__(self) -> None:
        """Have none yet."""
        self._lock = threading.Lock()
        self._workers: dict[int, SimulatedWorker] = {}
        self._delays: list[tuple[float, float]] = []

    def call(self, seat: int, life: Life, method: str, *given: Any) -> Any:
        """Call a method of one of them."""
        with self._lock:
            if seat not in self._workers:
                self._workers[seat] = SimulatedWorker(life, self._delays.append)
        return getattr(self._workers[seat], method)(*given)

    def delays(self) -> list[tuple[float, float]]:
        """Return of each checkpoint when it was told, by a clock of the machine, and the seconds its answer took."""
        return self._delays


class CrowdSeat(RaySeat):
    """A seat of an actor that has many."""

    def __init__(self, crowd: Any, seat: int, life: Life) -> None:
        """Take the seat of that number."""
        self._crowd, self._seat, self._life = crowd, seat, life

    def call(self, method: str, *given: Any) -> Any:
        """Call a method; return the future of what it returns."""
        return self._crowd.call.remote(self._seat, self._life, method, *given).future()

    def close(self) -> None:
        """Do nothing: the actor ends with the program."""


class Crowds:
    """Simulated seats in so many processes; counts what is heard of them."""

    def __init__(self, seats: int, processes: int, life: Life) -> None:
        """Start the processes on this node, where the program runs."""
        self.node = ray.get_runtime_context().get_node_id()
        self.pump = Pump(lambda node: True, print)
        self.heard = self.heard_bytes = 0
        self.seats = tuple(Device(kind="cpu", number=number, node="simulated") for number in range(seats))
        self._life = life
        # Each seat keeps one question waiting, and is told things meanwhile.
        many = 2 * -(-seats // processes) + 8
        self._actors = [remote(Crowd, self.node, num_cpus=0, max_concurrency=many) for _ in range(processes)]
        self._turn = itertools.count()

    def open_line(
        self,
        device: Device,
        environment: Mapping[str, str],
        hear: Callable[[bytes], None],
        over: Callable[[WorkerLost], None],
    ) -> Line:
        """Return a line to a new simulated worker."""

        def counted(whole: bytes) -> None:
            self.heard += 1
            self.heard_bytes += len(whole)
            hear(whole)

        turn = next(self._turn)
        place = Place(node=self.node, name="simulated", cpus=0.0, gpus=0.0, environment={}, silence=60.0)
        actor = self._actors[turn % len(self._actors)]
        return RayLine(place, self.pump, counted, over, lambda place: CrowdSeat(actor, turn, self._life))

    def delays(self) -> list[tuple[float, float]]:
        """Return of each checkpoint when it was told, by a clock of the machine, and the seconds its answer took."""
        return [one for actor in self._actors for one in ray.get(actor.delays.remote())]


cloudpickle.register_pickle_by_value(sys.modules[__name__])
