"""Small things to train with: a data set, a network, and runs of the engine on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from benchkit.protocols import NormFactory, Split, Splits
from benchkit.results import EpochRecord
from benchkit.study.seeds import trial_seeds
from benchkit.study.settings import DataSettings, ModelSettings, OptimizerSettings, PluginRef, Settings, TrainSettings
from benchkit.train.fit import fit
from benchkit.train.run import Plugins, Run, build_run

CLASSES = ("dark", "middling", "bright")
SHAPE = (3, 8, 8)
"""Channels, height and width of the kit's own images."""


def images_and_labels(seed: int, shape: tuple[int, int, int] = SHAPE, classes: int = len(CLASSES)) -> Splits:
    """Return a data set of noise whose brightness tells the class: 40 train, 12 val and 12 test images."""
    generator = np.random.default_rng(seed % 2**32)

    def split(count: int) -> Split:
        labels = np.arange(count, dtype=np.int64) % classes
        noise = generator.integers(0, 120, (count, *shape[1:], shape[0]))
        level = (labels * (130 // max(1, classes - 1)))[:, None, None, None]
        return Split(images=(noise + level).astype(np.uint8), labels=labels)

    return Splits(
        train=split(40),
        val=split(12),
        test=split(12),
        class_names=CLASSES[:classes] if classes <= len(CLASSES) else tuple(map(str, range(classes))),
        licence="CC0-1.0",
        citation="made by the conformance kit",
        fingerprint="0" * 64,
    )


class SmallNetwork(nn.Module):
    """A convolution, a residual block, global average pooling, a linear classifier: logits (N, K) of (N, C, H, W).

    It has the places by which regularizers find their way in any model: `dropout_sites`, and `residual_branch`.
    """

    dropout_sites = ("stem", "block")

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], norm: NormFactory) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(image_shape[0], 6, 3, padding=1, bias=False), norm(6), nn.ReLU())
        self.block = ResidualBlock(6, norm)
        self.classifier = nn.Linear(6, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.classifier(self.block(self.stem(images)).mean((2, 3)))
        return logits


class ResidualBlock(nn.Module):
    """A convolution with a norm, added to what skips it."""

    residual_branch = "branch"

    def __init__(self, channels: int, norm: NormFactory) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return maps of the same shape."""
        total: Tensor = (features + self.branch(features)).relu()
        return total


def linear_model(num_classes: int, image_shape: tuple[int, int, int], norm: NormFactory) -> nn.Module:
    """Return a linear classifier of flattened images."""
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(image_shape)), num_classes))


def settings(seed: int, *, lr: float = 0.05, epochs: int = 2) -> Settings:
    """Return the settings of a small run: float32, SGD, the weights of the last epoch."""
    training = TrainSettings(
        epochs=epochs,
        batch_size=10,
        precision="float32",
        select="last",
        optimizer=OptimizerSettings(name="sgd", lr=lr, momentum=0.9),
    )
    kit = PluginRef(name="kit")
    return Settings(data=DataSettings(dataset=kit), model=ModelSettings(model=kit), train=training, seed=seed)


def run_of(
    given: Settings, splits: Splits | None = None, *, model: Callable[..., nn.Module] = SmallNetwork, **plugins: Any
) -> Run:
    """Return a run on the CPU, ready for its first epoch: batch norm and the plugins given, under the settings' seed.

    It is on the kit's images unless others are given.
    """
    chosen = Plugins(model=model, norm=nn.BatchNorm2d, **plugins)
    data = splits or images_and_labels(given.seed)
    return build_run(given, data, chosen, seeds=trial_seeds(given.seed, "grid", 0), device="cpu")


def trained(run: Run) -> Run:
    """Return a run after its last epoch."""
    for _ in fit(run):
        pass
    return run


def losses(history: Sequence[EpochRecord]) -> Iterator[float]:
    """Yield the training and the validation loss of every epoch."""
    for record in history:
        yield record.train_loss
        yield record.val_loss
