"""How many trials a CUDA device is best given at once: the same run in 1, 2, 4, ... workers, timed together.

Whatever goes wrong in it means fewer trials at once, never a sweep that fails. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from benchkit.errors import BenchkitError
from benchkit.plan import Plan
from benchkit.storage import decode, encode, write_atomically
from benchkit.sweep.devices import Device, mps_runs
from benchkit.sweep.messages import (
    ConcurrencyTried,
    Event,
    Job,
    RunReady,
    RunTimed,
    WorkerFailed,
    WorkerLost,
    WorkerReady,
)
from benchkit.sweep.pool import HEAR_EVERY, LocalLine, Opener, Pool
from benchkit.sweep.progress import View

GAIN = 1.1
"""From this ratio of total rates on, more trials at once are worth it."""

SHARE = 0.8
"""The share of the free memory that trials may take together."""

WORTH = 60.0
"""Seconds of training left, one trial after another, below which looking for more speed is not worth it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLevel:
    """So many trials at once trained `rate` images per second together; 0 when they could not be trained."""

    at_once: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """What was measured on `device`: levels from one trial on, and of one trial its memory and images.

    `peak_bytes` is what one trial takes of the device's memory and `free_bytes` what was free before it, 0 where
    nobody knows. `images` is the number that it trains on in an epoch.
    """

    device: str = ""
    levels: tuple[ConcurrencyLevel, ...] = ()
    peak_bytes: int = 0
    free_bytes: int = 0
    images: int = 0

    def fitting(self) -> int:
        """Return how many trials fit into `SHARE` of the free memory, at least one."""
        if not self.peak_bytes or not self.free_bytes:
            return 2**31
        return max(1, int(SHARE * self.free_bytes / self.peak_bytes))


def next_level(concurrency: Concurrency, most: int, epochs: float = math.inf) -> int | None:
    """Return how many trials at once to measure next, None when enough is known.

    The number doubles, up to `most` and what fits into memory, while the total rate rises by a tenth each time, and
    only if training the `epochs` that are left, one trial after another, would take a while.
    """
    if not concurrency.levels:
        return 1
    *before, last = concurrency.levels
    if last.rate <= 0 or (before and last.rate < GAIN * before[-1].rate):
        return None
    if concurrency.images * epochs / concurrency.levels[0].rate < WORTH:
        return None
    following = min(2 * last.at_once, most, concurrency.fitting())
    return following if following > last.at_once else None


def best_count(concurrency: Concurrency, most: int) -> int:
    """Return the last number of trials at once that was a tenth faster than the one before it, 1 to `most`."""
    best = 1
    for before, level in pairwise(concurrency.levels):
        if level.rate < GAIN * before.rate:
            break
        best = level.at_once
    return max(1, min(best, most))


def concurrency_text(concurrency: Concurrency, count: int) -> str:
    """Return the choice and what it rests on: `2 trials at once on cuda:0: probed 1: 900, 2: 1,700 images/s`."""
    rates = ", ".join(
        f"{one.at_once}: {one.rate:,.0f}" if one.rate else f"{one.at_once}: failed" for one in concurrency.levels
    )
    trials = "1 trial" if count == 1 else f"{count} trials"
    return f"{trials} at once on {concurrency.device}: probed {rates} images/s"


WINDOW = 2.0
"""Seconds, at least, for which each number of trials at once is timed."""

PATIENCE = 300.0
"""Seconds after which workers that do not answer count as failed."""

