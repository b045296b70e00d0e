"""How long and how large a study will be, from a short timed run of some of its conditions. Runs in a worker."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchkit.plan import Condition, typed_settings
from benchkit.registry import Registry
from benchkit.registry.binding import load_data
from benchkit.study.seeds import trial_seeds
from benchkit.sweep.events import Probed
from benchkit.sweep.job import Job
from benchkit.sweep.shortening import of_epochs, shortened
from benchkit.sweep.training import bind_plugins
from benchkit.train.checkpoint import save_checkpoint
from benchkit.train.fit import fit
from benchkit.train.run import build_run

STEPS = 8
"""Batches of training in a probe's timed epoch."""


def probe(job: Job, condition: Condition, registry: Registry, device: str) -> Probed:
    """Return the seconds of one epoch of a condition and the bytes of a trial, from two short epochs of it.

    The first epoch warms up, the second is timed; its time is scaled by the number of images.
    """
    settings = typed_settings(condition.settings, job.study.seed)
    splits = load_data(registry, settings.data.dataset, job.data_root)
    plugins = bind_plugins(registry, settings)
    options: dict[str, Any] = {"device": device, "device_memory": job.device_memory}
    options["seeds"] = trial_seeds(settings.seed, "probe", 0)
    whole = build_run(settings, splits, plugins, **options)
    small = of_epochs(shortened(settings, whole, STEPS), 2)
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


def probe_all(job: Job, device: str) -> list[Probed]:
    """Return the probes of a job's conditions."""
    registry = Registry.installed(job.plugins, allow_shadow=job.allow_shadow)
    torch.set_num_threads(max(typed_settings(c.settings, job.study.seed).train.threads for c in job.conditions))
    return [probe(job, condition, registry, device) for condition in job.conditions]
