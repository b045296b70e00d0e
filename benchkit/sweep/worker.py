"""A worker process: reads orders from its standard input, follows them, and tells events on its standard output.

`COMMAND` starts one. The end of its input ends it at once, so that no worker outlives its sweep.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import IO

from benchkit.child import import_path
from benchkit.errors import BenchkitError
from benchkit.locks import shared_disk
from benchkit.preparation import data_root
from benchkit.storage import SENT, cache_folder, sent_path
from benchkit.sweep.devices import available_cores, preloaded_allocator, preloading
from benchkit.sweep.messages import Event, Job, WorkerFailed, dump, frames, order_of
from benchkit.sweep.stopping import WorkerStop

# With -m, Python would warn in each worker's log that the package has imported the module before it is run.
COMMAND: Sequence[str] = (sys.executable, "-c", "from benchkit.sweep.worker import main; main()")
"""The command that starts a worker; whoever puts another in its place has every sweep start workers of another kind."""


class Channel:
    """The worker's line to its sweep: everything else that is printed goes to the log instead."""

    def __init__(self) -> None:
        """Keep the real standard output for events and point the process's own at standard error."""
        self._out: IO[bytes] = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def send(self, event: Event) -> None:
        """Tell the sweep of an event."""
        self._out.write(dump(event))
        self._out.flush()


def listen(orders: queue.Queue[bytes]) -> None:
    """Put each frame of standard input into the queue; end the process when the sweep is gone."""
    for whole in frames(sys.stdin.buffer):
        orders.put(whole)
    os._exit(0)


def main() -> None:
    """Do what the sweep says until it closes the line: jobs one after another, trials in turns."""
    stop = WorkerStop()
    channel = Channel()
    orders: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=listen, args=(orders,), daemon=True).start()
    try:
        began = time.perf_counter()
        import torch  # noqa: F401 - what it takes is told apart

        there = time.perf_counter()
        from benchkit.sweep.turns import Turns
        from benchkit.sweep.work import WorkerTasks

        imports = {"import of torch": there - began, "import of the rest": time.perf_counter() - there}
        turns = Turns(WorkerTasks(stop, imports), channel.send, stop)
        while True:
            while turns.waiting or not orders.empty():
                order = order_of(orders.get())
                turns.take(here(order) if isinstance(order, Job) else order)
            turns.turn()
    except Exception as error:  # noqa: BLE001 - told to the sweep, which sets the seat aside
        traceback.print_exc()
        told = str(error) if isinstance(error, BenchkitError) else f"{type(error).__name__}: {error}"
        channel.send(WorkerFailed(message=told))
        sys.exit(1)


def here(job: Job) -> Job:
    """Return a job with what is this machine's, where it is not the sweep's: data, files that were sent, a GPU."""
    if SENT not in os.environ:
        return job
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    job = replace(job, device_label=f"cuda:{given}") if job.device == "cuda" and given else job
    return replace(job, data_root=data_root(), plugins=tuple(map(sent_path, job.plugins)))


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
