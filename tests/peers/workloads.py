"""What the benchmark trains: the same models, batch sizes and images for every contender."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

STUDY = """
title = "Benchmark"
[data]
name = "pictures"
count = {count}
side = {side}
channels = {channels}
[model]
{model}
[train]
epochs = {epochs}
batch_size = {batch_size}
threads = {threads}
optimizer = {{ name = "sgd", lr = 0.01, momentum = 0.9 }}
compile = "{compile}"
{regularizers}
[repeats]
n = {repeats}
"""
GPU_SWEEP = 4
"""How many times the loops' epochs a sweep's trials have on a GPU."""

CROP_FLIP = '\n[[regularizers]]\nname = "crop-flip"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A training: `count` images of (channels, side, side) an epoch, `trials` of them for a sweep.

    On a GPU an epoch has `gpu_count` images, so that it still lasts some tenths of a second and has steps enough to
    be worth recording. A benchkit trial has `longer` times the epochs that the loops beside it train: where an epoch is
    so short that its rate would tell of a moment while theirs tells of many seconds, and in a GPU's sweep, which would
    mostly start processes otherwise.

    `goals` say by device (cpu, cuda) how many times as fast as the script benchkit shall be at the least: in images a
    second, for a sweep in trials an hour.
    """

    name: str
    title: str
    model: str
    batch_size: int
    count: int
    gpu_count: int
    side: int = 32
    channels: int = 3
    trials: int = 1
    longer: int = 1
    goals: Mapping[str, float]

    @property
    def augmented(self) -> bool:
        """Return whether images are cropped and flipped."""
        return self.channels == 3

    def build(self) -> nn.Module:
        """Return the model that every contender trains, with ten classes."""
        return BUILDERS[self.model]((self.channels, self.side, self.side))

    def study(self, epochs: int, threads: int, *, compiled: bool = False) -> str:
        """Return the study file that trains it with benchkit, where it is `compiled` with steps that always are."""
        return STUDY.format(
            count=self.count,
            side=self.side,
            channels=self.channels,
            model=TABLES[self.model],
            epochs=epochs,
            batch_size=self.batch_size,
            threads=threads,
            compile="always" if compiled else "auto",
            regularizers=CROP_FLIP if self.augmented else "",
            repeats=self.trials,
        )


def _resnet14(shape: tuple[int, int, int]) -> nn.Module:
    from benchkit_models.resnet import resnet

    return resnet(10, shape, nn.BatchNorm2d)


def _mlp(shape: tuple[int, int, int]) -> nn.Module:
    from benchkit_models.mlp import mlp

    return mlp(10, shape, nn.BatchNorm2d)


def _resnet18(shape: tuple[int, int, int]) -> nn.Module:
    import timm

    return timm.create_model("resnet18", num_classes=10)  # type: ignore[no-any-return]


def _resnet18_small_images(shape: tuple[int, int, int]) -> nn.Module:
    from benchkit_models.timm_models import timm_model

    return timm_model(10, shape, nn.BatchNorm2d, variant="resnet18", stem="cifar")


BUILDERS: dict[str, Callable[[tuple[int, int, int]], nn.Module]] = {
    "resnet-14": _resnet14,
    "mlp": _mlp,
    "resnet-18": _resnet18,
    "resnet-18 for small images": _resnet18_small_images,
}
TABLES = {
    "resnet-14": 'name = "resnet"\nn = 2',
    "mlp": 'name = "mlp"',
    "resnet-18": 'name = "timm:resnet18"\npretrained = false',
    "resnet-18 for small images": 'name = "timm:resnet18"\npretrained = false\nstem = "cifar"',
}
"""The stem for small images is a 3x3 convolution without pooling, 0.56 GMAC an image of 32 px; with its own stem the
network ends in maps of one pixel there."""

WORKLOADS = (
    Workload(
        name="resnet14-b128",
        title="ResNet-14, batch 128",
        model="resnet-14",
        batch_size=128,
        count=2560,
        gpu_count=25600,
        goals={"cpu": 2.5, "cuda": 20},
    ),
    Workload(
        name="resnet14-b8",
        title="ResNet-14, batch 8",
        model="resnet-14",
        batch_size=8,
        count=2400,
        gpu_count=4800,
        longer=3,
        goals={"cpu": 2.2, "cuda": 30},
    ),
    Workload(
        name="mlp-b128",
        title="MLP, batch 128",
        model="mlp",
        batch_size=128,
        count=51200,
        gpu_count=51200,
        side=28,
        channels=1,
        longer=5,
        goals={"cpu": 8, "cuda": 60},
    ),
    Workload(
        name="resnet18-b128",
        title="ResNet-18 at 32 px (3x3 stem), batch 128",
        model="resnet-18 for small images",
        batch_size=128,
        count=768,
        gpu_count=25600,
        goals={"cpu": 2, "cuda": 5},
    ),
    Workload(
        name="resnet18-224",
        title="ResNet-18 at 224 px, batch 16",
        model="resnet-18",
        batch_size=16,
        count=64,
        gpu_count=1600,
        side=224,
        goals={"cpu": 2, "cuda": 3},
    ),
    Workload(
        name="sweep-16",
        title="16 trials of ResNet-14, batch 128",
        model="resnet-14",
        batch_size=128,
        count=1280,
        gpu_count=25600,
        trials=16,
        goals={"cpu": 2.7, "cuda": 40},
    ),
)


def small(workload: Workload) -> Workload:
    """Return a workload of three batches and two trials at most, for a smoke run."""
    size = min(workload.batch_size, 8)
    return replace(workload, batch_size=size, count=3 * size, trials=min(workload.trials, 2), longer=1)


def workloads_on(device: str, *, quick: bool) -> tuple[Workload, ...]:
    """Return the workloads as they are on a kind of device, or as a smoke run."""
    if quick:
        return tuple(small(one) for one in WORKLOADS)
    if device.startswith("cuda"):
        return tuple(
            replace(one, count=one.gpu_count, longer=GPU_SWEEP if one.trials > 1 else one.longer) for one in WORKLOADS
        )
    return WORKLOADS


def workload_of(name: str, device: str, *, quick: bool) -> Workload:
    """Return a workload by name, as it is on a kind of device."""
    return next(one for one in workloads_on(device, quick=quick) if one.name == name)