KEPT = "concurrency.json"
"""The file of a workspace that keeps what was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencySearch:
    """What is to be found: for the workers' `job` (of 0 seconds), up to `most` trials at once of `threads` CPU threads.

    `epochs` is the number that all missing trials train together, `key` what the measurement holds for.
    """

    job: Job
    device: Device
    most: int
    threads: int
    epochs: int
    key: str


def concurrency_search(job: Job, plan: Plan, device: Device, *, missing: int, cores: int) -> ConcurrencySearch:
    """Return what is to be found for a device, for which so many of the plan's trials are missing and so many cores.

    The condition with the largest batches is timed, the first of equals: it takes the most memory.
    """
    settings = {one.key: plan.settings_of(one).train for one in plan.conditions}
    timed = max(plan.conditions, key=lambda one: settings[one.key].batch_size)
    threads = max(one.threads for one in settings.values())
    return ConcurrencySearch(
        job=replace(job, conditions=(timed,)),
        device=device,
        most=min(missing, job.per_process if device.exclusive else cores // threads * job.per_process),
        threads=threads,
        epochs=missing * settings[timed.key].epochs,
        key=_key(job, plan, device, cores),
    )


def _key(job: Job, plan: Plan, device: Device, cores: int) -> str:
    """Return a digest of what the measurement depends on: conditions, machine, device, sharing, memory, cores."""
    together = [job.per_process] if job.per_process > 1 else []
    visible = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "CUDA_VISIBLE_DEVICES")  # the last is 0 in every job, maybe
    which = device.uuid or next(filter(None, map(os.environ.get, visible)), "")
    where = platform.node()
    if device.place:  # what is measured on one node of a cluster holds for all that have such a GPU
        which, where = device.name, "a cluster"
    sharing = "mps" if mps_runs() else ""
    parts = [
        where,
        job.device,
        which,
        sharing,
        cores,
        job.device_memory,
        *together,
        *sorted(c.key for c in plan.conditions),
    ]
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]


def trials_at_once(task: ConcurrencySearch, workspace: Path, view: View, opener: Opener = LocalLine) -> int:
    """Return how many trials to train at once, and tell the view why; 1 where nothing can be measured.

    What is measured, by workers that the opener starts, is kept in the workspace.
    """
    if task.most < 2:
        return 1
    kept = read_kept(workspace).get(task.key, Concurrency())
    concurrency = kept
    if next_level(kept, task.most, task.epochs) is not None:
        logs = workspace / "logs" / "concurrency"
        processes = -(-task.most // task.job.per_process)
        with Pool((task.device,) * processes, task.threads, logs, opener) as pool:
            concurrency = explore(TimedWorkers(task.job, pool, view).measure, kept, task.most, task.epochs)
        _keep(workspace, task.key, concurrency)
    count = best_count(concurrency, task.most)
    if len(concurrency.levels) > 1:
        earlier = " (an earlier sweep's probe)" if concurrency == kept else ""
        view.say(f"{concurrency_text(concurrency, count)}{earlier}")
    return count


def explore(
    measure: Callable[[Concurrency, int], Concurrency], known: Concurrency, most: int, epochs: float
) -> Concurrency:
    """Return what is known after `measure` has added one level after another, as far as they are worth it."""
    while (level := next_level(known, most, epochs)) is not None:
        known = measure(known, level)
    return known


class TimedWorkers:
    """Workers that train the same run at the same time, each of them as many as a process is given."""

    def __init__(self, job: Job, pool: Pool, view: View) -> None:
        """Start none yet."""
        self._job = job
        self._pool = pool
        self._view = view
        self._ready: dict[int, RunReady] = {}
        self._runs: dict[int, int] = {}
        self._device = job.device

    def measure(self, known: Concurrency, at_once: int) -> Concurrency:
        """Return what is known with one more level: so many workers' rates together, 0 when one of them fails."""
        self._view.event(0, ConcurrencyTried(at_once=at_once))
        failed = replace(
            known, device=self._device, levels=(*known.levels, ConcurrencyLevel(at_once=at_once, rate=0.0))
        )
        jobs = self._jobs(at_once)
        grown = {number: job for number, job in jobs.items() if self._runs.get(number, 0) < job.at_once}
        answers = self._answers(grown)
        self._ready |= {number: one for number, one in answers.items() if isinstance(one, RunReady)}
        if len(answers) < len(grown):
            return failed
        self._runs |= {number: job.at_once for number, job in grown.items()}
        timed = self._answers({number: replace(job, seconds=WINDOW) for number, job in jobs.items()}).values()
        rates = [one.images_per_second for one in timed if isinstance(one, RunTimed)]
        if len(rates) < len(jobs):
            return failed
        first = self._ready[0]  # that one was made ready while no other took of the device's memory
        return replace(
            known,
            device=self._device,
            levels=(*known.levels, ConcurrencyLevel(at_once=at_once, rate=sum(rates))),
            peak_bytes=known.peak_bytes or first.peak_bytes,
            free_bytes=known.free_bytes or first.free_bytes,
            images=first.images,
        )

    def _jobs(self, at_once: int) -> dict[int, Job]:
        """Return what each worker is told, so that there are so many runs: the last one may have fewer."""
        most = self._job.per_process
        return {
            number: replace(self._job, at_once=min(most, at_once - first))
            for number, first in enumerate(range(0, at_once, most))
        }

    def _answers(self, jobs: Mapping[int, Job]) -> dict[int, Event]:
        """Return the answers of workers to their jobs, fewer when one fails or none comes for too long."""
        waiting = set(jobs)
        for number, job in jobs.items():
            self._pool.give(number, job)
        found: dict[int, Event] = {}
        deadline = time.monotonic() + PATIENCE + max((job.seconds for job in jobs.values()), default=0.0)
        while waiting and time.monotonic() < deadline:
            for number, event in self._pool.events(HEAR_EVERY):
                if isinstance(event, WorkerReady):
                    self._device = event.device
                elif isinstance(event, WorkerFailed | WorkerLost):
                    return found
                elif isinstance(event, RunReady | RunTimed):
                    found[number] = event
                    waiting.discard(number)
                if not waiting:
                    break
        return found


def read_kept(workspace: Path) -> dict[str, Concurrency]:
    """Return what earlier sweeps of a workspace measured, by what it holds for; nothing when it cannot be read."""
    try:
        table = json.loads((workspace / KEPT).read_text(encoding="utf-8"))
        return {key: decode(Concurrency, one) for key, one in table.items()}
    except (OSError, ValueError, AttributeError, BenchkitError):
        return {}


def _keep(workspace: Path, key: str, concurrency: Concurrency) -> None:
    """Write down what was measured, unless a failure was: the next sweep may have better luck."""
    if concurrency.levels and all(level.rate for level in concurrency.levels):
        kept = {**read_kept(workspace), key: concurrency}
        write_atomically(workspace / KEPT, json.dumps({name: encode(one) for name, one in kept.items()}).encode())
