"""What a model scores on a split: logits in large batches, and metrics from them."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from benchkit.results import SplitMetrics
from benchkit.train.batches import ImageSet
from benchkit.train.run import Run

BINS = 15
"""Confidence bins of the calibration error."""


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


def split_metrics(logits: np.ndarray, labels: np.ndarray, classes: int) -> SplitMetrics:
    """Return the metrics of logits float32 (N, K) against labels int64 (N,).

    All but the loss and the calibration error are counted in the confusion matrix, (K, K) with a row for each label:
    with r correct images of a class, p that are of it and q that are called so, its accuracy is r / p, NaN without such
    images, and its F1 is 2 r / (p + q). Macro F1 is the mean over classes that occur among labels or predictions; micro
    F1 puts sums over all classes in the places of r, p and q.
    """
    wide = torch.from_numpy(logits).to(torch.float64)
    counts = np.bincount(labels * classes + logits.argmax(1), minlength=classes**2).reshape(classes, classes)
    correct, present = counts.diagonal(), counts.sum(1)
    both = present + counts.sum(0)
    shares = np.divide(correct, present, out=np.full(classes, np.nan), where=present > 0)
    return SplitMetrics(
        n=len(labels),
        loss=functional.cross_entropy(wide, torch.from_numpy(labels)).item(),
        accuracy=float(correct.sum() / len(labels)),
        micro_f1=float(2 * correct.sum() / both.sum()),
        macro_f1=float(np.mean(2 * correct[both > 0] / both[both > 0])),
        calibration_error=calibration_error(wide.softmax(1).numpy(), labels),
        class_accuracy=tuple(shares.tolist()),
        confusion=tuple(tuple(row) for row in counts.tolist()),
    )


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error in 0..1: sum over bins of |correct - confidence| / N.

    The 15 bins have equal width on the confidence of the predicted class (Naeini, Cooper and Hauskrecht, Obtaining
    Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015; Guo et al., ICML 2017).
    """
    confidence = probabilities.max(1)
    excess = (probabilities.argmax(1) == labels) - confidence
    sums, _ = np.histogram(confidence, bins=BINS, range=(0.0, 1.0), weights=excess)
    return float(np.abs(sums).sum() / len(labels))
