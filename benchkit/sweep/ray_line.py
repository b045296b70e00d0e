"""Lines to worker processes on the nodes of a Ray cluster: bytes there and back, in order, each once. Needs Ray.

A seat is an actor that starts a worker and keeps what it writes until the sweep has it. The sweep asks for what comes
after a place in the stream, so that a call that failed is repeated and nothing is lost or told twice.
"""

from __future__ import annotations

import functools
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import ActorDiedError, ActorUnschedulableError, OutOfMemoryError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from benchkit.child import exit_words
from benchkit.storage import NODE
from benchkit.sweep import node_side, worker
from benchkit.sweep.messages import FrameSplitter, PrintSplitter, WorkerLost, dump

cloudpickle.register_pickle_by_value(node_side)

KILLED = -9
MEMORY = "low on memory"
"""What Ray says when it ends the largest process of a node whose memory runs out."""

WAIT = 5.0
"""Seconds for which a seat keeps a question that it has no answer to: so often it is heard of at least."""

TICK = 0.5
"""Seconds between looks at lines that say nothing."""

SLOW = 10.0
"""Seconds without room for a worker after which that is said."""

AGAIN = 1.0
"""Seconds after which a question is put again that could not be answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a seat is: the id of its node, how people call that, and what the seat takes of it.

    `environment` is that of its workers. `silence` is the number of seconds without a word after which it is lost, and
    `room` of those for which it may wait to be started.
    """

    node: str
    name: str
    cpus: float
    gpus: float
    environment: Mapping[str, str]
    silence: float
    room: float = 60.0


def remote(kind: type, node: str, **options: Any) -> Any:
    """Return an actor of a class on a node; Ray neither starts it anew nor repeats its calls."""
    return (
        ray.remote(kind)
        .options(
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            **{"max_concurrency": 8, **options},
        )
        .remote()
    )


class RaySeat:
    """The seat of a line: an actor on its node, whose methods are those of `node_side.NodeWorker`."""

    def __init__(self, place: Place) -> None:
        """Ask Ray for the actor."""
        self._actor = remote(node_side.NodeWorker, place.node, num_cpus=place.cpus, num_gpus=place.gpus)

    def call(self, method: str, *given: Any) -> Any:
        """Call a method; return the future of what it returns. Raises `RayError` where the actor is gone."""
        return getattr(self._actor, method).remote(*given).future()

    def close(self) -> None:
        """End the actor at once."""
        ray.kill(self._actor, no_restart=True)


class Pump:
    """One thread for all lines of a sweep: it hears answers, puts the next questions and notes who is silent."""

    def __init__(self, is_alive: Callable[[str], bool], say: Callable[[str], None]) -> None:
        """Start the thread; `is_alive` tells whether a node, by its id, is part of the cluster.

        `say` is told, in the thread, what people should know.
        """
        self.is_alive = is_alive
        self.say = say
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lines: set[RayLine] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def call(self, what: Callable[[], None]) -> None:
        """Have something done in the thread."""
        self._calls.put(what)

    def watch(self, line: RayLine) -> None:
        """Look after a line until it has ended."""
        self._calls.put(functools.partial(self._lines.add, line))

    def close(self) -> None:
        """End the thread."""
        self._calls.put(None)
        self._thread.join(timeout=TICK + AGAIN)

    def _run(self) -> None:
        looked = time.monotonic()
        while True:
            try:
                what = self._calls.get(timeout=TICK)
            except queue.Empty:
                pass
            else:
                if what is None:
                    return
                what()
            now = time.monotonic()
            if now - looked >= TICK:
                # Where this process itself stood still, nobody was silent.
                late = now - looked > 10 * TICK
                looked = now
                for line in list(self._lines):
                    line.look(now, late)
                self._lines = {line for line in self._lines if line.ended is None}


