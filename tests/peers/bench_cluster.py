"""What a Ray cluster costs a sweep, and how many seats one coordinator serves.

    python tests/peers/bench_cluster.py rate [--trials 24] [--seconds 10] [--jobs 2] [--rounds 2]
    python tests/peers/bench_cluster.py driver [--trials 2000] [--jobs 2]
    python tests/peers/bench_cluster.py seats [--seats 1000] [--seconds 10] [--epochs 6] [--each 2]

`rate` sweeps the same trials with local workers and on a Ray cluster of this machine alone, in turns, and compares
trials an hour from the first one's start to the last one's end. `driver` sweeps trials of some milliseconds on such a
cluster and says what the sweep's own process computed for each, and its memory. `seats` has threads speak a worker's
protocol over Ray with one real coordinator, and says how long they wait for its answers, what it computes, its memory,
and from these what 64 GPUs need. Each prints its numbers, with --json as JSON. Run it where nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from bench_growth import study_text

from benchkit.ledger import Ledger, read_results
from benchkit.plan import make_plan
from benchkit.results import Trial
from benchkit.study.studyfile import parse_study
from benchkit.sweep.clustered import QUIET
from benchkit.sweep.coordinator import Coordinator
from benchkit.sweep.messages import Job
from benchkit.sweep.pool import Pool
from benchkit.sweep.progress import View
from benchkit.sweep.seat_lines import SeatLines

TRAINED = """
title = "Trials of some seconds"
[data]
name = "digits"
train_size = 1100
val_size = 200
test_size = 200
[model]
name = "resnet"
n = 1
[train]
epochs = {epochs}
batch_size = 64
precision = "float32"
compile = "never"
[repeats]
n = {repeats}
"""
GPUS, AT_ONCE = 64, 4
"""What is asked about in the end: so many GPUs, each with one trial at once or with so many."""


BURST = 10
"""Seconds of the parts of a run of which the worst is told, as when all seats begin at once."""


def swept(folder: Path, text: str, *options: str) -> tuple[Sequence[Trial], list[tuple[float, float, float]]]:
    """Sweep a study by the public command; return its trials, and of the sweep's own process, each half a second: when
    (in seconds since 1970), seconds computed, MiB.
    """
    folder.mkdir()
    (folder / "study.toml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "benchkit", "sweep", str(folder / "study.toml"), "--device", "cpu"]
    command += ["--workspace", str(folder / "runs"), *options]
    samples = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        seen = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                used = seen.cpu_times()
                samples.append((time.time(), used.user + used.system, seen.memory_info().rss / 2**20))
            except psutil.Error:
                pass
            time.sleep(0.5)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}")
    return [one for one in read_results(folder / "runs").trials if one.state == "done"], samples


def hourly(trials: Sequence[Trial]) -> float:
    """Return trials an hour, from the first one's start to the last one's end."""
    began, ended = min(one.started for one in trials), max(one.finished for one in trials)
    return 3600 * len(trials) / (ended - began)


def rate(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return trials an hour by either kind of workers, and their ratio within each round."""
    jobs = ("--jobs", str(given.jobs))
    first, _ = swept(folder / "first", TRAINED.format(epochs=8, repeats=2), "--jobs", "1")
    each = statistics.median(record.seconds for one in first for record in one.history[1:])
    text = TRAINED.format(epochs=max(1, round(given.seconds / each)), repeats=given.trials)
    found: dict[str, list[float]] = {"local": [], "ray": []}
    for turn in range(given.rounds):
        kinds = ("local", "ray") if turn % 2 == 0 else ("ray", "local")
        for kind in kinds:
            more = ("--cluster", given.cluster) if kind == "ray" else ()
            trials, _ = swept(folder / f"{kind}-{turn}", text, *jobs, *more)
            found[kind].append(hourly(trials))
    ratios = [ray / local for ray, local in zip(found["ray"], found["local"], strict=True)]
    lasted = statistics.median(sum(record.seconds for record in one.history) for one in trials)
    return {
        "trials": given.trials,
        "seconds_each": lasted,
        "jobs": given.jobs,
        "local_hourly": found["local"],
        "ray_hourly": found["ray"],
        "ratios": ratios,
        "ratio": statistics.median(ratios),
    }


