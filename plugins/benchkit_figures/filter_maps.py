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
    names: list[str] = []
    alive: list[torch.Tensor] = []
    kept: list[torch.Tensor] = []
    with torch.no_grad():
        for start in range(0, len(images), AT_ONCE):
            place = iter(range(10**6))

            def visit(name: str, maps: torch.Tensor, *, first: bool = start == 0, count=place) -> None:  # type: ignore[no-untyped-def]
                answers = (maps != 0).any(dim=3).any(dim=2).any(dim=0)
                if first:
                    names.append(name)
                    alive.append(answers)
                    kept.append(_sample(maps[:shown]))
                else:
                    alive[next(count)] |= answers

            with after_nonlinearities(model, visit):
                model(images[start : start + AT_ONCE])
    keys = [f"{place:03d}.{name}" for place, name in enumerate(names, start=1)]
    found = {f"zero.{key}": answers.logical_not().cpu().numpy() for key, answers in zip(keys, alive, strict=True)}
    for place in sorted({0, len(keys) // 2, len(keys) - 1}) if keys else ():
        found[f"maps.{keys[place]}"] = kept[place].cpu().numpy()
    return found


def _sample(maps: torch.Tensor) -> torch.Tensor:
    """Return some of the filters as uint8 (n, F, h, w)."""
    count = maps.shape[1]
    chosen = torch.arange(min(count, MOST_FILTERS), device=maps.device) * count // min(count, MOST_FILTERS)
    some = functional.relu(maps[:, chosen].detach().float())
    if max(some.shape[2:]) > MOST_PIXELS:
        some = functional.adaptive_avg_pool2d(some, [min(side, MOST_PIXELS) for side in some.shape[2:]])
    most = some.amax(dim=(1, 2, 3), keepdim=True)
    return (255 * some / torch.where(most > 0, most, 1.0)).round().to(torch.uint8)
