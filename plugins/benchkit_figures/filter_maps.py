"""Feature maps after each nonlinearity, and the filters that answer to none of the images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchkit_figures.layer_outputs import after_nonlinearities

AT_ONCE = 64
MOST_FILTERS = 16
MOST_PIXELS = 32


def filter_maps(model: nn.Module, images: torch.Tensor, shown: int) -> Mapping[str, np.ndarray]:
    """Return which filters are zero for all images, and the maps of the first, middle and last nonlinearity.

    `zero.PLACE.MODULE` bool (C,): for the nonlinearity at each place (from 001, in running order), whether the
    filter's output is zero at every pixel of every image. `maps.PLACE.MODULE` uint8 (shown, F, h, w) for the first
    `shown` images: up to 16 filters spread evenly over the layer, averaged down to at most 32 pixels a side, divided by
    the greatest value of the layer in each image (values below zero count as zero). Empty without feature maps.
    """
    seen = _Seen(shown)
    with torch.no_grad(), after_nonlinearities(model, seen.visit):
        for part in torch.split(images, AT_ONCE):
            seen.place = 0
            model(part)
    keys = [f"{index:03d}.{name}" for index, name in enumerate(seen.names, start=1)]
    arrays = {f"zero.{key}": answers.logical_not().cpu().numpy() for key, answers in zip(keys, seen.alive, strict=True)}
    for index in sorted({0, len(keys) // 2, len(keys) - 1}) if keys else ():
        arrays[f"maps.{keys[index]}"] = seen.kept[index].cpu().numpy()
    return arrays


class _Seen:
    """The maps of one batch after the other; the first one tells how many nonlinearities there are."""

    def __init__(self, shown: int) -> None:
        self.shown = shown
        self.place = 0
        self.names: list[str] = []
        self.alive: list[torch.Tensor] = []
        self.kept: list[torch.Tensor] = []

    def visit(self, name: str, maps: torch.Tensor) -> None:
        """Take note of which filters answer, and on the first batch of a sample of the maps."""
        answers = (maps != 0).amax(dim=(0, 2, 3))
        if self.place == len(self.names):
            self.names.append(name)
            self.alive.append(answers)
            self.kept.append(_sample(maps[: self.shown]))
        else:
            self.alive[self.place] |= answers
        self.place += 1


def _sample(maps: torch.Tensor) -> torch.Tensor:
    """Return some of the filters as uint8 (n, F, h, w)."""
    count = maps.shape[1]
    chosen = torch.arange(min(count, MOST_FILTERS), device=maps.device) * count // min(count, MOST_FILTERS)
    some = functional.relu(maps[:, chosen].detach().float())
    if max(some.shape[2:]) > MOST_PIXELS:
        some = functional.adaptive_avg_pool2d(some, (min(some.shape[2], MOST_PIXELS), min(some.shape[3], MOST_PIXELS)))
    most = some.amax(dim=(1, 2, 3), keepdim=True)
    return (255 * some / torch.where(most > 0, most, 1.0)).round().to(torch.uint8)
