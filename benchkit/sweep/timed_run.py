"""What a worker times: one short epoch of a condition, for an estimate, and a run that others train at the same time.

Both train a trial's settings cut down to a few batches. Runs in a worker.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchkit.plan import Condition, typed_settings
from benchkit.study.seeds import trial_seeds
from benchkit.study.settings import Settings
from benchkit.sweep.messages import Probed, RunReady, RunTimed
from benchkit.sweep.training import WorkerContext, bind_plugins
from benchkit.train.batches import ImageSet
from benchkit.train.checkpoint import save_checkpoint
from benchkit.train.cost import reachable_rate
from benchkit.train.device import now
from benchkit.train.evaluate import evaluation_batch, logits_of
from benchkit.train.fit import Pause, fit, fit_in_turns
from benchkit.train.run import Run, build_run
from benchkit.train.surroundings import TURN, Surroundings, own_stream

FEWEST = 10
"""Images to validate on, where there are as many."""


def shortened(settings: Settings, whole: Run, batches: int) -> Settings:
    """Return settings of a run on at most so many batches, validated in the proportion of the `whole` run."""
    images = min(len(whole.train.images), batches * whole.train.batch_size)
    val = max(FEWEST, round(len(whole.val) * images / len(whole.train.images)))
    data = dataclasses.replace(settings.data, train_size=images, val_size=min(val, len(whole.val)), test_size=1)
    return dataclasses.replace(settings, data=data)


def of_epochs(settings: Settings, epochs: int) -> Settings:
    """Return settings with another number of epochs."""
    return dataclasses.replace(settings, train=dataclasses.replace(settings.train, epochs=epochs))


PROBE_STEPS = 8
"""Batches of training in a probe's timed epoch."""


def probe(context: WorkerContext, condition: Condition) -> Probed:
    """Return the seconds of one epoch of a condition and the bytes of a trial, from two short epochs of it.

    The first epoch warms up, the second is timed; its time is scaled by the number of images.
    """
    settings = typed_settings(condition.settings, context.job.study.seed)
    splits = context.splits(settings.data.dataset)
    plugins = bind_plugins(context.registry, settings)
    options: dict[str, Any] = {"device": context.device, "device_memory": context.job.device_memory}
    options["seeds"] = trial_seeds(settings.seed, "probe", 0)
    whole = build_run(settings, splits, plugins, **options)
    small = of_epochs(shortened(settings, whole, PROBE_STEPS), 2)
    run = build_run(small, splits, plugins, **options)
    records = list(fit(run))
    share = len(run.train) / len(whole.train)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        started = time.perf_counter()
        save_checkpoint(path, run)
        saving = time.perf_counter() - started
        size = path.stat().st_size
    classes = len(splits.class_names)
    logits = 4 * classes * (len(whole.val.labels) + len(whole.test.labels))
    weights = sum(tensor.nbytes for tensor in run.model.state_dict().values())
    return Probed(
        key=condition.key,
        seconds=records[-1].seconds / share + saving,
        checkpoint_bytes=size,
        kept_bytes=logits + weights,
    )


def probe_all(context: WorkerContext) -> list[Probed]:
    """Return the probes of a job's conditions."""
    job = context.job
    torch.set_num_threads(max(typed_settings(c.settings, job.study.seed).train.threads for c in job.conditions))
    return [probe(context, condition) for condition in job.conditions]


STEPS = 96
"""Batches in an epoch of a probe: enough for what a process does between epochs, while others train, to be little."""

EPOCHS = 10_000
"""More epochs than a probe comes to."""

CONTEXT_BYTES = 2**29
"""What a process takes of a CUDA device beyond its tensors, about."""


class TimedLane:
    """A run that is trained again and again, in turns with others of its process where it has `surroundings`."""

    def __init__(self, run: Run, surroundings: Surroundings | None) -> None:
        """Train nothing yet."""
        self.run = run
        self._surroundings = surroundings
        # One iterator for all: however it takes its steps is chosen in its first epoch.
        self._records = fit_in_turns(run) if surroundings else fit(run)

    def turn(self) -> bool:
        """Train for a turn, or without others for an epoch; return whether an epoch has ended with it."""
        if self._surroundings is None:
            return not isinstance(next(self._records), Pause)
        end = time.monotonic() + TURN
        with self._surroundings.in_place():
            while (record := next(self._records)) is Pause.STEP and time.monotonic() < end:
                pass
        return not isinstance(record, Pause)


