"""Small, learnable data sets and runs for the tests of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchkit import Batch, Split, Splits
from benchkit.results import EpochRecord
from benchkit.study.seeds import PURPOSES, derive_seed
from benchkit.study.settings import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    PluginRef,
    ScheduleSettings,
    Settings,
    TrainSettings,
)
from benchkit.train.run import Plugins, Run, build_run

CLASSES = 4
SHAPE = (3, 8, 8)


def make_split(n: int, seed: int, channels: int = SHAPE[0], side: int = SHAPE[1]) -> Split:
    """Return noise around one bright quadrant for each of four classes, which occur equally often."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % CLASSES
    images = generator.integers(0, 140, (n, side, side, channels), dtype=np.uint8)
    half = side // 2
    for image, label in zip(images, labels, strict=True):
        top, left = half * (label // 2), half * (label % 2)
        image[top : top + half, left : left + half] += 60
    return Split(images=images, labels=labels)


def make_splits(train: int = 80, val: int | None = 24, test: int = 32, **layout: int) -> Splits:
    return Splits(
        train=make_split(train, 0, **layout),
        val=make_split(val, 1, **layout) if val else None,
        test=make_split(test, 2, **layout),
        class_names=tuple("abcd"),
        licence="made up",
        citation="none",
        fingerprint="0",
    )


def unbalanced(counts: Sequence[int]) -> Splits:
    """Return a data set of which train has so many images of each of the four classes."""
    whole = make_splits(train=4 * max(counts))
    rows = np.concatenate([np.flatnonzero(whole.train.labels == label)[:n] for label, n in enumerate(counts)])
    train = Split(images=whole.train.images[rows], labels=whole.train.labels[rows])
    return Splits(**{field: getattr(whole, field) for field in Splits.__slots__ if field != "train"}, train=train)


def make_settings(data: dict[str, Any] | None = None, weights: str = "", seed: int = 5, **train: Any) -> Settings:
    """Return settings for three float32 epochs of SGD unless `train` says otherwise."""
    optimizer = {"lr": 0.05, **train.pop("optimizer", {})}
    schedule = ScheduleSettings(**train.pop("schedule", {}))
    chosen = {"epochs": 3, "batch_size": 16, "precision": "float32", **train}
    return Settings(
        data=DataSettings(dataset=PluginRef(name="made-up"), **(data or {})),
        model=ModelSettings(model=PluginRef(name="small"), weights=weights),
        train=TrainSettings(optimizer=OptimizerSettings(**optimizer), schedule=schedule, **chosen),
        seed=seed,
    )


def small_net(num_classes: int, image_shape: tuple[int, int, int], norm: Callable[[int], nn.Module], /) -> nn.Module:
    """Return conv, norm, ReLU, pooling, dropout and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(image_shape[0], 8, 3, padding=1, bias=False),
        norm(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32, num_classes),
    )


def plain_net(num_classes: int, image_shape: tuple[int, int, int], norm: Callable[[int], nn.Module], /) -> nn.Module:
    """Return the same network without dropout."""
    return nn.Sequential(
        *(layer for layer in small_net(num_classes, image_shape, norm) if not isinstance(layer, nn.Dropout))
    )


def make_run(
    settings: Settings | None = None,
    splits: Splits | None = None,
    model: Callable[..., nn.Module] = small_net,
    regularizers: Sequence[tuple[str, Any]] = (),
    repeat: int = 0,
    device: str = "cpu",
    figures: Sequence[tuple[str, Any]] = (),
    device_memory: int | None = None,
) -> Run:
    plugins = Plugins(model=model, norm=nn.BatchNorm2d, regularizers=tuple(regularizers), figures=tuple(figures))
    settings = settings or make_settings()
    return build_run(
        settings,
        splits or make_splits(),
        plugins,
        seeds={purpose: derive_seed(settings.seed, "grid", repeat, purpose) for purpose in PURPOSES},
        device=device,
        device_memory=device_memory,
    )


@dataclass(frozen=True, slots=True)
class Flip:
    """Flip each image with probability one half."""

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        chosen = torch.rand(len(batch.images), 1, 1, 1, generator=generator) < 0.5
        return Batch(images=torch.where(chosen, batch.images.flip(3), batch.images), targets=batch.targets)


@dataclass(frozen=True, slots=True)
class StopAfter:
    """Stop after so many epochs."""

    epochs: int

    def stop(self, history: Sequence[EpochRecord]) -> bool:
        return len(history) >= self.epochs


def learnt(record: EpochRecord) -> tuple[float, ...]:
    """Return what an epoch record says apart from time and memory."""
    return (
        record.epoch,
        record.train_loss,
        record.train_accuracy,
        record.val_loss,
        record.val_accuracy,
        record.learning_rate,
        record.gradient_norm,
    )
