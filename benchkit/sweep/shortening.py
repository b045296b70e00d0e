"""A trial's settings cut down to a few batches, for timing that takes some seconds."""

from __future__ import annotations

import dataclasses

from benchkit.study.settings import Settings
from benchkit.train.run import Run

FEWEST = 10
"""Images to validate on, where there are as many."""


def shortened(settings: Settings, whole: Run, batches: int) -> Settings:
    """Return settings of a run on at most so many batches, validated in the proportion of the `whole` run."""
    images = min(len(whole.train.images), batches * settings.train.batch_size)
    val = max(FEWEST, round(len(whole.val) * images / len(whole.train.images)))
    data = dataclasses.replace(settings.data, train_size=images, val_size=min(val, len(whole.val)), test_size=1)
    return dataclasses.replace(settings, data=data)


def of_epochs(settings: Settings, epochs: int) -> Settings:
    """Return settings with another number of epochs."""
    return dataclasses.replace(settings, train=dataclasses.replace(settings.train, epochs=epochs))
