"""The benchmark's contenders, taking turns on a workload: each one process a round, measured the same way."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from comparison import LENGTHS, QUEUE, SCRIPT, Comparison, Measured, compare
from limits import Limit, Needs, Rates
from measurements import OWN, OwnCost
from sweeping import Swept, swept
from timm_script import command_line, image_folder, origin, run
from workloads import Workload, workloads_on

from benchkit.plan import make_plan
from benchkit.results import WAS_COMPILED, Trial
from benchkit.storage import decode
from benchkit.study.studyfile import parse_study
from benchkit.sweep.compiling import choice, planned_work
from benchkit.sweep.work import seat_of
from benchkit.train.compiler import cpp_compiler

HERE = Path(__file__).parent
MODULES = {
    "timm": "timm",
    "timm-best": "timm",
    "timm-compiled": "timm",
    "lightning": "lightning",
    "lightning-best": "lightning",
    "lightning-compiled": "lightning",
    "fastai": "fastai",
    "fastai-best": "fastai",
}
"""What a contender needs installed, beyond the script's torchvision."""

TIMM_SCRIPT = "timm-script"
"""The contender that is timm's own train script."""

COMPILED = "benchkit-compiled"
"""benchkit with its steps compiled, for which a study must ask on a CPU, and on a GPU for trials as short as these."""

PHASE = re.compile(r"^(\w[\w ]*?) +([\d.]+) +[\d.]+%$", re.MULTILINE)
"""A line of the table that `benchkit sweep --profile` prints."""

GPU_JOBS = 4
"""Trials at once in a GPU's sweep, which is too short for benchkit to look for the best number by itself."""

LONG = 1e9
"""Images of a trial so long that its steps are compiled wherever benchkit ever does that by itself."""

MINUTE = 60
"""Seconds of the trial by which benchkit's own cost is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How to measure: rounds, epochs in each process, threads, DataLoader workers, device; `quick` for a trial run.

    `timm_script` is a copy of timm's train script, None where there is none.
    """

    rounds: int
    epochs: int
    threads: int
    workers: int
    device: str
    quick: bool
    timm_script: Path | None = None


def contenders(timm_script: Path | None) -> tuple[list[str], list[str]]:
    """Return the contenders that can run here, and lines on those that cannot."""
    names, skipped = ["script", "resident"], []
    for name, module in MODULES.items():
        if name.endswith("-compiled") and not cpp_compiler():
            skipped.append(f"{name}: no C++ compiler is installed")
        elif importlib.util.find_spec(module):
            names.append(name)
        else:
            skipped.append(f"{name}: not installed; pip install 'benchkit[bench]'")
    if timm_script:
        names.append(TIMM_SCRIPT)
    else:
        skipped.append(f"{TIMM_SCRIPT}: not in timm's package; name a copy with --timm-script")
    names.append("benchkit")
    if cpp_compiler():
        names.append(COMPILED)
    else:
        skipped.append(f"{COMPILED}: no C++ compiler is installed")
    return names, skipped


def peers(names: Sequence[str], timm_script: Path | None) -> Iterator[str]:
    """Yield the versions of what takes part beside benchkit."""
    yield f"torchvision {version('torchvision')}"
    taking_part = dict.fromkeys(module for name, module in MODULES.items() if name in names)
    yield from (f"{module} {version(module)}" for module in taking_part)
    if timm_script and TIMM_SCRIPT in names:
        yield origin(timm_script)


def loop(name: str, workload: Workload, setting: Setting) -> Measured:
    """Run one of the loops in a process of its own."""
    command = [sys.executable, str(HERE / "contenders.py"), name, workload.name, "--device", setting.device]
    command += ["--epochs", str(setting.epochs), "--workers", str(setting.workers), "--threads", str(setting.threads)]
    began = time.time()
    command += ["--began", str(began), *(["--quick"] if setting.quick else [])]
    found = told(command)
    return Measured(rate=_steady(found["rates"]), first_step=found["first_step"], seconds=time.time() - began)