def driver(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what the sweep's process computes for a trial on a cluster, and its memory at a tenth and at the end."""
    options = ("--jobs", str(given.jobs), "--cluster", given.cluster)
    trials, samples = swept(folder / "runs", study_text(given.trials, search=False), *options)
    ends = sorted(one.finished for one in trials)
    tenth = len(ends) // 10
    early = next((one for one in samples if one[0] >= ends[tenth]), samples[-1])
    late = [one for one in samples if one[0] <= ends[-1]][-1]
    between = sum(early[0] < end <= late[0] for end in ends)
    return {
        "trials": len(trials),
        "jobs": given.jobs,
        "seconds_a_trial": (late[1] - early[1]) / max(1, between),
        "early_mib": early[2],
        "late_mib": late[2],
        "hourly": hourly(trials),
    }


def seats(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return how one coordinator serves simulated seats."""
    os.environ.update(QUIET)
    from simulated_seats import Crowds, Life

    from benchkit.sweep.ray_cluster import joined

    life = Life(epochs=given.epochs, seconds=given.seconds, checkpoint=given.checkpoint)
    study = parse_study(study_text(given.seats * given.each, search=False), name="seats")
    ledger, plan = Ledger(folder), make_plan(study)
    ledger.register(plan, {"sets": []}, "")
    ledger.enqueue(plan)
    known = {condition.key: condition for condition in plan.conditions}
    most, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            most[0] = max(most[0], psutil.Process().memory_info().rss / 2**20)

    with joined(given.cluster):
        crowds = Crowds(given.seats, given.processes, life)
        threading.Thread(target=watch, daemon=True).start()
        view = SeatLines(View(), folder / "logs", "seats", lambda key, n: ledger.folder(study, known[key], n).log)
        with Pool(crowds.seats, 1, folder / "logs", crowds.open_line) as pool:
            job = Job(task="train", study=study, data_root=folder, at_once=given.seats)
            began, computed = time.monotonic(), _computed()
            done = Coordinator(job, ledger, pool, view).train(plan, "simulated")
            lasted, computed = time.monotonic() - began, _computed() - computed
        ended.set()
        asked = crowds.delays()
        crowds.pump.close()
    assert done
    states = ledger.states(plan, files=False)
    delays, parts = sorted(one for _, one in asked), dict[int, list[float]]()
    for when, one in asked:
        parts.setdefault(int((when - began) / BURST), []).append(one)
    cores, told = computed / lasted, crowds.heard / lasted
    return {
        "seats": given.seats,
        "trials": len(plan.units()),
        "done": states["done"],
        "epochs": len(delays),
        "seconds": lasted,
        "messages_a_second": told,
        "megabytes_a_second": crowds.heard_bytes / lasted / 1e6,
        "delay_p50": at_share(delays, 0.5),
        "delay_p99": at_share(delays, 0.99),
        "delay_most": delays[-1],
        "delay_p99_of_worst_seconds": max(at_share(sorted(part), 0.99) for part in parts.values()),
        "cores": cores,
        "mib": most[0],
        f"for_{GPUS}_gpus": [
            {
                "trials_at_once": GPUS * each,
                "messages_a_second": told * GPUS * each / given.seats,
                "cores": cores * GPUS * each / given.seats,
            }
            for each in (1, AT_ONCE)
        ],
    }


def _computed() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def at_share(ordered: Sequence[float], share: float) -> float:
    """Return the value below which so much of an ordered list lies."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


PARTS = {"rate": rate, "driver": driver, "seats": seats}


def main() -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--cluster", default="local", help="the Ray cluster, usually one that the sweep starts")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a trial (rate) or of an epoch (seats)")
    parser.add_argument("--seats", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=6, help="of a simulated trial")
    parser.add_argument("--each", type=int, default=2, help="trials of each simulated seat")
    parser.add_argument("--processes", type=int, default=8, help="that the simulated seats share")
    parser.add_argument("--checkpoint", type=int, default=100_000, help="bytes of a simulated checkpoint")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    given.trials = given.trials or (24 if given.part == "rate" else 2000)
    with tempfile.TemporaryDirectory() as folder:
        found = {"cores_here": os.cpu_count(), "machine": platform.machine(), **PARTS[given.part](given, Path(folder))}
    if given.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:20} {value:.4g}" if isinstance(value, float) else f"{name:20} {value}")


if __name__ == "__main__":
    main()
