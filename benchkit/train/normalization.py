"""What a run's images are normalised by: the statistics of the training images, the model's own, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from benchkit.errors import TrainingError
from benchkit.results import Normalization
from benchkit.study.settings import DataSettings
from benchkit.train.batches import Statistics


def normalization(
    settings: DataSettings, statistics: Statistics | None, model: nn.Module, shape: tuple[int, int, int]
) -> tuple[Normalization | None, tuple[str, ...]]:
    """Return what images of `shape` (C, H, W) are normalised by before they enter `model`, and notes for the report.

    `statistics` are the training images' own. With `normalize = "model"` they are replaced by the `mean` and `std` of
    the `pretrained_cfg` that the model carries, whether its weights were loaded or not; for one channel their averages
    over the model's channels. A model without them, and images of neither one nor three channels, keep the training
    images'. None where images are not normalised.

    Raises:
        TrainingError: the model's own are not one positive number for each channel.
    """
    if statistics is None:
        return None, ()
    mean, std = statistics
    own = Normalization(source="data", mean=tuple(mean.tolist()), std=tuple(std.tolist()))
    if settings.normalize != "model":
        return own, ()
    made_with = _made_with(model)
    if not made_with:
        return own, ("the model declares no normalisation of its own: images are normalised by the training images'",)
    if shape[0] not in (1, 3):
        return own, (f"images have {shape[0]} channels: they are normalised by their own statistics, not the model's",)
    theirs, averaged = _fitted(made_with, shape[0])
    return theirs, (_told(theirs, averaged), *_resizing(made_with, settings.image_size, shape[1:]))


def statistics_of(chosen: Normalization | None) -> Statistics | None:
    """Return the numbers of a normalisation as tensors, float64 (C,)."""
    if chosen is None:
        return None
    return torch.tensor(chosen.mean, dtype=torch.float64), torch.tensor(chosen.std, dtype=torch.float64)


def _made_with(model: nn.Module) -> Mapping[str, Any]:
    """Return the `pretrained_cfg` of a model, or of the one that a regularizer put another around; {} without one."""
    found = (getattr(module, "pretrained_cfg", None) for module in model.modules())
    return next((one for one in found if isinstance(one, Mapping) and one.get("mean") and one.get("std")), {})


def _fitted(made_with: Mapping[str, Any], channels: int) -> tuple[Normalization, bool]:
    """Return a model's own numbers for so many channels, and whether they are averages of its channels' numbers."""
    mean, std = (tuple(float(number) for number in made_with[name]) for name in ("mean", "std"))
    averaged = channels == 1 and len(mean) == len(std) == 3
    if averaged:
        mean, std = (_mean(mean),), (_mean(std),)
    if not len(mean) == len(std) == channels or min(std) <= 0:
        raise TrainingError(
            f"data.normalize = 'model': the model's own mean {mean} and standard deviation {std} are for "
            f"{len(mean)} and {len(std)} channels, expected positive numbers for {channels}",
            hint="set data.normalize = 'data', or data.channels to what the model was made for",
        )
    return Normalization(source="model", mean=mean, std=std), averaged


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _told(chosen: Normalization, averaged: bool) -> str:
    mean, std = (", ".join(f"{number:.4g}" for number in numbers) for numbers in (chosen.mean, chosen.std))
    how = ", averaged over its channels" if averaged else ""
    return f"images are normalised by the model's own mean {mean} and standard deviation {std}{how}"


def _resizing(made_with: Mapping[str, Any], asked: int, sides: Sequence[int]) -> tuple[str, ...]:
    """Return a line on how the model's own images were made, where that differs from how a study's are."""
    size, share = made_with.get("input_size"), made_with.get("crop_pct")
    rule = made_with.get("interpolation")
    theirs, ours = [], []
    if size and tuple(size[-2:]) != tuple(sides):
        theirs.append(f"{size[-1]} x {size[-2]} pixels")
        ours.append(f"{sides[1]} x {sides[0]} pixels")
    if rule and rule != "bilinear":
        theirs.append(f"{rule} resizing")
        ours.append("bilinear resizing" if asked else "no resizing")
    if share and share != 1:
        theirs.append(f"a centre crop of {share:g} of the side")
        ours.append("no crop")
    if not theirs:
        return ()
    return (f"the model's own images had {', '.join(theirs)}; here they have {', '.join(ours)}",)