def told(command: Sequence[str]) -> Any:
    """Run a command and return the JSON that it prints last; ends the program with what it said when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment(HERE))
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def logged(script: Path, workload: Workload, folder: Path, setting: Setting) -> Measured:
    """Run timm's train script on a folder of images."""
    line = command_line(script, workload, folder, setting.epochs, setting.workers, setting.device)
    began = time.time()
    told = run(line, {**_environment(HERE), "OMP_NUM_THREADS": str(setting.threads)})
    return Measured(rate=_steady(told.rates), first_step=told.first_step - began, seconds=time.time() - began)


def _environment(*folders: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])}


def _steady(rates: Sequence[float]) -> float:
    """Return the median over epochs, the first left out where there are more: it warms up."""
    return statistics.median(rates[1:] or rates)


def command(workload: Workload, setting: Setting, jobs: int, *more: str) -> Measured:
    """Run benchkit's public command in a new workspace."""
    return _measured(workload, _swept(workload, setting, "--jobs", str(jobs), *more, jobs=jobs), jobs)


def compiled_command(workload: Workload, setting: Setting, jobs: int) -> Measured | None:
    """Run it on the study that has its steps compiled; None, and a line on why, where that was not possible."""
    done = _swept(workload, setting, "--jobs", str(jobs), jobs=jobs, compiled=True)
    notes = [note for trial in done.trials if trial.outcome for note in trial.outcome.notes]
    if notes.count(WAS_COMPILED) == len(done.trials):
        return _measured(workload, done, jobs)
    print(f"{workload.name}: {COMPILED} left out: {'; '.join(notes)}", flush=True)
    return None


def compiled_by_default(workload: Workload, images: float) -> bool:
    """Return whether benchkit compiles the steps of a queue of trials of so many images, on this processor, by itself.

    Such a trial is one of the jobs that fill the cores, with a thread of its own.
    """
    queue = replace(workload, trials=QUEUE)
    study = parse_study(queue.study(max(1, round(images / workload.count)), threads=1), name="benchmark")
    shape = (workload.side, workload.side, workload.channels)
    facts = {"name": "pictures", "image_shape": shape, "counts": {"train": workload.count}}
    return choice(planned_work(make_plan(study), facts), seat_of("cpu")).value == "always"


def _measured(workload: Workload, done: Swept, jobs: int) -> Measured:
    trials = done.trials
    rates = [_steady([record.images_per_second for record in trial.history]) for trial in trials]
    shares = [trial.outcome.cost.matrix_share for trial in trials if trial.outcome and trial.outcome.cost]
    return Measured(
        rate=jobs * statistics.median(rates),
        jobs=jobs,
        first_step=max(0.0, done.first_epoch - workload.count / trials[0].history[0].images_per_second),
        seconds=done.seconds,
        matrix_share=statistics.median(shares),
    )


