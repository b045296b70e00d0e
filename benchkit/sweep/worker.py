"""A worker process: reads orders from its standard input, follows them, and tells events on its standard output.

`COMMAND` starts one. The end of its input ends it at once, so that no worker outlives its sweep.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace

from benchkit.child import answer_stream
from benchkit.errors import BenchkitError
from benchkit.preparation import data_root
from benchkit.storage import SENT, sent_path
from benchkit.sweep.messages import Event, Job, WorkerFailed, dump, frames, order_of
from benchkit.sweep.stopping import WorkerStop

# With -m, Python would warn in each worker's log that the package has imported the module before it is run. Without -P
# it would import a file of the folder that a sweep is begun in, where that has the name of a standard module.
COMMAND: Sequence[str] = (sys.executable, "-P", "-c", "from benchkit.sweep.worker import main; main()")
"""The command that starts a worker; whoever puts another in its place has every sweep start workers of another kind."""


def listen(orders: queue.Queue[bytes]) -> None:
    """Put each frame of standard input into the queue; end the process when the sweep is gone."""
    for whole in frames(sys.stdin.buffer):
        orders.put(whole)
    os._exit(0)


def main() -> None:
    """Do what the sweep says until it closes the line: jobs one after another, trials in turns."""
    stop = WorkerStop()
    answers = answer_stream()

    def send(event: Event) -> None:
        answers.buffer.write(dump(event))
        answers.buffer.flush()

    orders: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=listen, args=(orders,), daemon=True).start()
    try:
        began = time.perf_counter()
        import torch  # noqa: F401 - what it takes is told apart

        there = time.perf_counter()
        from benchkit.sweep.turns import Turns
        from benchkit.sweep.work import WorkerTasks

        imports = {"import of torch": there - began, "import of the rest": time.perf_counter() - there}
        turns = Turns(WorkerTasks(stop, imports), send, stop)
        while True:
            while turns.waiting or not orders.empty():
                order = order_of(orders.get())
                turns.take(here(order) if isinstance(order, Job) else order)
            turns.turn()
    except Exception as error:  # noqa: BLE001 - told to the sweep, which sets the seat aside
        traceback.print_exc()
        told = str(error) if isinstance(error, BenchkitError) else f"{type(error).__name__}: {error}"
        send(WorkerFailed(message=told))
        sys.exit(1)


def here(job: Job) -> Job:
    """Return a job with what is this machine's, where it is not the sweep's: data, files that were sent, a GPU."""
    if SENT not in os.environ:
        return job
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    job = replace(job, device_label=f"cuda:{given}") if job.device == "cuda" and given else job
    return replace(job, data_root=data_root(), plugins=tuple(map(sent_path, job.plugins)))
