"""What a long sweep costs per trial, at its start and at its end: it should be the same.

    python tests/peers/bench_growth.py [--trials 2000] [--jobs 1] [--search] [--device cpu]
    python tests/peers/bench_growth.py --seconds 1 --trials 200

Sweeps so many trials of some milliseconds by the public command, and reports the median overhead of a trial (the time
between two ends of a worker's trials, less its training) over the first and the last hundred, and the memory of the
sweep and of its workers after the first hundred trials and at the end. With --search the trials are those of one
random search instead of repeats of four conditions. Exit status 1 when anything has grown by more than half; with
--json the numbers are printed for who judges them, and the status is 0.

With --seconds trials take about so long: one is tried first, and their epochs are as many as that. What is reported is
the share of the clock and of the processor time of sweep and workers that goes to anything but the trials' epochs,
which are training and validation: from the first trial on, the start told apart. Exit status 1 when it is a tenth.
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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from devices import device

from benchkit.ledger import read_results
from benchkit.results import EpochRecord, Trial

if TYPE_CHECKING:
    from benchkit.sweep.messages import Train
    from benchkit.sweep.training import Telling, WorkerContext
    from benchkit.train.run import Run

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
LASTING = (
    (STUDY + FACTORS.replace("0.", "0.0"))
    .replace("epochs = 1", "epochs = {epochs}")
    .replace("[4]", "[500, 500]")
    .replace("train_size = 40", "train_size = 1000")
    .replace("_size = 20", "_size = 200")
)
CONDITIONS = 4
AS_SWEEP, AS_WORKER, TOLD = "as-sweep", "as-worker", "BENCH_GROWTH_TOLD"
TRIED, LOST = 20, 0.1
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
    """Resident memory in MiB at a moment, in seconds since 1970, and the sweep's seconds of a processor up to then."""

    when: float
    sweep: float
    workers: float
    processor: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A trial as its worker saw it: when it began and ended, and its processor time up to then and in its epochs."""

    began: float
    ended: float
    before: float
    after: float
    epochs: float


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
                used = parent.cpu_times()
                workers = sum(child.memory_info().rss for child in parent.children(recursive=True))
                sample = Sample(
                    when=time.time(),
                    sweep=parent.memory_info().rss / 2**20,
                    workers=workers / 2**20,
                    processor=used.user + used.system,
                )
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


def as_sweep(arguments: Sequence[str]) -> int:
    """Be the command benchkit with workers that write down what their trials take."""
    from benchkit.cli import main as command
    from benchkit.sweep import worker

    worker.COMMAND = (sys.executable, __file__, AS_WORKER)
    return command(arguments)


def as_worker() -> None:
    """Be a worker that writes down what its trials take."""
    from benchkit.sweep import training, work, worker

    fit, train, epochs = training.fit, work.train_trial, [0.0]

    def timed_fit(run: Run) -> Iterator[EpochRecord]:
        records = fit(run)
        while True:
            began = time.process_time()
            record = next(records, None)
            epochs[0] += time.process_time() - began
            if record is None:
                return
            yield record

    def timed_trial(context: WorkerContext, order: Train) -> Telling:
        began, before, epochs[0] = time.time(), time.process_time(), 0.0
        yield from train(context, order)
        one = Timed(began=began, ended=time.time(), before=before, after=time.process_time(), epochs=epochs[0])
        with Path(os.environ[TOLD]).open("a") as file:
            file.write(json.dumps(asdict(one)) + "\n")

    training.fit, work.train_trial = timed_fit, timed_trial
    worker.main()


def lost(trials: Sequence[Trial], timed: Sequence[Timed], samples: Sequence[Sample], jobs: int) -> tuple[float, float]:
    """Return the shares of the clock and of the processor time that are no epochs', once the first trial has begun."""
    start, end = min(one.began for one in timed), max(one.ended for one in timed)
    trained = sum(record.seconds for trial in trials for record in trial.history)
    within = [sample.processor for sample in samples if start <= sample.when <= end]
    # Each worker's own clock: its trials follow each other, and what is between them is its waiting.
    workers = sum(one.after - one.before for one in timed)
    processor = workers + within[-1] - within[0]
    return 1 - trained / ((end - start) * jobs), 1 - sum(one.epochs for one in timed) / processor


def measure_lasting(seconds: float, trials: int, jobs: int) -> int:
    """Measure trials of about so many seconds and print what share of the time is lost; return 1 where a tenth is."""
    with tempfile.TemporaryDirectory() as folder:
        study, told = Path(folder) / "lasting.toml", Path(folder) / "told.jsonl"
        os.environ[TOLD] = str(told)

        def swept(epochs: int, count: int, name: str) -> tuple[list[Trial], list[Sample], list[Timed]]:
            study.write_text(LASTING.format(epochs=epochs, repeats=max(1, count // CONDITIONS)), encoding="utf-8")
            workspace = Path(folder) / name
            told.unlink(missing_ok=True)
            command = [sys.executable, __file__, AS_SWEEP, "sweep", str(study), "--workspace", str(workspace)]
            samples = watched([*command, "--device", "cpu", "--jobs", str(jobs)])
            timed = [Timed(**json.loads(line)) for line in told.read_text(encoding="utf-8").splitlines()]
            return [one for one in read_results(workspace).trials if one.state == "done"], samples, timed

        _, _, tried = swept(TRIED, CONDITIONS, "tried")
        epoch = statistics.median(one.epochs for one in tried) / TRIED  # of a processor: a loaded machine's clock lies
        began = time.time()
        found, samples, timed = swept(max(1, round(seconds / epoch)), trials, "runs")
    clock, processor = lost(found, timed, samples, jobs)
    took = statistics.median(one.after - one.before for one in timed)
    print(
        f"{len(found)} trials of {took:.2f} s of a processor (median), {jobs} at once, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}\n{min(one.began for one in timed) - began:.1f} s to the first trial's begin; from "
        f"there on {clock:.1%} of the clock and {processor:.1%} of the processor time went to anything but epochs"
    )
    return int(clock > LOST or processor > LOST)


def main() -> int:
    """Measure and print; return 1 when something grows that nobody else judges."""
    if sys.argv[1:2] == [AS_WORKER]:
        as_worker()
    if sys.argv[1:2] == [AS_SWEEP]:
        return as_sweep(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--device", type=device, default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.0)
    given = parser.parse_args()
    if given.seconds:
        return measure_lasting(given.seconds, given.trials, given.jobs)
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
