"""Time a trial's training steps compiled for the processor, beside the same steps taken eagerly.

    python tests/peers/bench_compile.py [--models resnet] [--norms torch-bn bn gn ln in bin] [--batch-sizes 128 8]
                                        [--rounds 10] [--threads 2] [--table NOTE]

The steps are a sweep's, with crop and flip on the benchmark's images, in the precision that trials have here and in
the environment of a sweep's workers. Both ways take turns within each round; told are medians over rounds, the rounds'
ratios with the least and the greatest, the seconds of compiling, anew, and those until a later trial has the code.
With one thread, seconds are the processor's: what else the machine does counts little. `--table` puts the rows into
the package's table, by which `train.compile = "auto"` is decided, with a note on how they were measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from benchmark_images import pictures
from comparison import Spread, spread

from benchkit.preparation import data_root
from benchkit.registry import Registry
from benchkit.registry.options import options_of
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
from benchkit.sweep.compiling import TABLE, Row, rows_of
from benchkit.sweep.devices import worker_environment
from benchkit.sweep.training import bind_plugins
from benchkit.train.device import instructions
from benchkit.train.processor import processor
from benchkit.train.run import Run, build_run
from benchkit.train.step import Learn, augmented, train_step
from benchkit.train.steps.backends import backend_of

MODELS = ("resnet",)
NORMS = ("torch-bn", "bn", "gn", "ln", "in", "bin")
COUNT = 2400
"""Images of an epoch."""

WINDOW = 480
"""Images of each timing; at least eight steps are taken."""

AWARE = "BENCHKIT_BENCH_COMPILE"
"""The environment variable of a process that has a worker's environment already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRow:
    """One network at one batch size: median seconds of a step in both ways, their ratios, seconds of compiling.

    `later` are the seconds until a later trial has the code that is kept.
    """

    model: str
    norm: str
    batch_size: int
    eager: float
    compiled: float
    ratio: Spread
    compiling: float
    later: float
    precision: str
    options: Mapping[str, Any]


def run_of(model: str, norm: str, batch_size: int, threads: int) -> Run:
    """Return the run of a model, a ResNet-14 say, with a norm."""
    settings = Settings(
        data=DataSettings(dataset=PluginRef(name="pictures")),
        model=ModelSettings(model=PluginRef(name=model), norm=PluginRef(name=norm)),
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
        start = used(run)
        for step in range(steps):
            train_step(run, next(batches), step, learning)
        return (used(run) - start) / steps


def used(run: Run) -> float:
    """Return the processor's seconds so far, children's included, or by the clock where a run has several threads."""
    return sum(os.times()[:4]) if run.settings.train.threads == 1 else time.perf_counter()


def compiled(run: Run) -> tuple[Learn, float]:
    """Return the compiled step of a run that has taken steps, and the seconds that compiling took."""
    with run.randomness.in_charge():
        batch = augmented(run, next(run.train.epoch(run.randomness.order)))
        start = used(run)
        learning = backend_of(run.device).compile(run, batch)
        learning(batch)
        return learning, used(run) - start


def row(model: str, norm: str, batch_size: int, threads: int, rounds: int) -> CompiledRow:
    """Return the measurement of one network at one batch size."""
    steps = max(8, WINDOW // batch_size)
    eager, fast, later = (run_of(model, norm, batch_size, threads) for _ in range(3))
    for run in (eager, fast, later):
        seconds(run, None, 2)
    learning, compiling = compiled(fast)
    known = compiled(later)[1]
    seconds(fast, learning, 2)
    times = [(seconds(eager, None, steps), seconds(fast, learning, steps)) for _ in range(rounds)]
    return CompiledRow(
        model=model,
        norm=norm,
        batch_size=batch_size,
        eager=statistics.median(plain for plain, _ in times),
        compiled=statistics.median(compiled for _, compiled in times),
        ratio=spread([compiled / plain for plain, compiled in times]),
        compiling=compiling,
        later=known,
        precision=fast.precision.name,
        options=defaults_of(model),
    )


def defaults_of(model: str) -> dict[str, Any]:
    """Return the options that a model has where a study gives it none."""
    options = options_of(Registry.installed().load("models", model), "models")
    return {option.name: option.default for option in options if isinstance(option.default, int | float | str)}


def into_table(found: CompiledRow, threads: int, note: str) -> None:
    """Put a row into the package's table, in the place of an older one of the same network on such a processor."""
    new = Row(
        kind=instructions(),
        model=found.model,
        options=found.options,
        norm=found.norm,
        shape=(32, 32, 3),
        batch_size=found.batch_size,
        precision=found.precision,
        threads=threads,
        eager=float(f"{found.eager:.3g}"),
        share=round(found.ratio.middle, 3),
        compiling=round(found.compiling, 1),
        later=round(found.later, 1),
        note=f"torch {torch.__version__}, {processor()}, {platform.system()}: {note}",
    )
    rows = {row.network: row for row in rows_of(TABLE)} | {new.network: new}
    lines = ",\n".join(json.dumps(asdict(rows[network])) for network in sorted(rows))
    TABLE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--norms", nargs="+", default=NORMS)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 8])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--table", metavar="NOTE", default="")
    given = parser.parse_args()
    if AWARE not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            own = {AWARE: "1", "TORCHINDUCTOR_CACHE_DIR": folder}
            kept = {**worker_environment(given.threads), **own}
            sys.exit(subprocess.run([sys.executable, *sys.argv], env=kept, check=False).returncode)
    import torch._inductor.lowering  # in no row's seconds of compiling

    print(f"torch {torch.__version__}, {given.threads} threads, {given.rounds} rounds, milliseconds a step")
    print(f"{'model':8}{'norm':10}{'batch':>6}{'eager':>9}{'compiled':>10}  {'ratio':20}{'compiling':>10}{'later':>8}")
    for model, batch_size, norm in itertools.product(given.models, given.batch_sizes, given.norms):
        one = row(model, norm, batch_size, given.threads, given.rounds)
        print(
            f"{one.model:8}{one.norm:10}{one.batch_size:6}{1000 * one.eager:9.2f}{1000 * one.compiled:10.2f}"
            f"  {one.ratio.text('.2f'):20}{one.compiling:8.1f} s{one.later:6.1f} s",
            flush=True,
        )
        if given.table:
            into_table(one, given.threads, given.table)


if __name__ == "__main__":
    main()
