"""The other uncertainty: what the limited number of test images leaves open, for models as they were trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    The first repeat that both have with stored predictions of the same images stands for the pair. Empty without
    predictions or true labels.
    """
    if ranking.best is None:
        return ()
    labels = results.labels.get("test")
    best = done_repeats(results, condition_named(results, ranking.best.key))
    found: list[ModelPair] = []
    for row in ranking.rows[1:]:
        pair = _first_pair(best, done_repeats(results, condition_named(results, row.key)), labels)
        if pair is not None:
            first, index = ranking.best.label, pair[0]
            found.append(ModelPair(first=first, second=row.label, repeat=index, comparison=pair[1], p_adjusted=1.0))
    return _corrected(found)


def _corrected(pairs: Sequence[ModelPair]) -> tuple[ModelPair, ...]:
    adjusted = holm([pair.comparison.p for pair in pairs])
    return tuple(replace(pair, p_adjusted=p) for pair, p in zip(pairs, adjusted, strict=True))


def _first_pair(
    first: Mapping[int, Trial], second: Mapping[int, Trial], labels: np.ndarray | None
) -> tuple[int, ImageComparison] | None:
    for index in sorted(first.keys() & second.keys()):
        one, other = _answers(first[index], labels), _answers(second[index], labels)
        if one is not None and other is not None and _same(one[1], other[1]):
            return index, mcnemar(one[0] == one[1], other[0] == other[1])
    return None


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool((first == second).all())


def _answers(trial: Trial, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the classes that a trial's stored logits name on test, and the true ones, or None without either.

    The labels stored beside the logits win over the study's: they are those of the images that this trial read.
    """
    from safetensors.numpy import load_file

    try:
        stored = load_file(trial.folder / "predictions.safetensors")
    except FileNotFoundError:
        return None
    logits, truth = stored.get("test"), stored.get("test_labels", labels)
    if logits is None or truth is None or len(logits) != len(truth):
        return None
    return logits.argmax(axis=1), truth
