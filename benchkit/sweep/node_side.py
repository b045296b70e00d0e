"""What runs on a node of a cluster for a sweep: a worker's process with its streams, child processes, files received.

Ray takes these classes to the node by value, so that a node without benchkit, or with another one, can say so. They use
Python's own library alone.
"""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import IO, Any

CHUNK = 2**22
"""Bytes of a stream or a file that travel at once."""

LINGER = 0.002
"""Seconds of silence after which what a process told travels: an epoch and its checkpoint then travel together."""

LONGEST = 0.05
"""Seconds for which a process that is never silent is listened to first."""

MOST_WAITING = 2**26
"""Bytes of a stream that may wait for the sweep to take them; beyond, the worker waits."""

OF_RAY = ("RAY_", "PYTHONBREAKPOINT", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
"""How the variables begin that Ray sets for its own processes, and that no worker must see."""


def own_environment() -> dict[str, str]:
    """Return the environment of this process without what Ray has put into it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OF_RAY)}


class Stream:
    """What a process writes, kept until it was taken; the place in the stream tells what that is."""

    def __init__(self, pipe: IO[bytes], changed: threading.Condition) -> None:
        """Read a pipe to its end."""
        self.begin = 0
        self.kept = bytearray()
        self.open = True
        self._pipe = pipe
        self._changed = changed
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with self._pipe:
            while data := os.read(self._pipe.fileno(), 2**16):
                with self._changed:
                    self.kept += data
                    self._changed.notify_all()
                    while len(self.kept) > MOST_WAITING:
                        self._changed.wait(1)
        with self._changed:
            self.open = False
            self._changed.notify_all()

    def after(self, place: int) -> bytes:
        """Return what comes after a place, and forget what lies before it."""
        if place > self.begin:
            del self.kept[: place - self.begin]
            self.begin = place
            self._changed.notify_all()
        return bytes(self.kept[:CHUNK])


class NodeWorker:
    """A worker's process on a node. Every call may be repeated: places in the streams tell what came through."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._changed = threading.Condition()
        self._process: Any = None
        self._told: Any = None
        self._printed: Any = None
        self._written = 0
        self._writing = threading.Lock()

    def open(self, code: str, environment: dict[str, str], on_gpu: bool) -> int:
        """Start Python with some code; a second call does nothing. Return the id of the process."""
        with self._changed:
            if self._process is None:
                seen = os.environ.get("CUDA_VISIBLE_DEVICES", "") if on_gpu else ""
                self._process = self._started(code, {**environment, "CUDA_VISIBLE_DEVICES": seen})
                self._told = Stream(self._process.stdout, self._changed)
                self._printed = Stream(self._process.stderr, self._changed)
                threading.Thread(target=self._await_end, daemon=True).start()
        return int(self._process.pid)

    def _started(self, code: str, environment: dict[str, str]) -> Any:
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )

    def _await_end(self) -> None:
        self._process.wait()
        with self._changed:
            self._changed.notify_all()

    def hear(self, told: int, printed: int, wait: float) -> tuple[bytes, bytes, int | None]:
        """Return what the process told and printed after two places, and its exit status once there is no more of it.

        The call waits so many seconds for something to return.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._news(told, printed), wait)
            end = time.monotonic() + LONGEST
            while self._told.open and self._changed.wait(LINGER) and time.monotonic() < end:
                pass
            out, words = self._told.after(told), self._printed.after(printed)
            code = None if out or words or self._told.open else self._process.returncode
        return out, words, code

    def _news(self, told: int, printed: int) -> bool:
        ended = not self._told.open and self._process.returncode is not None
        return ended or any(
            stream.begin + len(stream.kept) > place for stream, place in ((self._told, told), (self._printed, printed))
        )

    def tell(self, place: int, data: bytes) -> None:
        """Write to the process what comes at a place of its input; what it was given already is left out."""
        with self._writing, contextlib.suppress(OSError):
            self._process.stdin.write(data[max(0, self._written - place) :])
            self._process.stdin.flush()
        self._written = max(self._written, place + len(data))

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


class Node:
    """Child processes and files on a node, for a sweep that looks at it."""

    def run(self, code: str, text: str, environment: dict[str, str]) -> tuple[int, str, str]:
        """Return exit status, output and errors of Python with some code and this text as its input."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=text,
            capture_output=True,
            text=True,
            env={**own_environment(), **environment},
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def begin(self, folder: str, size: int) -> str:
        """Make an empty folder beside a folder that is to be received, of so many bytes, and return its path.

        Raises `OSError` where there is no room for it.
        """
        fresh = Path(folder).with_name(f".{Path(folder).name}.{uuid.uuid4().hex}.part")
        fresh.mkdir(parents=True)
        free = shutil.disk_usage(fresh).free
        if size > free:
            fresh.rmdir()
            raise OSError(errno.ENOSPC, f"{size:,} bytes are to be kept where {free:,} are free", folder)
        return str(fresh)

    def write(self, folder: str, name: str, place: int, data: bytes) -> None:
        """Write a part of a file; the call may be repeated."""
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if place else "wb") as stream:
            stream.seek(place)
            stream.write(data)

    def finish(self, fresh: str, folder: str) -> None:
        """Put a received folder in its place, unless another one took it."""
        with contextlib.suppress(OSError):
            os.rename(fresh, folder)
        shutil.rmtree(fresh, ignore_errors=True)