def _swept(
    workload: Workload, setting: Setting, *options: str, jobs: int = 1, shown: bool = False, compiled: bool = False
) -> Swept:
    """Sweep a workload's study, of as many trials as it has `jobs` at the least.

    These share a processor's threads, and one on a GPU launches with one.
    """
    threads = max(1, setting.threads // jobs) if setting.device == "cpu" else 1
    workload = replace(workload, trials=max(workload.trials, jobs))
    study = workload.study(workload.longer * setting.epochs, threads, compiled=compiled)
    return swept(study, ["--device", setting.device, *options], shown=shown)


def measure(workload: Workload, names: Sequence[str], setting: Setting) -> Comparison:
    """Return the comparison of one workload: in each round every contender once, but for those that cannot be."""
    found: dict[str, list[Measured]] = {}
    before = _rates(setting)
    with image_folder(workload) if TIMM_SCRIPT in names else nullcontext(Path()) as folder:
        for _ in range(setting.rounds):
            for name in names:
                for row, measured in _turn(name, workload, folder, setting):
                    found.setdefault(row, []).append(measured)
    in_all = {row: measured for row, measured in found.items() if len(measured) == setting.rounds}
    limit = Limit(needs=decode(Needs, _limits(setting, workload.name)), before=before, after=_rates(setting))
    compared = compare(workload, setting.epochs, in_all)
    script = next((row.rate.middle for row in compared.rows if row.contender == SCRIPT), 0.0)
    lengths = LENGTHS if setting.device == "cpu" and workload.trials == 1 and script else ()
    compiled = tuple(seconds for seconds in lengths if compiled_by_default(workload, seconds * script))
    return replace(compared, limit=limit, compiled=compiled, scored=True)


def _rates(setting: Setting) -> Rates:
    return decode(Rates, _limits(setting))


def _limits(setting: Setting, *workload: str) -> Any:
    """Return what the machine reaches at the most now, or what a workload's step takes, from a process of its own."""
    line = [sys.executable, str(HERE / "limits.py"), *workload, "--device", setting.device]
    return told([*line, "--threads", str(setting.threads), *(["--quick"] if setting.quick else [])])


def _turn(name: str, workload: Workload, folder: Path, setting: Setting) -> Iterator[tuple[str, Measured]]:
    """Yield what a contender does in a round, by the name of its row: benchkit has two, three in a GPU's sweep.

    On a processor the second one is its default, as many trials at a time as there are cores; compiled steps have it
    where benchkit ever takes them by itself.
    """
    on_cpu = setting.device == "cpu"
    jobs = setting.threads if on_cpu else GPU_JOBS
    if name == TIMM_SCRIPT and setting.timm_script:
        yield name, logged(setting.timm_script, workload, folder, setting)
    elif name == COMPILED:
        if workload.trials == 1 and (measured := compiled_command(workload, setting, 1)):
            yield name, measured
            at_once = on_cpu and jobs > 1 and compiled_by_default(workload, LONG)
            if at_once and (measured := compiled_command(workload, setting, jobs)):
                yield f"{name} --jobs {jobs}", measured
    elif name != "benchkit":
        yield name, loop(name, workload, setting)
    else:
        yield name, command(workload, setting, jobs=1)
        if jobs > 1 and (on_cpu or workload.trials > 1):
            yield f"benchkit --jobs {jobs}", command(workload, setting, jobs)
            if not on_cpu:
                more = ("--per-process", str(jobs))
                yield f"benchkit --jobs {jobs} {' '.join(more)}", command(workload, setting, jobs, *more)


def own_costs(setting: Setting) -> tuple[OwnCost, ...]:
    """Return the cost of benchkit itself in trials of a minute of the first workload, one a round.

    On a GPU, a profiled trial takes its steps one operation at a time, which is no measure of a usual one's minute:
    there the trial's own record tells what benchkit took.
    """
    workload, on_cuda = workloads_on(setting.device, quick=setting.quick)[0], setting.device.startswith("cuda")
    rate = command(workload, setting, jobs=1).rate
    long = replace(setting, epochs=2 if setting.quick else max(1, round(MINUTE * rate / workload.count)))
    costs = []
    for _ in range(setting.rounds):
        done = _swept(workload, long, *([] if on_cuda else ["--profile"]), shown=True)
        phases = _recorded_phases(done.trials[0]) if on_cuda else _profiled_phases(done.printed)
        costs.append(OwnCost(phases=phases, watching=done.watching))
    return tuple(costs)


def _profiled_phases(printed: str) -> dict[str, float]:
    found = PHASE.findall(printed.partition("where the time went")[2])
    return {phase: float(seconds) for phase, seconds in found}


def _recorded_phases(trial: Trial) -> dict[str, float]:
    assert trial.outcome is not None and trial.outcome.cost is not None
    return {"epochs": trial.outcome.cost.seconds, OWN: trial.outcome.cost.bookkeeping}
