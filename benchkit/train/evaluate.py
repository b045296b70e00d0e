"""What a model scores on a split, and what figures take from it; neither changes training.

At the end of a run the selected weights are put back and scored, the test images once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from benchkit.errors import TrainingError
from benchkit.metrics import OVER_CLASSES, SCORES, UNDEFINED, Metric, Predictions, value_of
from benchkit.results import Cost, SplitMetrics, SplitName
from benchkit.train.batches import ImageSet
from benchkit.train.cost import cost
from benchkit.train.hooks import put
from benchkit.train.run import Run

OBSERVED = 64
"""Validation images that are shown to `observe`, at most."""
INSPECTED = 256
"""Test images that are shown to `inspect`, at most."""


@torch.inference_mode()
def logits_of(run: Run, images: ImageSet) -> torch.Tensor:
    """Return the model's logits, float32 (N, K) on the device, without augmentation, in the run's precision."""
    run.model.eval()
    size = evaluation_batch(run)
    parts = []
    for chunk in images.chunks(size):
        with run.precision.autocast:
            parts.append(run.model(run.input_transform(chunk)).float())
    return torch.cat(parts)


def evaluation_batch(run: Run) -> int:
    """Return how many images of a run to evaluate at once."""
    height, width = run.val.images.shape[1:3]
    return images_at_once(run.settings.train.batch_size, (height, width), run.device.type)


def images_at_once(batch_size: int, sides: tuple[int, int], kind: str) -> int:
    """Return how many images to evaluate at once on a kind of device: many on a GPU, what the caches like on a CPU."""
    most, pixels = (256, 2**22) if kind == "cpu" else (2048, 2**23)
    return max(batch_size, min(most, pixels // (sides[0] * sides[1])))


def loss_and_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Return mean cross-entropy in nats and the share of correct images."""
    loss = functional.cross_entropy(logits, labels)
    accuracy = (logits.argmax(1) == labels).float().mean()
    mean_loss, share = torch.stack((loss, accuracy)).tolist()
    return mean_loss, share


def split_metrics(scored: Predictions, asked: Sequence[Metric] = ()) -> SplitMetrics:
    """Return the metrics that every trial has of a split, with those that a study asks for."""
    values = {metric.name: value_of(metric, scored) for metric in (*SCORES, *asked)}
    known = {name: value for name, value in values.items() if value is not None}
    fields = {field.name for field in dataclasses.fields(SplitMetrics)}
    return SplitMetrics(
        n=len(scored.labels),
        class_accuracy=scored.class_accuracy,
        confusion=tuple(tuple(row) for row in scored.confusion.tolist()),
        more={name: value for name, value in known.items() if name not in fields},
        **{name: value for name, value in known.items() if name in fields},
    )


def epoch_scores(run: Run, logits: torch.Tensor) -> dict[str, float]:
    """Return what the study reads after each epoch beside loss and accuracy, by `val.name`, of logits (N, K) on val.

    What is undefined is left out.
    """
    if not run.readings:
        return {}
    scored = Predictions(logits.cpu().numpy(), run.val.labels.cpu().numpy())
    values = {f"val.{metric.name}": value_of(metric, scored) for metric in run.readings}
    return {name: value for name, value in values.items() if value is not None}


def metric_notes(asked: Sequence[Metric], split: str, scored: Predictions, found: Mapping[str, float]) -> list[str]:
    """Return what is said of metrics on a split: why one is undefined, and over how many classes one is a mean."""
    occurring = int((scored.confusion.sum(1) > 0).sum())
    notes = [f"{split}.{one.name}{UNDEFINED}{one.undefined}" for one in asked if one.name not in found]
    if occurring < scored.classes:
        part = f"{OVER_CLASSES}{occurring} of {scored.classes}"
        notes += [f"{split}.{one.name}{part}" for one in asked if one.over_classes and one.name in found]
    return notes


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a finished run leaves: metrics of train (without augmentation), val and test, and what they rest on.

    `logits` float32 (n, K) and `labels` int64 (n,) are those of val and test. `selected_epoch` counts from 1.
    """

    metrics: Mapping[SplitName, SplitMetrics]
    logits: Mapping[SplitName, np.ndarray]
    labels: Mapping[SplitName, np.ndarray]
    cost: Cost
    selected_epoch: int
    notes: tuple[str, ...]


def finish(run: Run, *, test: bool = True) -> Finished:
    """Put the selected epoch's weights into the model, score them on all splits, and return everything.

    Without `test` the test split is not read, as for the trials of a search. Raise `TrainingError` when
    nothing was trained, and on a second call: test is read once.
    """
    if not run.history:
        raise TrainingError("the run has no epoch to finish: call fit first")
    if run.finished:
        raise TrainingError("the run is finished: its test images were read already")
    run.finished = True
    if run.settings.train.select == "best" and not run.best.epoch:
        run.notes.append(
            f"{run.settings.train.select_by} was undefined in every epoch: the last one's weights are scored"
        )
    if run.best.epoch:
        run.model.load_state_dict(run.best.weights)
    elif run.hooks.averaged is not None:
        put(run.model, run.hooks.averaged(run.model))
    images: dict[SplitName, ImageSet] = {"train": run.train.images, "val": run.val}
    if test:
        images["test"] = run.test
    logits = {split: logits_of(run, images[split]).cpu().numpy() for split in images}
    labels = {split: images[split].labels.cpu().numpy() for split in images}
    scored = {split: Predictions(logits[split], labels[split]) for split in images}
    metrics = {split: split_metrics(scored[split], run.metrics) for split in images}
    for split in images:
        run.notes += metric_notes(run.metrics, split, scored[split], metrics[split].more)
    return Finished(
        metrics=metrics,
        logits={split: logits[split] for split in images if split != "train"},
        labels={split: labels[split] for split in images if split != "train"},
        cost=cost(run),
        selected_epoch=run.best.epoch or len(run.history),
        notes=tuple(run.notes),
    )
