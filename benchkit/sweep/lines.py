"""A line to one worker process: frames to it, frames from it, and how it ended. Imports no torch.

Whatever runs a sweep's workers elsewhere brings an opener of lines of its own; nothing else of a sweep differs then.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from benchkit.child import exit_words
from benchkit.sweep import worker
from benchkit.sweep.devices import Device
from benchkit.sweep.messages import CHUNK, PrintSplitter, dump, frames

LAST_WORDS = 1.0
"""Seconds in which what a process printed must come to its end: its own children may hold the pipe open for longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a line ended.

    `code` is the exit status of its process, negative for a signal. `machine` says that its node ended, or the way to
    it, and not the process by itself. `words` end a sentence: `ended the process by signal SIGKILL`.
    """

    code: int
    machine: bool
    words: str


class Line(Protocol):
    """A line to a worker process, which it starts. Every call returns at once, also where the worker stands still."""

    @property
    def ended(self) -> End | None:
        """Return how it ended, None while it has not."""
        ...

    def send(self, whole: bytes) -> None:
        """Pass a frame on; it is lost where the line has ended."""
        ...

    def stop(self) -> None:
        """Ask the worker to end, who saves the epoch under way first."""
        ...

    def kill(self) -> None:
        """End the worker at once."""
        ...


class Opener(Protocol):
    """Whoever opens lines to workers of one kind."""

    def __call__(
        self,
        device: Device,
        environment: Mapping[str, str],
        hear: Callable[[bytes], None],
        over: Callable[[End], None],
    ) -> Line:
        """Return a line to a new worker on a device; raise `BenchkitError` where none can be started.

        `environment` is that of the process: threads, allocator and device are set before Python starts. From threads
        of the line's own, `hear` gets whole frames, in order, and `over` is called once, after the last of them.
        """
        ...


class LocalLine:
    """A line to a worker process of this machine."""

    def __init__(
        self, environment: Mapping[str, str], hear: Callable[[bytes], None], over: Callable[[End], None]
    ) -> None:
        """Start the process."""
        self._hear = hear
        self._over = over
        self._end: End | None = None
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            worker.COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
        )
        printing = threading.Thread(target=self._pass_on_prints, daemon=True)
        reading = threading.Thread(target=self._read, args=(printing,), daemon=True)
        for thread in (printing, reading, threading.Thread(target=self._write, daemon=True)):
            thread.start()

    @property
    def ended(self) -> End | None:
        """Return how the process ended, None while it lives."""
        return self._end

    def send(self, whole: bytes) -> None:
        """Pass a frame on."""
        self._waiting.put(whole)

    def stop(self) -> None:
        """Ask the worker to end, who saves the epoch under way first."""
        self._process.terminate()

    def kill(self) -> None:
        """End the worker at once."""
        self._process.kill()

    def _write(self) -> None:
        """Write what is sent: a thread of its own, since a worker that stands still reads nothing."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as stream:
            while (whole := self._waiting.get()) is not None:
                stream.write(whole)
                stream.flush()

    def _read(self, printing: threading.Thread) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for whole in frames(stream):
                self._hear(whole)
        code = self._process.wait()
        self._waiting.put(None)
        printing.join(LAST_WORDS)
        self._end = End(code=code, machine=False, words=exit_words(code))
        self._over(self._end)

    def _pass_on_prints(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            splitter, piece = PrintSplitter(), b"begin"
            while piece:
                piece = os.read(stream.fileno(), CHUNK)
                for printed in splitter.feed(piece):
                    self._hear(dump(printed))


def local_line(
    device: Device, environment: Mapping[str, str], hear: Callable[[bytes], None], over: Callable[[End], None]
) -> Line:
    """Return a line to a worker process of this machine."""
    return LocalLine(environment, hear, over)
