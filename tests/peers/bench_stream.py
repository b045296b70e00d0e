"""Images that do not fit on the device, streamed to it, beside images that lie there: run it, it prints a table.

    python tests/peers/bench_stream.py [--device cuda] [--images 60000] [--side 224] [--limit 1GB] [--json FILE]

Writes random images to a file (`--folder`, which needs the room), maps it into memory, and takes turns in each round:

- gather: rows of the map into one buffer of the host, in a random order, as the thread that streams does it
- batches: whole epochs of float32 batches on the device without any training, resident and streamed
- training: whole epochs of a small convolutional network, resident and streamed, validation left out

`resident` has room for everything (on the CPU: the shared memory map), `streamed` has --limit. With --cold (Linux) the
file leaves the page cache before each measurement, as if it were larger than the machine's memory.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from devices import device
from torch import nn

from benchkit import Split, Splits
from benchkit.cli.options import parse_size
from benchkit.data.dataset import Selected
from benchkit.study.seeds import trial_seeds
from benchkit.study.settings import DataSettings, ModelSettings, PluginRef, Settings, TrainSettings
from benchkit.train.batches import image_set
from benchkit.train.device import resolve_device
from benchkit.train.fit import fit
from benchkit.train.placement import shown_bytes
from benchkit.train.run import Plugins, Run, build_run

WRITTEN = 2**26
"""Bytes that are made up at a time."""
SHOWN = 64
"""Validation and test images: hardly any, because training is what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Images per second of one way, in each round; `beside` is the median over rounds of the ratio to resident."""

    name: str
    rates: list[float]
    beside: float

    def text(self) -> str:
        low, high = min(self.rates), max(self.rates)
        return f"{self.name:20} {statistics.median(self.rates):12,.0f}  [{low:,.0f}..{high:,.0f}]  x{self.beside:.2f}"


def written(path: Path, count: int, side: int) -> np.ndarray:
    """Write random images and return them as a memory map."""
    made = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, side, side, 3))
    generator = np.random.default_rng(0)
    step = max(1, WRITTEN // made[0].nbytes)
    for start in range(0, count, step):
        part = made[start : start + step]
        part[:] = generator.integers(0, 256, part.shape, dtype=np.uint8)
    made.flush()
    del made
    return np.load(path, mmap_mode="r")


def splits_of(images: np.ndarray) -> Splits:
    labels = np.random.default_rng(1).integers(0, 10, len(images), dtype=np.int64)
    small = Split(images=np.array(images[:SHOWN]), labels=labels[:SHOWN])
    names = tuple(str(label) for label in range(10))
    train = Split(images=images, labels=labels)
    return Splits(train=train, val=small, test=small, class_names=names, licence="", citation="", fingerprint="random")


def small_net(classes: int, shape: tuple[int, int, int], norm: Callable[[int], nn.Module]) -> nn.Module:
    """Return a network that is quicker than what feeds it, so that feeding shows."""
    first = nn.Conv2d(shape[0], 16, 3, stride=4, padding=1, bias=False)
    second = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes))
    return nn.Sequential(first, norm(16), nn.ReLU(), second, norm(32), nn.ReLU(), *head)


def run_of(splits: Splits, options: argparse.Namespace, limit: int | None) -> Run:
    settings = Settings(
        data=DataSettings(dataset=PluginRef(name="random"), normalize=False),
        model=ModelSettings(model=PluginRef(name="small")),
        train=TrainSettings(
            epochs=10**6, batch_size=options.batch_size, select="last", threads=options.threads, compile="never"
        ),
    )
    plugins = Plugins(model=small_net, norm=nn.BatchNorm2d)
    device = resolve_device(options.device)
    seeds = trial_seeds(settings.seed, "bench", 0)
    return build_run(settings, splits, plugins, seeds=seeds, device=device, device_memory=limit)


def gathering(images: np.ndarray, batch_size: int) -> Callable[[], float]:
    """Return what measures the rate at which rows are gathered into one buffer."""
    split = Split(images=images, labels=np.zeros(len(images), np.int64))
    mapped = image_set(Selected(split=split, rows=np.arange(len(images))), torch.device("cpu")).images
    buffer = torch.empty((batch_size, *images.shape[1:]), dtype=torch.uint8)

    def measure() -> float:
        start = time.perf_counter()
        for rows in torch.split(torch.randperm(len(images)), batch_size):
            torch.index_select(mapped, 0, rows, out=buffer[: len(rows)])
        return len(images) / (time.perf_counter() - start)

    return measure


def batching(run: Run) -> Callable[[], float]:
    """Return what measures whole epochs of batches that nothing trains on."""
    generator = torch.Generator().manual_seed(0)

    def measure() -> float:
        start = time.perf_counter()
        for batch in run.train.epoch(generator):
            last = batch.images
        last.flatten()[0].item()  # waits for the device
        return run.train.images_per_epoch / (time.perf_counter() - start)

    return measure


def training(run: Run) -> Callable[[], float]:
    """Return what measures whole epochs of training."""
    records = fit(run)
    return lambda: next(records).images_per_second


def chilled(images: np.ndarray, path: Path) -> None:
    """Drop a memory-mapped file from this process and from the page cache."""
    images._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measured(images: np.ndarray, path: Path, options: argparse.Namespace) -> list[Row]:
    """Return all rows; ways take turns in each round, and a first round that is left out warms up."""
    limit = parse_size("--limit", options.limit)
    if images.nbytes <= limit:
        sys.exit(f"{shown_bytes(images.nbytes)} of images fit into --limit {options.limit}: ask for more --images")
    splits = splits_of(images)
    room = None if resolve_device(options.device) == "cpu" else 2**62
    resident, streamed = run_of(splits, options, room), run_of(splits, options, limit)
    ways = {
        "gather": gathering(images, options.batch_size),
        "batches resident": batching(resident),
        "batches streamed": batching(streamed),
        "training resident": training(resident),
        "training streamed": training(streamed),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(options.rounds + 1):
        for name, measure in ways.items():
            if options.cold:
                chilled(images, path)
            rate = measure()
            if round_:
                rates[name].append(rate)
    return [Row(name=name, rates=found, beside=_beside(name, rates)) for name, found in rates.items()]


def _beside(name: str, rates: dict[str, list[float]]) -> float:
    reference = "training resident" if name.startswith("training") else "batches resident"
    return statistics.median(one / other for one, other in zip(rates[name], rates[reference], strict=True))


def machine(options: argparse.Namespace) -> dict[str, Any]:
    from benchkit.sweep.provenance import device_name

    device = resolve_device(options.device)
    return {"device": device_name(device), "cores": os.cpu_count(), "torch": torch.__version__}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=device, default="cpu")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--limit", default="500MB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None, help="where the images are written; default: the system's")
    parser.add_argument("--cold", action="store_true", help="drop the file from the page cache before each measurement")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        path = Path(name) / "images.npy"
        images = written(path, options.images, options.side)
        size = shown_bytes(images.nbytes)
        print(f"{options.images:,} images of {options.side} x {options.side} ({size}), --limit {options.limit}")
        rows = measured(images, path, options)
    told = machine(options)
    print(f"on {told['device']}, CPU threads: {options.threads}{', page cache dropped' if options.cold else ''}")
    print(f"{'':20} {'images/s':>12}  [least..greatest]  beside resident")
    for row in rows:
        print(row.text())
    if options.json:
        setting = {key: str(value) for key, value in vars(options).items() if key != "json"}
        table = {"machine": told, "setting": setting, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
