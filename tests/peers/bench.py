"""benchkit beside what people write or take, on this machine, as one report: `make bench`.

    python tests/peers/bench.py [--rounds 3] [--epochs 3] [--only resnet14] [--device cpu] [--out reports] [--quick]

Every contender trains the same model on the same random images in a process of its own; contenders take turns in each
round, so that a busy machine slows all of them. Told are medians over rounds with the least and the greatest, ratios to
the script within each round, and the seconds until the first step apart. benchkit is run by its public command, its
ledger, evaluation and checkpoints included. The same command measures on a GPU with --device cuda.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comparison import Comparison, Measured, compare
from workloads import WORKLOADS, Workload, small

from benchkit.ledger import read_results

HERE = Path(__file__).parent
MODULES = {"lightning": "lightning", "timm": "timm"}
"""What a contender needs installed, beyond the script's torchvision."""


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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = folder / "benchmark.toml"
        threads = max(1, setting.threads // jobs)
        study.write_text(workload.study(setting.epochs, threads), encoding="utf-8")
        line = [sys.executable, "-m", "benchkit", "sweep", str(study), "--plugin", str(HERE / "noise.py")]
        line += ["--workspace", str(folder / "runs"), "--device", setting.device, "--jobs", str(jobs)]
        began = time.time()
        child = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        first_epoch = _first_epoch(child, folder / "runs")
        told, _ = child.communicate()
        if child.returncode:
            sys.exit(f"{' '.join(line)}\n{told}")
        seconds = time.time() - began
        histories = [trial.history for trial in read_results(folder / "runs").trials]
    rates = [_steady([record.images_per_second for record in history]) for history in histories]
    first = first_epoch - began - histories[0][0].seconds
    return Measured(rate=statistics.median(rates), first_step=max(0.0, first), seconds=seconds)


def _first_epoch(child: subprocess.Popen[str], workspace: Path) -> float:
    """Return when the first epoch of any trial was on disk."""
    while child.poll() is None:
        if any(path.stat().st_size for path in workspace.glob("trials/*/*/*/history.jsonl")):
            break
        time.sleep(0.05)
    return time.time()


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
                key = f"benchkit --jobs {setting.threads}"
                found.setdefault(key, []).append(command(workload, setting, jobs=setting.threads))
    return compare(workload.title, workload.trials, found)


def machine(setting: Setting) -> dict[str, Any]:
    """Return what the numbers were measured on."""
    import torch

    from benchkit.train.processor import processor

    name = torch.cuda.get_device_name(setting.device) if setting.device.startswith("cuda") else processor()
    return {"device": name, "cores": os.cpu_count(), "torch": torch.__version__, "python": platform.python_version()}


def main() -> None:
    """Measure, print a table as it grows, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="")
    parser.add_argument("--contenders", default="")
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
    names, skipped = contenders()
    names = [name for name in names if not given.contenders or name in given.contenders.split(",")]
    chosen = [small(one) if given.quick else one for one in WORKLOADS if given.only in one.name]
    comparisons = []
    for workload in chosen:
        comparisons.append(measure(workload, names, setting))
        print(comparisons[-1].text(), flush=True)
    print("\n".join(skipped))
    from pages import write

    told = {"machine": machine(setting), "setting": asdict(setting), "skipped": skipped}
    print(f"written: {', '.join(str(path) for path in write(given.out, comparisons, told))}")


if __name__ == "__main__":
    main()
