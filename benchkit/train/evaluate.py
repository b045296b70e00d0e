"""What a model scores on a split: logits in large batches, and metrics from them."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch.nn import functional

from benchkit.metrics import SCORES, Predictions
from benchkit.results import SplitMetrics
from benchkit.train.batches import ImageSet
from benchkit.train.run import Run


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
    """Return how many images to evaluate at once: many on a GPU, what the caches like on a CPU, fewer large ones."""
    most, pixels = (256, 2**22) if run.device.type == "cpu" else (2048, 2**23)
    height, width = run.val.images.shape[1:3]
    return max(run.settings.train.batch_size, min(most, pixels // (height * width)))


def loss_and_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Return mean cross-entropy in nats and the share of correct images."""
    loss = functional.cross_entropy(logits, labels)
    accuracy = (logits.argmax(1) == labels).float().mean()
    mean_loss, share = torch.stack((loss, accuracy)).tolist()
    return mean_loss, share


def split_metrics(logits: np.ndarray, labels: np.ndarray) -> SplitMetrics:
    """Return the metrics of logits float32 (N, K) against labels int64 (N,)."""
    scored = Predictions(logits, labels)
    values = {metric.name: metric.computed(scored) for metric in SCORES if metric.computed}
    known = {name: value for name, value in values.items() if value is not None}
    fields = {field.name for field in dataclasses.fields(SplitMetrics)}
    return SplitMetrics(
        n=len(labels),
        class_accuracy=scored.class_accuracy,
        confusion=tuple(tuple(row) for row in scored.confusion.tolist()),
        more={name: value for name, value in known.items() if name not in fields},
        **{name: value for name, value in known.items() if name in fields},
    )
