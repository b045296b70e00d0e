"""Time a trial's training steps compiled for the processor, beside the same steps taken eagerly.

    python tests/peers/bench_compile.py [--norms torch-bn bn gn ln in bin] [--batch-sizes 128 8] [--rounds 10]
                                        [--threads 2]

The steps are a sweep's, of ResNet-14 with crop and flip on the benchmark's images, in the precision that trials have
here and in the environment of a sweep's workers. Both ways take turns within each round; told are medians over rounds,
the rounds' ratios with the least and the greatest, and the seconds of compiling, anew.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import torch
from benchmark_images import pictures
from comparison import Spread, spread

from benchkit.preparation import data_root
from benchkit.registry import Registry
from benchkit.study.seeds import trial_seeds
from benchkit.study.settings import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    PluginRef,
    RegularizerSettings,
    Settings,
    TrainSettings,
)
from benchkit.sweep.training import bind_plugins
from benchkit.sweep.worker import environment
from benchkit.train.run import Run, build_run
from benchkit.train.step import Learn, augmented, train_step
from benchkit.train.steps.backends import backend_of

NORMS = ("torch-bn", "bn", "gn", "ln", "in", "bin")
COUNT = 2400
"""Images of an epoch."""

WINDOW = 480
"""Images of each timing; at least eight steps are taken."""

AWARE = "BENCHKIT_BENCH_COMPILE"
"""The environment variable of a process that has a worker's environment already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRow:
    """One norm at one batch size: median milliseconds of a step in both ways, their ratios, seconds of compiling."""

    norm: str
    batch_size: int
    eager: float
    compiled: float
    ratio: Spread
    compiling: float


def run_of(norm: str, batch_size: int, threads: int) -> Run:
    """Return the run of a ResNet-14 with a norm."""
    settings = Settings(
        data=DataSettings(dataset=PluginRef(name="pictures")),
        model=ModelSettings(model=PluginRef(name="resnet"), norm=PluginRef(name=norm)),
        train=TrainSettings(
            epochs=1000, batch_size=batch_size, threads=threads, optimizer=OptimizerSettings(lr=0.01, momentum=0.9)
        ),
        regularizers=(RegularizerSettings(id="crop-flip", plugin=PluginRef(name="crop-flip")),),
    )
    splits = pictures(data_root(), count=max(COUNT, 8 * batch_size))
    plugins = bind_plugins(Registry.installed(), settings)
    run = build_run(settings, splits, plugins, seeds=trial_seeds(settings.seed, "bench", 0), device="cpu")
    run.model.train()
    return run


def seconds(run: Run, learning: Learn | None, steps: int) -> float:
    """Return the seconds of one of so many steps on whole batches."""
    with run.randomness.in_charge():
        batches = run.train.epoch(run.randomness.order)
        start = time.perf_counter()
        for step in range(steps):
            train_step(run, next(batches), step, learning)
        return (time.perf_counter() - start) / steps


def compiled(run: Run) -> tuple[Learn, float]:
    """Return the compiled step of a run that has taken steps, and the seconds that compiling took."""
    with run.randomness.in_charge():
        batch = augmented(run, next(run.train.epoch(run.randomness.order)))
        start = time.perf_counter()
        learning = backend_of(run.device).compile(run, batch)
        learning(batch)
        return learning, time.perf_counter() - start


def row(norm: str, batch_size: int, threads: int, rounds: int) -> CompiledRow:
    """Return the measurement of one norm at one batch size."""
    steps = max(8, WINDOW // batch_size)
    eager, fast = run_of(norm, batch_size, threads), run_of(norm, batch_size, threads)
    for run in (eager, fast):
        seconds(run, None, 2)
    learning, compiling = compiled(fast)
    seconds(fast, learning, 2)
    times = [(seconds(eager, None, steps), seconds(fast, learning, steps)) for _ in range(rounds)]
    return CompiledRow(
        norm=norm,
        batch_size=batch_size,
        eager=1000 * statistics.median(plain for plain, _ in times),
        compiled=1000 * statistics.median(compiled for _, compiled in times),
        ratio=spread([compiled / plain for plain, compiled in times]),
        compiling=compiling,
    )


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--norms", nargs="+", default=NORMS)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 8])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    if AWARE not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            own = {AWARE: "1", "TORCHINDUCTOR_CACHE_DIR": folder}
            kept = {**environment(given.threads), **own}
            sys.exit(subprocess.run([sys.executable, *sys.argv], env=kept, check=False).returncode)
    print(f"torch {torch.__version__}, {given.threads} threads, {given.rounds} rounds, milliseconds a step")
    print(f"{'norm':10}{'batch':>6}{'eager':>9}{'compiled':>10}  {'ratio':20}{'compiling':>10}")
    for batch_size in given.batch_sizes:
        for norm in given.norms:
            one = row(norm, batch_size, given.threads, given.rounds)
            print(
                f"{one.norm:10}{one.batch_size:6}{one.eager:9.2f}{one.compiled:10.2f}  {one.ratio.text('.2f'):20}"
                f"{one.compiling:8.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
