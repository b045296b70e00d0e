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
from typing import Any

import torch
from benchmark_images import images_of
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from workloads import Workload, workload_of

Steps = Iterator[int]
"""Yields the number of images after each step of training."""


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
    """Timm's loader and optimizer around the same loop, with its own augmentation of crop and flip."""
    from timm.data import create_loader
    from timm.optim import create_optimizer_v2

    device = torch.device(given.device)
    model = workload.build().to(device)
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
        persistent_workers=False,
        device=device,
    )
    while True:
        yield _plain_epoch(model, optimizer, data, device)


def _plain_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, data: Any, device: torch.device) -> Steps:
    for images, labels in data:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        yield len(labels)


def lightning(workload: Workload, given: argparse.Namespace) -> Iterator[Steps]:
    """Lightning's Trainer on the script's loader; an epoch is one call of `fit`, told as one long step."""
    from lightning import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = workload.build()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss = functional.cross_entropy(self.model(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    module = Module()
    data = DataLoader(PerImage(workload), workload.batch_size, shuffle=True, num_workers=given.workers)

    def epoch() -> Steps:
        trainer = Trainer(
            max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accelerator="gpu" if given.device.startswith("cuda") else "cpu", devices=1,
        )  # fmt: skip
        trainer.fit(module, data)
        yield workload.count

    while True:
        yield epoch()


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


CONTENDERS: dict[str, Callable[[Workload, argparse.Namespace], Iterator[Steps]]] = {
    "script": script,
    "timm": timm_loader,
    "lightning": lightning,
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
    torch.set_num_threads(given.threads)
    epochs = CONTENDERS[given.contender](workload_of(given.workload, given.device, quick=given.quick), given)
    sys.stdout.write(json.dumps(timed(epochs, given.epochs, torch.device(given.device), given.began)) + "\n")


if __name__ == "__main__":
    main()
