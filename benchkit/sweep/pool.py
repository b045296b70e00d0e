"""The worker processes of a sweep: start them, hand out jobs, hear their events, end them. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import math
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from benchkit.storage import encode
from benchkit.sweep import worker as worker_process
from benchkit.sweep.messages import Event, Job, WorkerFailed, WorkerIdle, WorkerLost, load


class Pool:
    """A number of worker processes, each with `threads` CPU threads; their own output goes to files in `logs`."""

    def __init__(self, size: int, threads: int, logs: Path) -> None:
        """Start nothing yet: a worker starts when it is first given a job."""
        self.size = size
        self._threads = threads
        self._logs = logs
        self._events: queue.Queue[tuple[int, Event]] = queue.Queue()
        self._workers: dict[int, subprocess.Popen[str]] = {}
        self._listeners: list[threading.Thread] = []

    def _start(self, number: int) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        with (self._logs / f"worker-{number}.log").open("a", encoding="utf-8") as log:
            worker = subprocess.Popen(
                worker_process.COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=worker_process.environment(self._threads, self.size),
                text=True,
                encoding="utf-8",
            )
        if number in self._workers:
            _close(self._workers[number])
        self._workers[number] = worker
        assert worker.stdout is not None
        listener = threading.Thread(target=self._hear, args=(number, worker, worker.stdout), daemon=True)
        self._listeners.append(listener)
        listener.start()

    def _hear(self, number: int, worker: subprocess.Popen[str], stream: IO[str]) -> None:
        with stream:
            for line in stream:
                if line.endswith("\n"):  # else the worker was killed while it wrote
                    self._events.put((number, load(line)))
        self._events.put((number, WorkerLost(code=worker.wait())))

    def start(self) -> None:
        """Start all workers, so that they import what they need while the sweep still prepares."""
        for number in range(self.size):
            if number not in self._workers:
                self._start(number)

    def give(self, number: int, job: Job) -> None:
        """Hand a job to a worker, starting it when there is none, and again when its process is gone."""
        if number not in self._workers or self._workers[number].poll() is not None:
            self._start(number)
        stdin = self._workers[number].stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(encode(job)) + "\n")
            stdin.flush()
        except BrokenPipeError:  # it died just now: its WorkerLost is under way, and whoever hears that gives again
            return

    def events(self, wait: float) -> Iterator[tuple[int, Event]]:
        """Yield the workers' events that come within `wait` seconds of each other."""
        while True:
            try:
                yield self._events.get(timeout=wait)
            except queue.Empty:
                return

    def close(self) -> None:
        """End all workers at once; whatever they were at is safe in the ledger and its checkpoints."""
        for worker in self._workers.values():
            worker.kill()
        for worker in self._workers.values():
            worker.wait()
            _close(worker)
        for listener in self._listeners:
            listener.join(timeout=1)

    def __enter__(self) -> Pool:
        """Return the pool."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers."""
        self.close()


def answers(pool: Pool, job: Job, seconds: float = math.inf) -> Iterator[Event]:
    """Hand a job to a pool's first worker; yield its events until it is idle, cannot go on, is lost or time is up."""
    pool.give(0, job)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for number, event in pool.events(0.5):
            if number != 0:
                continue
            yield event
            if isinstance(event, WorkerIdle | WorkerFailed | WorkerLost):
                return


def _close(worker: subprocess.Popen[str]) -> None:
    """Close the line to a worker that has ended; what it was not told any more is lost with it."""
    if worker.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.close()
