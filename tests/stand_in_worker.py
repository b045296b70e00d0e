"""A worker process whose GPU a CPU stands in for: to be put in the place of `benchkit.sweep.worker.COMMAND`.

What the worker tells of its device is that of the GPU whose UUID it was started with; its steps are recorded. What the
GPU does best is in the environment.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from unittest import mock

from benchkit.results import EpochRecord
from benchkit.sweep import worker
from benchkit.sweep.messages import Seat
from benchkit.testing.stand_in_gpu import StandInGpu, stand_in_gpu
from benchkit.train.fit import Pause
from benchkit.train.run import Run

COMMAND = (sys.executable, "-c", "from stand_in_worker import main; main()")


CHECK = "from stand_in_worker import check; check()"
"""What a node of a cluster runs in the place of `benchkit.sweep.node_check.CODE`."""


def check() -> None:
    """Answer as a node does whose GPUs are stand-ins."""
    from benchkit.sweep import node_check

    told = {"device": "Stand-in", "driver": "driver 1", "bf16": False}
    with mock.patch("benchkit.sweep.node_check._device", lambda needs: told):
        node_check.main()


def main() -> None:
    """Work as a worker does, on a stand-in."""
    import benchkit.sweep.provenance
    import benchkit.sweep.training
    import benchkit.sweep.work
    import benchkit.train.fit

    name = f"Stand-in {os.environ.get('CUDA_VISIBLE_DEVICES', 'without a device')}"
    precision = os.environ.get("STAND_IN_PRECISION", "float32")
    seat = Seat(node=platform.node(), kind="cuda", device=name, precision=precision, bf16=False)
    train = benchkit.train.fit.fit_in_turns
    with ExitStack() as stack:
        stack.enter_context(stand_in_gpu())

        def fit_in_turns(run: Run) -> Iterator[EpochRecord | Pause]:
            print(f"process {os.getpid()} trains on {name}")
            gpu = StandInGpu()
            yield from train(run, gpu)
            print(f"{gpu.replays} steps were replayed")

        for place, value in {
            "benchkit.sweep.work.resolve_device": lambda asked: "cpu",
            "benchkit.sweep.work.seat_of": lambda device: seat,
            "benchkit.sweep.training.fit": lambda run: (one for one in fit_in_turns(run) if not isinstance(one, Pause)),
            "benchkit.sweep.training.fit_in_turns": fit_in_turns,
            "benchkit.sweep.provenance.device_name": lambda device: name,
            "benchkit.train.fit.hardware_name": lambda device: name,
        }.items():
            stack.enter_context(mock.patch(place, value))
        worker.main()
