"""benchkit beside what people write or take, on this machine, as one report: `make bench`.

    python tests/peers/bench.py [--rounds 3] [--epochs 3] [--only resnet14] [--device cpu] [--out reports] [--quick]

Every contender trains the same model on the same images in a process of its own (CIFAR-10's and MNIST's where both
have been prepared, else random ones); contenders take turns in each round, so that a busy machine slows all of them.
Told are medians over rounds with the least and the greatest, ratios to the script within each round, and the seconds
until the first step apart. benchkit is run by its public command, its ledger, evaluation and checkpoints included. Then
come what benchkit adds to a trial of a minute, and the norms one by one. The same command measures on a GPU with
--device cuda; the report keeps what it holds of the other device, and with --only of the other workloads.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from bench_norms import NormRow
from comparison import Comparison, Measured, compare
from measurements import OwnCost, Part
from pictures import source
from sweeping import Swept, swept
from workloads import Workload, workloads_on

from benchkit.codec import decode
from benchkit.preparation import data_root
from benchkit.sweep.allocator import preloaded_allocator

HERE = Path(__file__).parent
MODULES = {"lightning": "lightning", "timm": "timm"}
"""What a contender needs installed, beyond the script's torchvision."""

PHASE = re.compile(r"^(\w[\w ]*?) +([\d.]+) +[\d.]+%$", re.MULTILINE)
"""A line of the table that `benchkit sweep --profile` prints."""

GPU_JOBS = 4
"""Trials at once in a GPU's sweep, which is too short for benchkit to look for the best number by itself."""

MINUTE = 60
"""Seconds of the trial by which benchkit's own cost is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How to measure: rounds, epochs in each process, threads, DataLoader workers, device; `quick` for a trial run."""

    rounds: int
    epochs: int
    threads: int
    workers: int
    device: str
    quick: bool


def contenders() -> tuple[list[str], list[str]]:
    """Return the contenders that can run here, and lines on those that cannot."""
    names, skipped = ["script", "resident"], []
    for name, module in MODULES.items():
        if importlib.util.find_spec(module):
            names.append(name)
        else:
            skipped.append(f"{name}: not installed; pip install 'benchkit[bench]'")
    return [*names, "benchkit"], skipped


def loop(name: str, workload: Workload, setting: Setting) -> Measured:
    """Run one of the loops in a process of its own."""
    command = [sys.executable, str(HERE / "contenders.py"), name, workload.name, "--device", setting.device]
    command += ["--epochs", str(setting.epochs), "--workers", str(setting.workers), "--threads", str(setting.threads)]
    began = time.time()
    command += ["--began", str(began), *(["--quick"] if setting.quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment(HERE))
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    told = json.loads(done.stdout.strip().splitlines()[-1])
    return Measured(rate=_steady(told["rates"]), first_step=told["first_step"], seconds=time.time() - began)


def _environment(*folders: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])}


def _steady(rates: Sequence[float]) -> float:
    """Return the median over epochs, the first left out where there are more: it warms up."""
    return statistics.median(rates[1:] or rates)


def command(workload: Workload, setting: Setting, jobs: int) -> Measured:
    """Run benchkit's public command in a new workspace."""
    done = _swept(workload, setting, "--jobs", str(jobs), jobs=jobs)
    trials = done.trials
    rates = [_steady([record.images_per_second for record in trial.history]) for trial in trials]
    shares = [trial.outcome.cost.matrix_share for trial in trials if trial.outcome and trial.outcome.cost]
    return Measured(
        rate=statistics.median(rates),
        first_step=max(0.0, done.first_epoch - trials[0].history[0].seconds),
        seconds=done.seconds,
        matrix_share=statistics.median(shares),
    )