class TimedRun:
    """A worker that first makes runs ready (a job of 0 seconds), then trains them for a while, as often as asked."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._whole: Run | None = None
        self._ready: RunReady | None = None
        self._lanes: list[TimedLane] = []

    def answer(self, context: WorkerContext) -> RunReady | RunTimed:
        """Do what the job says for its first condition, with `at_once` runs."""
        job = context.job
        if job.seconds:
            return RunTimed(images_per_second=self._train(job.seconds, self._lanes[: job.at_once]))
        while len(self._lanes) < job.at_once:
            self._make_ready(context)
        assert self._ready is not None
        return self._ready

    def _make_ready(self, context: WorkerContext) -> None:
        """Build a short run that is trained, and for the first the whole trial's, whose images stay on the device."""
        device, memory = torch.device(context.device), context.job.device_memory
        surroundings = Surroundings(own_stream(device)) if context.job.per_process > 1 else None
        free = _free(device)
        settings = typed_settings(context.job.conditions[0].settings, context.job.study.seed)
        splits = context.splits(settings.data.dataset)
        plugins = bind_plugins(context.registry, settings)
        options = {"seeds": trial_seeds(settings.seed, "concurrency", 0), "device": context.device}
        if self._whole is None:
            self._whole = build_run(settings, splits, plugins, device_memory=memory, **options)  # type: ignore[arg-type]
        whole = self._whole
        memory = 0 if whole.train.images.streamed else memory
        short = _short(settings, whole)
        small = build_run(short, splits, plugins, device_memory=memory, **options)  # type: ignore[arg-type]
        small.hooks = dataclasses.replace(small.hooks, stops=())
        small.schedule, small.takes_turns = _still, surroundings is not None
        now(device)  # it may be trained on another stream than it was built on
        self._lanes.append(TimedLane(small, surroundings))
        while not self._lanes[-1].turn():
            pass
        small.settings = of_epochs(small.settings, EPOCHS)
        logits_of(small, _head(whole.val, evaluation_batch(small)))
        taken = 0
        if device.type == "cuda":
            taken = max(torch.cuda.memory_reserved(device), free - _free(device)) + CONTEXT_BYTES
            if self._ready is None:
                reachable_rate(whole)  # kept for all trials, which may never again have the device to themselves
            torch.cuda.empty_cache()
        if self._ready is None:
            self._ready = RunReady(images=whole.train.images_per_epoch, peak_bytes=taken, free_bytes=free)

    def _train(self, seconds: float, lanes: Sequence[TimedLane]) -> float:
        """Return the images per second of whole epochs, for at least so many seconds and an epoch of each run."""
        start, images, waited_for = time.perf_counter(), 0, set(lanes)
        while waited_for or time.perf_counter() - start < seconds:
            for lane in lanes:
                if lane.turn():
                    images += lane.run.train.images_per_epoch
                    waited_for.discard(lane)
        return images / (time.perf_counter() - start)


def _still(step: int) -> float:
    """Return a learning rate at which nothing diverges, however long it is trained."""
    return 0.0


def _short(settings: Settings, whole: Run) -> Settings:
    """Return settings of a run on few images that takes as many steps as the whole.

    On their number depends whether steps are recorded or the model is compiled.
    """
    short = shortened(settings, whole, STEPS)
    return of_epochs(short, max(1, settings.train.epochs * len(whole.train.images) // short.data.train_size))


def _head(images: ImageSet, count: int) -> ImageSet:
    """Return the first images of a set."""
    return dataclasses.replace(images, rows=images.rows[:count], labels=images.labels[:count])


def _free(device: torch.device) -> int:
    """Return the free bytes of a CUDA device, what this process has taken already among them; 0 for the CPU."""
    return torch.cuda.mem_get_info(device)[0] + CONTEXT_BYTES if device.type == "cuda" else 0
