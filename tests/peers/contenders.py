"""The loops that people write or take, each run in a process of its own: it prints its rates as JSON.

python tests/peers/contenders.py CONTENDER WORKLOAD [--epochs 3] [--workers 2] [--threads 2] [--device cpu]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from benchmark_images import images_of
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from workloads import Workload, workload_of

from benchkit.train.step import automatic_precision

Steps = Iterator[int]
"""Yields the number of images after each step of training."""


class Epochs:
    """What a framework's own loop tells of its training: when its first step and each of its epochs ended."""

    def __init__(self, device: torch.device) -> None:
        """Begin, before the loop does."""
        self.device, self.first, self.ends = device, 0.0, [time.perf_counter()]

    def stepped(self) -> None:
        """Note that a step has ended."""
        self.first = self.first or time.time()

    def ended(self) -> None:
        """Note that an epoch has ended."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.ends.append(time.perf_counter())

    def rates(self, images: int) -> list[float]:
        """Return the images/s of each epoch of so many images, from the end of the one before."""
        return [images / (end - before) for before, end in pairwise(self.ends)]


class PerImage(Dataset):  # type: ignore[type-arg]
    """One image at a time through torchvision's transforms, as tutorials do it."""

    def __init__(self, workload: Workload, *, to_tensor: bool = True) -> None:
        from torchvision import transforms

        split, side, channels = (
            images_of(workload.count, workload.side, workload.channels),
            workload.side,
            workload.channels,
        )
        augment = [transforms.RandomCrop(side, padding=4), transforms.RandomHorizontalFlip()]
        normalize = [transforms.ToTensor(), transforms.Normalize((0.5,) * channels, (0.25,) * channels)]
        self.transform: Any = transforms.Compose(
            [*(augment if workload.augmented else []), *(normalize if to_tensor else [])]
        )
        self.images = split.images[..., 0] if channels == 1 else split.images
        self.labels = split.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def script(workload: Workload, given: argparse.Namespace) -> Iterator[Steps]:
    """The loop of a tutorial: per-image transforms, worker processes, float32, a loss read at each step."""
    device = torch.device(given.device)
    model = workload.build().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    data = DataLoader(PerImage(workload), workload.batch_size, shuffle=True, num_workers=given.workers)
    while True:
        yield _plain_epoch(model, optimizer, data, device)


def timm_loader(workload: Workload, given: argparse.Namespace) -> Iterator[Steps]:
    """Timm's loader and optimizer around the same loop, with its own augmentation of crop and flip.

    At its best with --channels-last, --amp in bf16 where the device has it and workers that stay; --torchcompile.
    """
    from timm.data import create_loader
    from timm.optim import create_optimizer_v2

    device = torch.device(given.device)
    model = _fast(workload.build().to(device), given) if given.best else workload.build().to(device)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.01, momentum=0.9)
    shape = (workload.channels, workload.side, workload.side)
    data = create_loader(
        PerImage(workload, to_tensor=False),
        shape,
        workload.batch_size,
        is_training=True,
        use_prefetcher=device.type == "cuda",
        num_workers=given.workers,
        mean=(0.5,) * workload.channels,
        std=(0.25,) * workload.channels,
        no_aug=not workload.augmented,
        color_jitter=0.0,
        persistent_workers=given.best and given.workers > 0,
        device=device,
    )
    while True:
        yield _plain_epoch(model, optimizer, data, device, fast=given.best)


def _fast(model: Any, given: argparse.Namespace) -> Any:
    """Return a model in channels-last, compiled where that is asked for."""
    model = model.to(memory_format=torch.channels_last)
    return torch.compile(model) if given.compiled else model


def _plain_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Any, device: torch.device, *, fast: bool = False
) -> Steps:
    bf16 = fast and automatic_precision(device) == "bf16"
    for images, labels in data:
        images, labels = images.to(device), labels.to(device)
        if fast:
            images = images.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        yield len(labels)