class RayLine:
    """A line to a worker process on a node."""

    def __init__(
        self,
        place: Place,
        pump: Pump,
        hear: Callable[[bytes], None],
        over: Callable[[WorkerLost], None],
        seat_of: Callable[[Place], RaySeat] = RaySeat,
    ) -> None:
        """Ask for a seat and have a worker started in it."""
        self.place = place
        self.heard = False
        self._slow = False
        self._pump = pump
        self._hear = hear
        self._over = over
        self.ended: WorkerLost | None = None
        self._lock = threading.Lock()
        self._frames = FrameSplitter()
        self._prints = PrintSplitter()
        self._told = self._printed = self._sent = 0
        self._waiting = bytearray()
        self._sending = False
        self._last = time.monotonic()
        self._retry: list[tuple[float, Callable[[], None]]] = []
        self._seat = seat_of(place)
        pump.watch(self)
        environment = {**place.environment, NODE: place.name}
        self._ask("open", self._opened, worker.COMMAND[-1], environment, place.gpus > 0)

    def send(self, whole: bytes) -> None:
        """Pass a frame on."""
        with self._lock:
            self._waiting += whole
        self._pump.call(self._send)

    def stop(self) -> None:
        """Ask the worker to end, who saves the epoch under way first."""
        if self.heard:
            self._ask("signal", _ignored, int(signal.SIGTERM))
        else:
            self.kill()

    def kill(self) -> None:
        """End the worker at once, and the seat with it: nobody waits for what it had to say."""
        self._pump.call(lambda: self._finish(WorkerLost(code=KILLED, words=exit_words(KILLED))))

    def look(self, now: float, late: bool) -> None:
        """Put failed questions again; end a line of which nothing was heard for long."""
        if late:
            self._last = now
        due = [what for when, what in self._retry if when <= now]
        self._retry = [(when, what) for when, what in self._retry if when > now]
        for what in due:
            what()
        if not self.heard and not self._slow and now - self._last > SLOW:
            self._slow = True
            self._pump.say(f"{self.place.name} has had no room for a worker for {SLOW:g} s: what it has is in use")
        longest = self.place.silence if self.heard else self.place.room
        if now - self._last > longest:
            words = "was not heard of for" if self.heard else "had no room for a worker for"
            self._lose(f"{words} {longest:g} s")

    def _ask(self, method: str, answered: Callable[[Any], None], *given: Any) -> None:
        """Call a method of the seat, and pass what it returns on to the pump's thread."""
        if self.ended is not None:
            return

        def arrived(future: Any) -> None:
            self._pump.call(lambda: self._arrived(future, method, answered, given))

        try:
            self._seat.call(method, *given).add_done_callback(arrived)
        except RayError as error:
            self._fail(error, method, answered, given)

    def _arrived(self, future: Any, method: str, answered: Callable[[Any], None], given: tuple[Any, ...]) -> None:
        if self.ended is not None:
            return
        try:
            answer = future.result()
        except RayError as error:
            self._fail(error, method, answered, given)
        else:
            self.heard = True
            self._last = time.monotonic()
            answered(answer)

    def _fail(self, error: RayError, method: str, answered: Callable[[Any], None], given: tuple[Any, ...]) -> None:
        """Lose the line where its seat is gone; else ask again, since the call may not have reached the seat."""
        if isinstance(error, ActorDiedError | ActorUnschedulableError | OutOfMemoryError):
            self._seat_died(str(error))
        else:
            again = functools.partial(self._ask, method, answered, *given)
            self._retry.append((time.monotonic() + AGAIN, again))

    def _seat_died(self, words: str) -> None:
        if MEMORY in words:
            self._finish(WorkerLost(code=KILLED, words="ended the process for want of memory on its node"))
        else:
            self._lose("lost the seat of its worker" if self._pump.is_alive(self.place.node) else "is gone")

    def _lose(self, words: str) -> None:
        self._finish(WorkerLost(code=KILLED, machine=True, words=f"{self.place.name} {words}"))

    def _opened(self, process: int) -> None:
        self._listen()
        self._send()

    def _listen(self) -> None:
        self._ask("hear", self._take, self._told, self._printed, WAIT)

    def _take(self, answer: tuple[bytes, bytes, int | None]) -> None:
        told, printed, code = answer
        self._told += len(told)
        self._printed += len(printed)
        for event in self._prints.feed(printed) if printed else ():
            self._hear(dump(event))
        for whole in self._frames.feed(told):
            self._hear(whole)
        if code is None:
            self._listen()
        else:
            self._finish(WorkerLost(code=code, words=exit_words(code)))

    def _send(self) -> None:
        with self._lock:
            data = bytes(self._waiting[: node_side.CHUNK])
        if data and not self._sending and self.heard:
            self._sending = True
            self._ask("tell", functools.partial(self._passed, len(data)), self._sent, data)

    def _passed(self, count: int, answer: None) -> None:
        with self._lock:
            del self._waiting[:count]
        self._sent += count
        self._sending = False
        self._send()

    def _finish(self, end: WorkerLost) -> None:
        if self.ended is None:
            self.ended = end
            self._seat.close()
            self._over(end)


def _ignored(answer: None) -> None:
    pass
