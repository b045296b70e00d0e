"""What figures take from a model: numbers after every epoch, arrays once it is finished. Never changes training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from benchkit.train.batches import ImageSet
    from benchkit.train.run import Run

OBSERVED = 64
"""Validation images that are shown to `observe`, at most."""
INSPECTED = 256
"""Test images that are shown to `inspect`, at most."""


def spread(images: ImageSet, count: int) -> torch.Tensor:
    """Return up to `count` evenly spaced positions int64 (N,): a split in the order of its classes shows them all."""
    return torch.linspace(0, len(images) - 1, min(count, len(images)), device=images.device).round().to(torch.int64)


def observe(run: Run) -> dict[str, float]:
    """Return what the study's figures note of the model after an epoch, by `figure.quantity`; {} without any."""
    watching = [(name, figure) for name, figure in run.figures if hasattr(figure, "observe")]
    if not watching:
        return {}
    run.model.eval()
    observed = {}
    with torch.no_grad():
        images = run.input_transform(run.val.take(spread(run.val, OBSERVED)))
        for name, figure in watching:
            for quantity, value in figure.observe(run.model, images).items():
                observed[f"{name}.{quantity}"] = float(value)
    return observed


def inspect(run: Run) -> dict[str, dict[str, np.ndarray]]:
    """Return what the study's figures take from the finished model, by figure; originals and labels come with each."""
    inspected: dict[str, dict[str, np.ndarray]] = {}
    for name, figure in run.figures:
        if not hasattr(figure, "inspect"):
            continue
        run.model.eval()
        index = spread(run.test, INSPECTED)
        originals, labels = run.test.take(index), run.test.labels[index]
        arrays = figure.inspect(run.model, run.input_transform(originals), labels)
        run.model.zero_grad(set_to_none=True)
        if arrays:
            inspected[name] = {
                **{key: np.ascontiguousarray(value) for key, value in arrays.items()},
                "images": np.ascontiguousarray(originals.permute(0, 2, 3, 1).cpu().numpy()),
                "labels": np.ascontiguousarray(labels.cpu().numpy()),
            }
    return inspected
