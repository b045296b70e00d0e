"""timm's own train script as a contender: run as it is, on a folder of image files, and read as it logs.

The script is no part of timm's package, so whoever measures brings it: `train.py` of timm's repository, of a version
close to the installed one's. It is given the workload's model by way of its option for modules to import first.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmark_images import split_of
from PIL import Image
from workloads import Workload

STEP = re.compile(r"Train: (\d+) \[ *(\d+)/(\d+) .*?\([\d.]+s, +([\d.]+)/s\)")
"""A line of the script's log: epoch, step, steps of an epoch, images/s over the epoch up to this step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """What the script logged: images/s of each whole epoch, and when its first step ended, as `time.time()`."""

    rates: tuple[float, ...]
    first_step: float


@contextmanager
def image_folder(workload: Workload) -> Iterator[Path]:
    """Give a folder with the workload's images as PNG files, a folder for each class, until the block ends.

    They are those to train and to validate on, below `train` and `val`.
    """
    with tempfile.TemporaryDirectory() as name:
        for split in ("train", "val"):
            found = split_of(workload.count, workload.side, workload.channels, split)
            images = found.images[..., 0] if workload.channels == 1 else found.images
            for index, (image, label) in enumerate(zip(images, found.labels, strict=True)):
                place = Path(name, split, str(int(label)), f"{index:06}.png")
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(place, compress_level=1)
        yield Path(name)


def command_line(script: Path, workload: Workload, folder: Path, epochs: int, workers: int, device: str) -> list[str]:
    """Return the command that trains a workload: timm's crop and flip, plain SGD, validated after each epoch.

    Its checkpoints are the script's own way; images to train on it does not score.
    """
    channels, side = workload.channels, workload.side
    augment = ["--color-jitter", "0"] if workload.augmented else ["--no-aug"]
    return [
        *(sys.executable, str(script), "--data-dir", str(folder), "--val-split", "val", "--device", device),
        *(
            "--device-modules",
            "timm_model",
            "--model",
            "benchmark_model",
            "--model-kwargs",
            f"workload={workload.name}",
        ),
        *("--input-size", *map(str, (channels, side, side)), "--num-classes", "10"),
        *("--mean", *["0.5"] * channels, "--std", *["0.25"] * channels, *augment),
        *("--batch-size", str(workload.batch_size), "--epochs", str(epochs), "--workers", str(workers)),
        *("--opt", "sgd", "--lr", "0.01", "--momentum", "0.9", "--weight-decay", "0", "--smoothing", "0"),
        *("--warmup-epochs", "0", "--crop-pct", "1"),
        *("--log-interval", str(workload.count), "--output", str(folder / "output")),
        *([] if device.startswith("cuda") else ["--no-prefetcher"]),
    ]


def run(line: list[str], environment: dict[str, str]) -> Logged:
    """Run the script's command to its end; ends the program with what it said when it fails."""
    child = subprocess.Popen(line, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    said: list[str] = []
    with child.stdout as output:
        logged = read(_kept(output, said))
    if child.wait() or not logged.rates:
        sys.exit(f"{' '.join(line)}\n{''.join(said)}")
    return logged


def _kept(lines: Iterable[str], said: list[str]) -> Iterator[str]:
    for line in lines:
        said.append(line)
        yield line


def read(lines: Iterable[str]) -> Logged:
    """Return what a log tells that is read as it is written."""
    rates, first = [], 0.0
    for line in lines:
        if not (found := STEP.search(line)):
            continue
        first = first or time.time()
        if int(found[2]) == int(found[3]) - 1:
            rates.append(float(found[4]))
    return Logged(rates=tuple(rates), first_step=first)


def origin(script: Path) -> str:
    """Return which script was run, in words: copies of it carry no version."""
    return f"timm's train.py, SHA-256 {hashlib.sha256(script.read_bytes()).hexdigest()[:12]}"