def lightning(workload: Workload, given: argparse.Namespace) -> Epochs:
    """Lightning's Trainer on the script's loader: one call of `fit`, whose epochs are told as one long step each.

    At its best with precision="bf16-mixed" where the device has it, channels-last and workers that stay; compiled.
    """
    from lightning import Callback, LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = _fast(workload.build(), given) if given.best else workload.build()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            images = batch[0].contiguous(memory_format=torch.channels_last) if given.best else batch[0]
            loss = functional.cross_entropy(self.model(images), batch[1])
            if not given.best:
                self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    class Told(Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            told.stepped()

        def on_train_epoch_end(self, *arguments: Any) -> None:
            told.ended()

    told = Epochs(torch.device(given.device))
    bf16 = given.best and automatic_precision(given.device) == "bf16"
    trainer = Trainer(
        precision="bf16-mixed" if bf16 else "32-true",
        max_epochs=given.epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="gpu" if given.device.startswith("cuda") else "cpu", devices=1,
        callbacks=[Told()],
    )  # fmt: skip
    trainer.fit(Module(), _loader(workload, given))
    return told


def _loader(workload: Workload, given: argparse.Namespace) -> Any:
    """Return the script's loader, at its best with workers that stay."""
    stay = given.best and given.workers > 0
    images = PerImage(workload)
    return DataLoader(images, workload.batch_size, shuffle=True, num_workers=given.workers, persistent_workers=stay)


def fastai(workload: Workload, given: argparse.Namespace) -> Epochs:
    """Fastai's Learner on the script's loader: one call of `fit`, whose epochs are told as one long step each.

    At its best with `to_channelslast`, on a GPU in bf16 too (fastai has mixed precision there alone), and workers that
    stay.
    """
    from fastai.basics import Callback, CancelValidException, DataLoaders, Learner, OptimWrapper
    from fastai.callback.channelslast import ChannelsLast
    from fastai.callback.fp16 import AMPMode, MixedPrecision

    class Told(Callback):  # type: ignore[misc]
        def before_validate(self) -> None:
            raise CancelValidException

        def after_batch(self) -> None:
            told.stepped()

        def after_epoch(self) -> None:
            told.ended()

    device = torch.device(given.device)
    told = Epochs(device)
    data = _loader(workload, given)
    mixed = given.best and automatic_precision(device) == "bf16" and device.type == "cuda"
    fast = [*([ChannelsLast()] if given.best else []), *([MixedPrecision(AMPMode.BF16)] if mixed else [])]
    learner = Learner(
        DataLoaders(data, data, device=device),
        workload.build(),
        loss_func=functional.cross_entropy,
        opt_func=partial(OptimWrapper, opt=torch.optim.SGD, momentum=0.9),
        lr=0.01,
        cbs=[Told(), *fast],
    )

    with learner.no_bar(), learner.no_logging():
        learner.fit(given.epochs)
    return told


def resident(workload: Workload, given: argparse.Namespace) -> Iterator[Steps]:
    """All images on the device, cropped and flipped as batches, bf16, channels-last, nothing read: after airbench."""
    device = torch.device(given.device)
    split = images_of(workload.count, workload.side, workload.channels)
    images = torch.from_numpy(split.images).to(device).permute(0, 3, 1, 2)
    labels = torch.from_numpy(split.labels).to(device)
    model = workload.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)

    def epoch() -> Steps:
        for index in torch.randperm(workload.count, device=device).split(workload.batch_size):
            batch = images[index].float().div_(255).sub_(0.5).div_(0.25)
            if workload.augmented:
                batch = _crop_flip(batch)
            with torch.autocast(device.type, torch.bfloat16):
                logits = model(batch.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits.float(), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield len(index)

    while True:
        yield epoch()


def _crop_flip(batch: torch.Tensor) -> torch.Tensor:
    """Return the batch shifted by up to four pixels, one shift and one flip for each of eight parts of it."""
    side, parts = batch.shape[-1], []
    for part in functional.pad(batch, (4,) * 4).chunk(8):
        top, left = torch.randint(9, (2,)).tolist()
        moved = part[..., top : top + side, left : left + side]
        parts.append(moved.flip(3) if torch.rand(()) < 0.5 else moved)
    return torch.cat(parts)


CONTENDERS: dict[str, Callable[[Workload, argparse.Namespace], Iterator[Steps] | Epochs]] = {
    "script": script,
    "timm": timm_loader,
    "timm-best": timm_loader,
    "timm-compiled": timm_loader,
    "lightning": lightning,
    "lightning-best": lightning,
    "lightning-compiled": lightning,
    "fastai": fastai,
    "fastai-best": fastai,
    "resident": resident,
}


def timed(epochs: Iterator[Steps], count: int, device: torch.device, began: float) -> dict[str, Any]:
    """Return seconds from the process's start to the end of the first step, and images/s of each epoch."""
    first, rates = 0.0, []
    for _ in range(count):
        start, images = time.perf_counter(), 0
        for step in next(epochs):
            images += step
            first = first or time.time() - began
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        rates.append(images / (time.perf_counter() - start))
    return {"first_step": first, "rates": rates}


def main() -> None:
    """Train, and print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("workload")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--began", type=float, default=time.time())
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    given.compiled = given.contender.endswith("-compiled")
    given.best = given.compiled or given.contender.endswith("-best")
    torch.set_num_threads(given.threads)
    workload = workload_of(given.workload, given.device, quick=given.quick)
    epochs = CONTENDERS[given.contender](workload, given)
    if isinstance(epochs, Epochs):
        told = {"first_step": epochs.first - given.began, "rates": epochs.rates(workload.count)}
    else:
        told = timed(epochs, given.epochs, torch.device(given.device), given.began)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
