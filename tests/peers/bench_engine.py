"""Images per second of the engine beside the script that one would write by hand: run it, it prints a table.

    python tests/peers/bench_engine.py [--threads 2] [--repeats 3] [--workers 2] [--only mlp]

The script is a torch data set and a DataLoader with two workers, per-image crop, flip and normalisation, float32,
SGD with momentum and `.item()` at every step. The engine trains the same model with the same batch size from the same
uint8 images with crop and flip, as a sweep's worker does. Both are timed over whole epochs, from data to optimizer
step; the engine's gradient norms and running metrics are included. Contenders take turns; the best epoch says most on
a machine that is busy with other things.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from benchkit_models.mlp import mlp
from benchkit_models.resnet import resnet
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from benchkit import Batch, Split, Splits
from benchkit.study.settings import DataSettings, ModelSettings, OptimizerSettings, PluginRef, Settings, TrainSettings
from benchkit.train.fit import fit
from benchkit.train.run import Plugins, Run, build_run

THRESHOLDS = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    shape: tuple[int, int, int]
    batch_size: int
    model: Callable[..., nn.Module]
    augmented: bool
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CropFlip:
    """Crop and flip of a whole batch at once, as the built-in regularizer does it."""

    pad: int = 4

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        n, channels, height, width = batch.images.shape
        padded = functional.pad(batch.images, (self.pad,) * 4).permute(0, 2, 3, 1).contiguous()
        side = width + 2 * self.pad
        top = torch.randint(2 * self.pad + 1, (n, 1, 1), generator=generator)
        left = torch.randint(2 * self.pad + 1, (n, 1, 1), generator=generator)
        flip = torch.rand((n, 1, 1), generator=generator) < 0.5
        columns = torch.arange(width).expand(n, 1, width)
        columns = torch.where(flip, width - 1 - columns, columns) + left
        rows = torch.arange(height)[:, None] + top
        index = (torch.arange(n)[:, None, None] * (height + 2 * self.pad) + rows) * side + columns
        images = padded.view(-1, channels).index_select(0, index.flatten()).view(n, height, width, channels)
        return Batch(images=images.permute(0, 3, 1, 2), targets=batch.targets)


class PerImage(Dataset):
    """One image at a time through torchvision's transforms, as tutorials do it."""

    def __init__(self, case: Case, split: Split) -> None:
        from torchvision import transforms

        side, channels = case.shape[1], case.shape[0]
        augment = [transforms.RandomCrop(side, padding=4), transforms.RandomHorizontalFlip()] if case.augmented else []
        normalize = transforms.Normalize((0.5,) * channels, (0.25,) * channels)
        self.transform = transforms.Compose([*augment, transforms.ToTensor(), normalize])
        self.images = split.images[..., 0] if channels == 1 else split.images
        self.labels = split.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def script_epochs(case: Case, splits: Splits, workers: int) -> Iterator[float]:
    """Yield images per second of each epoch of the hand-written script."""
    torch.manual_seed(0)
    model = case.model(10, case.shape, nn.BatchNorm2d)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    data = DataLoader(PerImage(case, splits.train), case.batch_size, shuffle=True, num_workers=workers)
    while True:
        start = time.perf_counter()
        for images, labels in data:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            loss.item()
        yield len(splits.train.labels) / (time.perf_counter() - start)


def engine_run(case: Case, splits: Splits, threads: int, precision: str) -> Run:
    """Return a run of the engine for the case."""
    settings = Settings(
        data=DataSettings(dataset=PluginRef(name="random")),
        model=ModelSettings(model=PluginRef(name=case.name)),
        train=TrainSettings(
            epochs=10**6,
            batch_size=case.batch_size,
            optimizer=OptimizerSettings(lr=0.01),
            precision=precision,
            threads=threads,
        ),
    )
    regularizers = (("crop-flip", CropFlip()),) if case.augmented else ()
    plugins = Plugins(model=case.model, norm=nn.BatchNorm2d, regularizers=regularizers)
    return build_run(settings, splits, plugins, repeat_parts=(0,), device="cpu")


def random_splits(case: Case, n: int) -> Splits:
    """Return random uint8 images: arithmetic takes as long on noise as on photographs."""
    generator = np.random.default_rng(0)
    channels, height, width = case.shape
    images = generator.integers(0, 256, (n, height, width, channels), dtype=np.uint8)
    split = Split(images=images, labels=generator.integers(0, 10, n, dtype=np.int64))
    small = Split(images=images[:500], labels=split.labels[:500])
    names = tuple(str(label) for label in range(10))
    return Splits(train=split, val=small, test=small, class_names=names, licence="", citation="", fingerprint="random")


def measure(case: Case, threads: int, repeats: int, workers: int) -> str:
    """Return two lines, the median and the best epoch; contenders take turns, the first epoch of each is left out."""
    splits = random_splits(case, case.images)
    engines = {name: fit(engine_run(case, splits, threads, name)) for name in ("auto", "float32")}
    script = script_epochs(case, splits, workers)
    rates: dict[str, list[float]] = {"script": [], **{name: [] for name in engines}}
    for _ in range(repeats + 1):
        rates["script"].append(next(script))
        for name, records in engines.items():
            rates[name].append(next(records).images_per_second)
    summaries = []
    for title, pick in (("median", statistics.median), ("best", max)):
        rate = {name: pick(values[1:]) for name, values in rates.items()}
        ratios = "  ".join(f"{name} {rate[name]:9,.0f} (x{rate[name] / rate['script']:.2f})" for name in engines)
        summaries.append(f"{case.name:16} {title:7} script {rate['script']:9,.0f}  {ratios}")
    return "\n".join(summaries)


def main() -> None:
    """Measure and print; the allocator's thresholds are set by starting the process anew, as the sweep does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in THRESHOLDS.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **THRESHOLDS})
    torch.set_num_threads(options.threads)
    cases = (
        Case(name="resnet-14 b128", shape=(3, 32, 32), batch_size=128, model=resnet, augmented=True, images=2560),
        Case(name="resnet-14 b8", shape=(3, 32, 32), batch_size=8, model=resnet, augmented=True, images=1200),
        Case(name="mlp b128", shape=(1, 28, 28), batch_size=128, model=mlp, augmented=False, images=12800),
    )
    for case in cases:
        if options.only in case.name:
            print(measure(case, options.threads, options.repeats, options.workers), flush=True)


if __name__ == "__main__":
    main()
