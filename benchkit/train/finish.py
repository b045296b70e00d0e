"""The end of a run: the selected weights are put back and scored, test once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchkit.errors import TrainingError
from benchkit.results import Cost, SplitMetrics, SplitName
from benchkit.train.batches import ImageSet
from benchkit.train.cost import cost
from benchkit.train.evaluate import logits_of, split_metrics
from benchkit.train.run import Run


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
    if run.best.epoch:
        run.model.load_state_dict(run.best.weights)
    images: dict[SplitName, ImageSet] = {"train": run.train.images, "val": run.val}
    if test:
        images["test"] = run.test
    logits = {split: logits_of(run, images[split]).cpu().numpy() for split in images}
    labels = {split: images[split].labels.cpu().numpy() for split in images}
    metrics = {split: split_metrics(logits[split], labels[split]) for split in images}
    return Finished(
        metrics=metrics,
        logits={split: logits[split] for split in images if split != "train"},
        labels={split: labels[split] for split in images if split != "train"},
        cost=cost(run),
        selected_epoch=run.best.epoch or len(run.history),
        notes=tuple(run.notes),
    )
