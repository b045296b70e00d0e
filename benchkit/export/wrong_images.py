"""The test images that an exported model calls by a wrong name, as the study recorded it, with where they came from."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from benchkit.export.choice import ChosenTrial
from benchkit.export.described import Exported
from benchkit.protocols import Splits
from benchkit.train.selection import select

COLUMNS = ("image", "path", "class", "predicted", "probability", "probability_of_class")


def wrong_images(choice: ChosenTrial, exported: Exported, splits: Splits, folder: Path | None, file: Path) -> list[str]:
    """Write the misclassified test images, surest first, and return a line where their paths are not known.

    `image` counts the images of the prepared test split from 0, `path` is the file's name where the data set that was
    prepared in `folder` is one of own images. Nothing is written where the data are others than the trial's.
    """
    trial = choice.trial
    if trial.outcome is not None and trial.outcome.data_fingerprint not in ("", splits.fingerprint):
        return ["no list of misclassified images: the data here are others than those of the trial"]
    logits, labels = trial.predictions("test").astype(np.float64), trial.labels("test")
    rows = select(splits, choice.settings.data, choice.settings.seed, trial.index).test.rows
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    said = logits.argmax(1)
    wrong = np.flatnonzero(said != labels)
    names = [] if choice.settings.data.folds else _names(folder, len(splits.test.labels))
    with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for place in wrong[np.argsort(-chances[wrong, said[wrong]], kind="stable")]:
            true, called = labels[place], said[place]
            writer.writerow(
                (
                    rows[place],
                    names[rows[place]] if names else "",
                    exported.class_names[true],
                    exported.class_names[called],
                    f"{chances[place, called]:.6f}",
                    f"{chances[place, true]:.6f}",
                )
            )
    return [] if names else ["the data set does not tell which files its images came from: the list has their numbers"]


def _names(folder: Path | None, count: int) -> list[str]:
    """Return the names of a prepared set's test files in the order of its images, none where it has none."""
    try:
        names = json.loads((folder / "test-files.json").read_text(encoding="utf-8")) if folder else []
    except (OSError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) and len(names) == count else []
