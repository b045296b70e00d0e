"""The loops that people write or take, each run in a process of its own: it prints its rates as JSON.

Like benchkit's trials they are scored: on validation images after each epoch and on all images after the last one.
Rates are those of training alone.

python tests/peers/contenders.py CONTENDER WORKLOAD [--epochs 3] [--workers 2] [--threads 2] [--device cpu]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from benchmark_images import split_of
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from workloads import Workload, workload_of

from benchkit.train.step import automatic_precision

SPLITS = ("train", "val", "test")
"""What is scored after the last epoch, as of a trial of benchkit's."""

Steps = Iterator[int]
"""Yields the number of images after each step of training."""

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
"""Images (N, C, H, W) and labels (N,)."""


class Epochs:
    """What a framework's own loop tells of its training: when its first step and each of its epochs ended.

    An epoch is trained from the end of the one before, whose validation is part of that.
    """

    def __init__(self, device: torch.device) -> None:
        """Begin, before the loop does."""
        self.device, self.first = device, 0.0
        self.trained: list[float] = []
        self.ends = [time.perf_counter()]

    def stepped(self) -> None:
        """Note that a step has ended."""
        self.first = self.first or time.time()

    def validating(self) -> None:
        """Note that an epoch is trained and its validation begins."""
        self.trained.append(self._now())

    def ended(self) -> None:
        """Note that an epoch and its validation have ended."""
        self.ends.append(self._now())

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def rates(self, images: int, epochs: int) -> list[float]:
        """Return the images/s of so many epochs of so many images; what is scored after them does not count."""
        return [images / (end - begin) for begin, end in zip(self.ends[:epochs], self.trained[:epochs], strict=True)]


class PerImage(Dataset):  # type: ignore[type-arg]
    """One image at a time through torchvision's transforms, as tutorials do it: augmented where they are trained on."""

    def __init__(
        self, workload: Workload, split: str = "train", *, augmented: bool = True, to_tensor: bool = True
    ) -> None:
        from torchvision import transforms

        side, channels = workload.side, workload.channels
        images = split_of(workload.count, side, channels, split)
        augment = [transforms.RandomCrop(side, padding=4), transforms.RandomHorizontalFlip()]
        normalize = [transforms.ToTensor(), transforms.Normalize((0.5,) * channels, (0.25,) * channels)]
        self.transform: Any = transforms.Compose(
            [*(augment if augmented and workload.augmented else []), *(normalize if to_tensor else [])]
        )
        self.images = images.images[..., 0] if channels == 1 else images.images
        self.labels = images.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def scored_epochs(epochs: int, train: Callable[[], Steps], score: Callable[[str], object]) -> Iterator[Steps]:
    """Yield the steps of each epoch; after it validation images are scored, after the last one all `SPLITS`."""
    for _ in range(epochs):
        yield train()
        score("val")
    for split in SPLITS:
        score(split)


def script(workload: Workload, given: argparse.Namespace) -> Iterator[Steps]:
    """The loop of a tutorial: per-image transforms, worker processes, float32, a loss read at each step."""
    device = torch.device(given.device)
    model = workload.build().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    data, splits = _loader(workload, given), _scored_loaders(workload, given)
    return scored_epochs(
        given.epochs,
        lambda: _plain_epoch(model, optimizer, data, device),
        lambda split: _score(model, splits[split], device),
    )


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
    options: dict[str, Any] = {
        "use_prefetcher": device.type == "cuda",
        "num_workers": given.workers,
        "mean": (0.5,) * workload.channels,
        "std": (0.25,) * workload.channels,
        "persistent_workers": given.best and given.workers > 0,
        "device": device,
    }
    data = create_loader(
        PerImage(workload, to_tensor=False),
        shape,
        workload.batch_size,
        is_training=True,
        no_aug=not workload.augmented,
        color_jitter=0.0,
        **options,
    )
    splits = {
        split: create_loader(
            PerImage(workload, split, augmented=False, to_tensor=False), shape, workload.batch_size, crop_pct=1.0,
            **options,
        )
        for split in SPLITS
    }  # fmt: skip
    return scored_epochs(
        given.epochs,
        lambda: _plain_epoch(model, optimizer, data, device, fast=given.best),
        lambda split: _score(model, splits[split], device, fast=given.best),
    )


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


