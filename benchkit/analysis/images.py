"""The other uncertainty: what the limited number of test images leaves open, for models as they were trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchkit.analysis.comparisons import ImageComparison, holm, mcnemar
from benchkit.analysis.estimates import Proportion, wilson
from benchkit.analysis.ranking import Ranking, condition_named
from benchkit.analysis.readings import compared, done_repeats
from benchkit.results import StudyResults, Trial

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAccuracy:
    """One trained model's test accuracy, with the Wilson interval over test images."""

    key: str
    label: str
    repeat: int
    selected_epoch: int
    accuracy: Proportion


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPair:
    """Two trained models of the same repeat on the same test images; `p_adjusted` is Holm's over the table."""

    first: str
    second: str
    repeat: int
    comparison: ImageComparison
    p_adjusted: float


def model_accuracies(results: StudyResults) -> tuple[ModelAccuracy, ...]:
    """Return the test accuracy of every done repeat that was scored on test, in report order."""
    rows: list[ModelAccuracy] = []
    for condition in compared(results):
        for index, trial in sorted(done_repeats(results, condition).items()):
            metrics = trial.outcome.metrics.get("test") if trial.outcome else None
            if trial.outcome is None or metrics is None or metrics.n == 0:
                continue
            rows.append(
                ModelAccuracy(
                    key=condition.key,
                    label=condition.label,
                    repeat=index,
                    selected_epoch=trial.outcome.selected_epoch,
                    accuracy=wilson(round(metrics.accuracy * metrics.n), metrics.n),
                )
            )
    return tuple(rows)


def model_pairs(results: StudyResults, ranking: Ranking) -> tuple[ModelPair, ...]:
    """Return the best condition's model against every other condition's, on the test images, for the first repeat.

    The first repeat that both have with stored predictions stands for the pair. Empty without labels or predictions.
    """
    labels = results.labels.get("test")
    if ranking.best is None or labels is None:
        return ()
    best = done_repeats(results, condition_named(results, ranking.best.key))
    found: list[ModelPair] = []
    for row in ranking.rows[1:]:
        other = done_repeats(results, condition_named(results, row.key))
        pair = _first_pair(best, other, labels)
        if pair is not None:
            index, comparison = pair
            found.append(
                ModelPair(
                    first=ranking.best.label, second=row.label, repeat=index, comparison=comparison, p_adjusted=1.0
                )
            )
    return _corrected(found)


def _corrected(pairs: Sequence[ModelPair]) -> tuple[ModelPair, ...]:
    adjusted = holm([pair.comparison.p for pair in pairs])
    return tuple(replace(pair, p_adjusted=p) for pair, p in zip(pairs, adjusted, strict=True))


def _first_pair(
    first: dict[int, Trial], second: dict[int, Trial], labels: np.ndarray
) -> tuple[int, ImageComparison] | None:
    for index in sorted(first.keys() & second.keys()):
        right = [_right(trial[index], labels) for trial in (first, second)]
        if right[0] is not None and right[1] is not None:
            return index, mcnemar(right[0], right[1])
    return None


def _right(trial: Trial, labels: np.ndarray) -> np.ndarray | None:
    """Return which test images a trial's stored logits name rightly, None when they are absent or of another test."""
    try:
        logits = trial.predictions("test")
    except (FileNotFoundError, KeyError):
        return None
    if len(logits) != len(labels):
        return None
    right: np.ndarray = logits.argmax(axis=1) == labels
    return right