def _swept(workload: Workload, setting: Setting, *options: str, jobs: int = 1, shown: bool = False) -> Swept:
    """Sweep a workload's study; so many `jobs` share a processor's threads, and one on a GPU launches with one."""
    threads = max(1, setting.threads // jobs) if setting.device == "cpu" else 1
    return swept(workload.study(setting.epochs, threads), ["--device", setting.device, *options], shown=shown)


def measure(workload: Workload, names: Sequence[str], setting: Setting) -> Comparison:
    """Return the comparison of one workload: in each round every contender once."""
    found: dict[str, list[Measured]] = {}
    for _ in range(setting.rounds):
        for name in names:
            if name != "benchkit":
                found.setdefault(name, []).append(loop(name, workload, setting))
                continue
            found.setdefault(name, []).append(command(workload, setting, jobs=1))
            if workload.trials > 1:
                jobs = setting.threads if setting.device == "cpu" else GPU_JOBS
                found.setdefault(f"benchkit --jobs {jobs}", []).append(command(workload, setting, jobs=jobs))
    return compare(workload, setting.epochs, found)


def own_costs(setting: Setting) -> tuple[OwnCost, ...]:
    """Return the cost of benchkit itself in trials of a minute of the first workload, one a round."""
    workload = workloads_on(setting.device, quick=setting.quick)[0]
    rate = command(workload, setting, jobs=1).rate
    epochs = 2 if setting.quick else max(1, round(MINUTE * rate / workload.count))
    costs = []
    for _ in range(setting.rounds):
        done = _swept(workload, replace(setting, epochs=epochs), "--profile", shown=True)
        found = PHASE.findall(done.printed.partition("where the time went")[2])
        phases = {phase: float(seconds) for phase, seconds in found}
        costs.append(OwnCost(phases=phases, watching=done.watching))
    return tuple(costs)


def norms(setting: Setting) -> tuple[NormRow, ...]:
    """Return the norms beside the framework's layers, measured in a process of its own."""
    line = [sys.executable, str(HERE / "bench_norms.py"), "--json", "--device", setting.device]
    line += ["--threads", str(setting.threads), "--rounds", "1" if setting.quick else "15"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(line)}\n{done.stderr}")
    return tuple(decode(NormRow, one) for one in json.loads(done.stdout.strip().splitlines()[-1]))


def part_of(setting: Setting, only: str, wanted: Sequence[str]) -> Part:
    """Measure everything on one device, printing it as it comes."""
    names, skipped = contenders()
    names = [name for name in names if not wanted or name in wanted]
    load, comparisons = os.getloadavg()[0], []
    for workload in workloads_on(setting.device, quick=setting.quick):
        if only not in workload.name:
            continue
        comparisons.append(measure(workload, names, setting))
        print(comparisons[-1].text(), flush=True)
    own = own_costs(setting) if only in ("", "own-cost") else ()
    for cost in own:
        print(f"a trial of {cost.seconds:.1f} s: {cost.share:.2%} is bookkeeping and live view", flush=True)
    return Part(
        **machine(setting.device),
        dated=date.today().isoformat(),
        commands=(spoken(sys.argv[1:]),),
        threads=setting.threads,
        quick=setting.quick,
        load=load,
        images=source(data_root()),
        skipped=tuple(skipped),
        comparisons=tuple(comparisons),
        norms=norms(setting) if only in ("", "norms") else (),
        own=own,
    )


def spoken(arguments: Sequence[str]) -> str:
    """Return the command as others can give it: without the folder that this machine writes to."""
    place = arguments.index("--out") if "--out" in arguments else len(arguments)
    return " ".join(["python tests/peers/bench.py", *arguments[:place], *arguments[place + 2 :]])


def machine(device: str) -> Mapping[str, Any]:
    """Return what the numbers are measured on, by `Part`'s names."""
    import torch

    from benchkit.train.processor import processor

    on_cuda = device.startswith("cuda")
    return {
        "device": "cuda" if on_cuda else "cpu",
        "name": torch.cuda.get_device_name(device) if on_cuda else processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "allocator": library.name if (library := preloaded_allocator()) else "the C library's",
    }


def main() -> None:
    """Measure, print a table as it grows, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="workloads with this in their name, or own-cost, or norms")
    parser.add_argument("--contenders", default="", help="these alone, parted by commas")
    parser.add_argument("--out", type=Path, default=Path("reports"))
    parser.add_argument("--quick", action="store_true", help="tiny workloads, one round: shows that it runs")
    given = parser.parse_args()
    setting = Setting(
        rounds=1 if given.quick else given.rounds,
        epochs=2 if given.quick else given.epochs,
        threads=given.threads,
        workers=given.workers,
        device=given.device,
        quick=given.quick,
    )
    part = part_of(setting, given.only, [name for name in given.contenders.split(",") if name])
    print("\n".join(part.skipped))
    from pages import known_parts, write

    parts = known_parts(given.out)
    parts[part.device] = part.after(parts.get(part.device))
    print(f"written: {', '.join(str(path) for path in write(given.out, parts))}")


if __name__ == "__main__":
    main()