def _score(model: nn.Module, batches: Batches, device: torch.device, *, fast: bool = False) -> tuple[float, float]:
    """Return the mean loss and the accuracy of a model on a split; it is in training mode again afterwards."""
    bf16 = fast and automatic_precision(device) == "bf16"
    loss, right, count = 0.0, 0, 0
    model.eval()
    with torch.no_grad():
        for images, labels in batches:
            images, labels = images.to(device), labels.to(device)
            if fast:
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(images)
            loss += functional.cross_entropy(logits.float(), labels, reduction="sum").item()
            right += int((logits.argmax(1) == labels).sum())
            count += len(labels)
    model.train()
    return loss / count, right / count


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

        def validation_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> None:
            images = batch[0].contiguous(memory_format=torch.channels_last) if given.best else batch[0]
            logits = self.model(images)
            self.log("val_loss", functional.cross_entropy(logits, batch[1]))
            self.log("val_accuracy", (logits.argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    class Told(Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            told.stepped()

        def on_validation_start(self, *arguments: Any) -> None:
            told.validating()

        def on_validation_end(self, *arguments: Any) -> None:
            told.ended()

    told = Epochs(torch.device(given.device))
    bf16 = given.best and automatic_precision(given.device) == "bf16"
    trainer = Trainer(
        precision="bf16-mixed" if bf16 else "32-true",
        max_epochs=given.epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, devices=1,
        accelerator="gpu" if given.device.startswith("cuda") else "cpu",
        callbacks=[Told()],
    )  # fmt: skip
    splits = _scored_loaders(workload, given)
    trainer.fit(module := Module(), _loader(workload, given), splits["val"])
    trainer.validate(module, list(splits.values()), verbose=False)
    return told


def _loader(workload: Workload, given: argparse.Namespace, scored: str = "") -> Any:
    """Return the script's loader of the images to train on, or of a split to score; workers stay at its best."""
    images = PerImage(workload, scored or "train", augmented=not scored)
    stay = given.best and given.workers > 0
    return DataLoader(
        images, workload.batch_size, shuffle=not scored, num_workers=given.workers, persistent_workers=stay
    )


def _scored_loaders(workload: Workload, given: argparse.Namespace) -> dict[str, Any]:
    return {split: _loader(workload, given, scored=split) for split in SPLITS}


def fastai(workload: Workload, given: argparse.Namespace) -> Epochs:
    """Fastai's Learner on the script's loader: one call of `fit`, whose epochs are told as one long step each.

    At its best with `to_channelslast`, on a GPU in bf16 too (fastai has mixed precision there alone), and workers that
    stay.
    """
    from fastai.basics import Callback, DataLoaders, Learner, OptimWrapper
    from fastai.callback.channelslast import ChannelsLast
    from fastai.callback.fp16 import AMPMode, MixedPrecision
    from fastai.metrics import accuracy

    class Told(Callback):  # type: ignore[misc]
        def before_validate(self) -> None:
            told.validating()

        def after_batch(self) -> None:
            told.stepped()

        def after_epoch(self) -> None:
            told.ended()

    device = torch.device(given.device)
    told = Epochs(device)
    data, splits = _loader(workload, given), _scored_loaders(workload, given)
    mixed = given.best and automatic_precision(device) == "bf16" and device.type == "cuda"
    fast = [*([ChannelsLast()] if given.best else []), *([MixedPrecision(AMPMode.BF16)] if mixed else [])]
    learner = Learner(
        DataLoaders(data, splits["val"], device=device),
        workload.build(),
        loss_func=functional.cross_entropy,
        metrics=accuracy,
        opt_func=partial(OptimWrapper, opt=torch.optim.SGD, momentum=0.9),
        lr=0.01,
        cbs=[Told(), *fast],
    )

    with learner.no_bar(), learner.no_logging():
        learner.fit(given.epochs)
        for split in splits.values():
            learner.validate(dl=split)
    return told


def resident(workload: Workload, given: argparse.Namespace) -> Iterator[Steps]:
    """All images on the device, cropped and flipped as batches, bf16, channels-last, nothing read: after airbench."""
    device = torch.device(given.device)
    splits = {split: _resident_split(workload, split, device) for split in SPLITS}
    images, labels = splits["train"]
    model = workload.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)

    def epoch() -> Steps:
        for index in torch.randperm(workload.count, device=device).split(workload.batch_size):
            batch = _scaled(images[index])
            if workload.augmented:
                batch = _crop_flip(batch)
            with torch.autocast(device.type, torch.bfloat16):
                logits = model(batch.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits.float(), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield len(index)

    def batches(split: str) -> Batches:
        size = workload.batch_size
        for some, their_labels in zip(*(part.split(size) for part in splits[split]), strict=True):
            yield _scaled(some), their_labels

    return scored_epochs(given.epochs, epoch, lambda split: _score(model, batches(split), device, fast=True))


def _resident_split(workload: Workload, split: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    found = split_of(workload.count, workload.side, workload.channels, split)
    images, labels = torch.from_numpy(found.images), torch.from_numpy(found.labels)
    return images.to(device).permute(0, 3, 1, 2), labels.to(device)


def _scaled(images: torch.Tensor) -> torch.Tensor:
    return images.float().div_(255).sub_(0.5).div_(0.25)


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


def timed(epochs: Iterator[Steps], device: torch.device, began: float) -> dict[str, Any]:
    """Return seconds from the process's start to the end of the first step, and images/s of each epoch.

    What the loop does between its epochs is left out of these.
    """
    first, rates = 0.0, []
    for steps in epochs:
        start, images = time.perf_counter(), 0
        for step in steps:
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
        told = {"first_step": epochs.first - given.began, "rates": epochs.rates(workload.count, given.epochs)}
    else:
        told = timed(epochs, torch.device(given.device), given.began)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
