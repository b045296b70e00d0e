"""One worker process: what it is started with, frames to it, frames from it, and how it ended. Imports no torch.

Whatever runs a sweep's workers elsewhere brings an opener of lines of its own; nothing else of a sweep differs then.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from benchkit.child import exit_words, import_path
from benchkit.locks import shared_disk
from benchkit.storage import cache_folder
from benchkit.sweep import worker
from benchkit.sweep.devices import Device, available_cores
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
        self,
        device: Device,
        environment: Mapping[str, str],
        hear: Callable[[bytes], None],
        over: Callable[[End], None],
    ) -> None:
        """Start the process; which device it sees, its environment says."""
        self._hear = hear
        self._over = over
        self.ended: End | None = None
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
        self.ended = End(code=code, machine=False, words=exit_words(code))
        self._over(self.ended)

    def _pass_on_prints(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            splitter, piece = PrintSplitter(), b"begin"
            while piece:
                piece = os.read(stream.fileno(), CHUNK)
                for printed in splitter.feed(piece):
                    self._hear(dump(printed))


KEEP_FREED = "dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0"
"""What keeps jemalloc from giving every step's activations back to the system, which makes training slower than with
the C library's allocator (tcmalloc keeps them by itself)."""

NAMES: Mapping[str, Mapping[str, str]] = {
    "tcmalloc_minimal": {},
    "tcmalloc": {},
    "jemalloc": {"MALLOC_CONF": KEEP_FREED},
}
"""The libraries that would be preloaded, best first by their names to the dynamic loader, and their environment."""

FOLDERS = tuple(
    Path(folder)
    for folder in (
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
    )
)


def preloaded_allocator(folders: Sequence[Path] = FOLDERS) -> Path | None:
    """Return the allocator's library for LD_PRELOAD, or None where there is none.

    Only Linux is looked at; `BENCHKIT_MALLOC=system` keeps the C library's.
    """
    if sys.platform != "linux" or os.environ.get("BENCHKIT_MALLOC") == "system":
        return None
    found = (path for name in NAMES for folder in folders for path in sorted(folder.glob(f"lib{name}.so.*")))
    return next(found, None)


def preloading(library: Path | None) -> dict[str, str]:
    """Return the environment variables that make a process use an allocator's library; none without one."""
    if library is None:
        return {}
    own = next((settings for name, settings in NAMES.items() if library.name.startswith(f"lib{name}.so")), {})
    return {"LD_PRELOAD": str(library), **own}


def compiled_models(cpuinfo: Path = Path("/proc/cpuinfo")) -> Path:
    """Return the folder of compiled models: one for each kind of processor and version of PyTorch.

    On a disk that machines share each machine has its own: code for one processor may crash another, and the compilers'
    caches keep machines apart by no lock.
    """
    folder = cache_folder() / "compiled-models"
    facts = [platform.machine(), version("torch"), socket.gethostname() if shared_disk(folder.parent) else ""]
    with contextlib.suppress(OSError):
        first = cpuinfo.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0].splitlines()
        facts += [line for line in first if line.startswith(("model name", "flags", "CPU part", "Features"))]
    return folder / hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def environment(threads: int, at_once: int = 1) -> dict[str, str]:
    """Return the environment of one of `at_once` workers: its threads, its allocator, a home for compiled code.

    The C library would otherwise give every step's activations back to the system and fault them in again. Where each
    thread has a core to itself, threads wait for their next piece of work awake: a small network's pieces are shorter
    than it takes to wake one up. Compiled models are shared by trials of one shape and by later workers. What the user
    has set stays.
    """
    kept = {"MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_MMAP_THRESHOLD_": "1073741824", "PYTHONUNBUFFERED": "1"}
    kept |= {"TORCHINDUCTOR_CACHE_DIR": str(compiled_models()), "TORCHINDUCTOR_FX_GRAPH_CACHE": "1"}
    kept |= {"TORCHINDUCTOR_COMPILE_THREADS": str(threads), "CUDA_MODULE_LOADING": "LAZY"}
    kept |= preloading(preloaded_allocator())
    if threads > 1 and threads * at_once <= available_cores():
        kept["OMP_WAIT_POLICY"] = "active"
    fixed = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {**kept, **os.environ, **fixed, "PYTHONPATH": import_path()}
