"""What figures with `observe` or `inspect` take from a model, for made-up results: a small network of the kit's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from benchkit.results import StudyResults, Trial
from benchkit.testing.check import attempt, require
from benchkit.testing.results import IMAGES
from benchkit.testing.specimens import SmallNetwork
from benchkit.testing.subject import Subject

_SHAPE = (3, 16, 16)


def with_model(results: StudyResults, subject: Subject) -> StudyResults:
    """Return results whose trials hold what the figure observes after epochs and inspects at the end.

    They are unchanged for a figure that does neither.
    """
    figure = subject.plugin(**subject.options)
    if not hasattr(figure, "observe") and not hasattr(figure, "inspect"):
        return results
    return replace(results, trials=tuple(_with(trial, figure, subject) for trial in results.trials))


def _with(trial: Trial, figure: Any, subject: Subject) -> Trial:
    torch.manual_seed(trial.number)
    model = SmallNetwork(4, _SHAPE, nn.BatchNorm2d).eval()
    pictures = np.random.default_rng(trial.number % 4).integers(0, 256, (IMAGES, 16, 16, 3), dtype=np.uint8)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    if hasattr(figure, "inspect") and trial.state == "done" and trial.folder.is_dir():
        labels = torch.arange(IMAGES) % 4
        with attempt("inspect(model, images, labels)"):
            found = figure.inspect(model, images, labels)
        arrays = isinstance(found, dict) and all(isinstance(one, np.ndarray) for one in found.values())
        require(arrays, given="inspect(model, images, labels)", expected="a dict of arrays", got=type(found).__name__)
        whole = {**{name: np.ascontiguousarray(one) for name, one in found.items()}}
        save_file(
            {**whole, "images": pictures, "labels": labels.numpy()},
            trial.folder / f"inspected-{subject.name}.safetensors",
        )
    if not hasattr(figure, "observe"):
        return trial
    with attempt("observe(model, images)"), torch.no_grad():
        seen = {f"{subject.name}.{name}": float(value) for name, value in figure.observe(model, images[:64]).items()}
    return replace(trial, history=tuple(replace(record, observed=seen) for record in trial.history))
