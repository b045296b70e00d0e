"""What a worker does when it is told to: be ready, check networks, time runs, train a trial. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch

from benchkit.registry import Registry
from benchkit.storage import node_name
from benchkit.sweep.messages import Job, Seat, Train, WorkerIdle, WorkerReady
from benchkit.sweep.network_check import check_networks
from benchkit.sweep.provenance import device_name
from benchkit.sweep.starts import free_memory
from benchkit.sweep.stopping import WorkerStop
from benchkit.sweep.timed_run import TimedRun, probe_all
from benchkit.sweep.training import Telling, WorkerContext, train_trial
from benchkit.train import streaming
from benchkit.train.compiler import compiler_found
from benchkit.train.device import has_bf16, has_fp16, instructions, resolve_device
from benchkit.train.step import automatic_precision


class WorkerTasks:
    """All that one worker does, one thing after another; between trials it keeps images and plugins."""

    def __init__(self, stop: WorkerStop | None = None, imports: Mapping[str, float] = MappingProxyType({})) -> None:
        """Hold nothing yet; `stop` says when to end, and `imports` are the seconds that importing took."""
        self._stop = stop
        self._imports = dict(imports)
        self._timed_run = TimedRun()
        self._context: WorkerContext | None = None

    @property
    def shared_device(self) -> torch.device | None:
        """Return the device that trials of this process share, None where each has the process to itself."""
        context = self._context
        return torch.device(context.device) if context and context.job.per_process > 1 else None

    def do(self, order: Job | Train) -> Telling:
        """Tell of what is done until it is done; a job of training only makes ready for what comes next."""
        if isinstance(order, Train):
            assert self._context is not None, "no trial comes before its job"
            yield from train_trial(self._context, order)
            return
        device = resolve_device(order.device)
        if self._context is None or self._context.job != order:
            streaming.PINNED = not order.pageable
            registry = Registry.installed(order.plugins, allow_shadow=order.allow_shadow)
            self._context = WorkerContext(job=order, device=device, registry=registry, stop=self._stop)
        yield WorkerReady(device=order.device_label or device, seat=seat_of(device), imports=self._imports)
        if order.task == "train":
            return
        if order.task == "probe":
            yield from probe_all(self._context)
        elif order.task == "check":
            yield check_networks(self._context)
        else:
            yield self._timed_run.answer(self._context)
        yield WorkerIdle()


def seat_of(device: str) -> Seat:
    """Return what a worker finds where it runs, once its device has computed something there."""
    torch.ones(2, device=device).sum().item()
    kind = device.partition(":")[0]
    return Seat(
        node=node_name(),
        kind=kind,
        device=device_name(device),
        precision="fp16" if has_fp16(torch.device(device)) else automatic_precision(device),
        bf16=has_bf16(torch.device(device)),
        instructions=instructions() if kind == "cpu" else "",
        lacks=compiler_found(kind)[1],
        free=free_memory(),
    )
