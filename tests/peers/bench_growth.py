"""What a long sweep costs per trial, at its start and at its end: it should be the same.

    python tests/peers/bench_growth.py [--trials 2000] [--jobs 1] [--search] [--device cpu]

Sweeps so many trials of some milliseconds by the public command, and reports the median overhead of a trial (the time
between two ends of a worker's trials, less its training) over the first and the last hundred, and the memory of the
sweep and of its workers after the first hundred trials and at the end. With --search the trials are those of one
random search instead of repeats of four conditions. Exit status 1 when anything has grown by more than half; with
--json the numbers are printed for who judges them, and the status is 0.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from devices import device

from benchkit.ledger import read_results
from benchkit.results import Trial

STUDY = """
title = "Growth"
[data]
name = "digits"
train_size = 40
val_size = 20
test_size = 20
[model]
name = "mlp"
hidden = [4]
[train]
epochs = 1
batch_size = 40
precision = "float32"
[repeats]
n = {repeats}
"""
SEARCH = """
[search]
trials = {trials}
sampler = "random"
pruner = "none"
confirm = 1
space."train.optimizer.lr" = {{ low = 0.01, high = 0.3, log = true }}
"""
FACTORS = """
[factors]
"train.optimizer.lr" = [0.05, 0.1, 0.15, 0.2]
"""
CONDITIONS = 4
ALLOWED = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """One quantity over the first and over the last hundred of a sweep's `trials`."""

    name: str
    unit: str
    first: float
    last: float
    trials: int

    @property
    def ratio(self) -> float:
        """Return how many times the first the last is."""
        return self.last / self.first


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Resident memory in MiB at a moment, in seconds since 1970."""

    when: float
    sweep: float
    workers: float


def study_text(trials: int, search: bool) -> str:
    """Return a study of about so many trials: repeats of four conditions, or one search."""
    if search:
        return STUDY.format(repeats=1) + SEARCH.format(trials=trials)
    return STUDY.format(repeats=max(1, trials // CONDITIONS)) + FACTORS


def watched(command: Sequence[str], every: float = 0.5) -> list[Sample]:
    """Run a command to its end; return its memory and that of its child processes over time."""
    samples = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                workers = sum(child.memory_info().rss for child in parent.children(recursive=True))
                sample = Sample(when=time.time(), sweep=parent.memory_info().rss / 2**20, workers=workers / 2**20)
                samples += [sample] if workers else []
            except psutil.NoSuchProcess:
                pass
            time.sleep(every)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}")
    return samples


def overheads(trials: Sequence[Trial], jobs: int) -> list[float]:
    """Return each trial's seconds beyond its training, in the order of their ends."""
    ended = sorted(trials, key=lambda trial: trial.finished)
    between = [
        (after.finished - before.finished) * jobs - sum(record.seconds for record in after.history)
        for before, after in itertools.pairwise(ended)
    ]
    return between


def grown(trials: Sequence[Trial], samples: Sequence[Sample], jobs: int) -> list[Growth]:
    """Return overhead and memory at both ends; a hundred trials at each, or a third of them in short sweeps."""
    part = min(100, len(trials) // 3)
    each = overheads(trials, jobs)
    warm = sorted(trial.finished for trial in trials)[part]
    early = next((sample for sample in samples if sample.when >= warm), samples[-1])
    late = samples[-1]
    first, last = statistics.median(each[:part]) * 1000, statistics.median(each[-part:]) * 1000
    count = len(trials)
    return [
        Growth(name="overhead of a trial", unit="ms", first=first, last=last, trials=count),
        Growth(name="memory of the sweep", unit="MiB", first=early.sweep, last=late.sweep, trials=count),
        Growth(name="memory of the workers", unit="MiB", first=early.workers, last=late.workers, trials=count),
    ]


def main() -> int:
    """Measure and print; return 1 when something grows that nobody else judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--device", type=device, default="cpu")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "growth.toml"
        study.write_text(study_text(given.trials, given.search), encoding="utf-8")
        workspace = Path(folder) / "runs"
        command = [sys.executable, "-m", "benchkit", "sweep", str(study), "--workspace", str(workspace)]
        samples = watched([*command, "--device", given.device, "--jobs", str(given.jobs)])
        results = read_results(workspace)
    trials = [trial for trial in results.trials if trial.state == "done"]
    found = grown(trials, samples, given.jobs)
    if given.json:
        print(json.dumps([asdict(one) for one in found]))
        return 0
    print(f"{len(trials)} trials, {given.jobs} at once, {os.cpu_count()} cores")
    print(f"{'':24}{'first':>10}{'last':>10}{'ratio':>8}")
    for one in found:
        print(f"{one.name:24}{one.first:10.1f}{one.last:10.1f}{one.ratio:8.2f}  {one.unit}")
    return int(any(one.ratio > ALLOWED for one in found))


if __name__ == "__main__":
    sys.exit(main())
