"""Confusion matrices: which classes are taken for which, as percent of each true class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchkit import NothingToDraw, PluginError, card
from benchkit.plan import Condition
from benchkit.results import SPLITS, SplitMetrics, StudyResults
from benchkit_figures.confusion_panels import FEW_CLASSES, PIXEL_CLASSES, heatmaps, pixels
from benchkit_figures.metrics import done_repeats

MOST_PAIRS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """A condition's matrix: counts summed over `n` repeats, and percent of each true class (rows sum to 100 or 0).

    `accuracy` is the mean over repeats; `pairs` are the most frequent errors as (true, predicted, percent).
    """

    condition: str
    n: int
    accuracy: float
    counts: tuple[tuple[int, ...], ...]
    percent: tuple[tuple[float, ...], ...]
    pairs: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionData:
    """The matrices of all conditions, best accuracy first, and the labels of those that print shows."""

    split: str
    classes: tuple[str, ...]
    matrices: tuple[Confusion, ...]
    shown: tuple[str, ...]

    def matrix(self, label: str) -> Confusion:
        """Return the matrix of a condition."""
        return next(matrix for matrix in self.matrices if matrix.condition == label)


@card(
    title="Confusion matrix",
    summary="Which classes are taken for which, in percent of each true class, summed over repeats.",
    choices={"split": SPLITS},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionMatrix:
    """Confusion on `split`: of the best and the worst condition in print, or of the `conditions` named; any in HTML."""

    split: str = "test"
    conditions: tuple[str, ...] = ()

    def data(self, results: StudyResults) -> ConfusionData:
        """Return the matrices of all conditions with a done repeat; raise `PluginError` for unknown labels."""
        if self.split not in SPLITS:
            raise PluginError(
                "the figure confusion-matrix was given wrong options",
                problems=[f"split = {self.split!r}: expected {', '.join(SPLITS)}"],
            )
        found = [m for condition in results.conditions if (m := _confusion(results, condition, self.split))]
        if not found:
            raise NothingToDraw(f"no repeat has finished with a confusion matrix on {self.split}")
        found.sort(key=lambda matrix: -matrix.accuracy)
        count = len(found[0].counts)
        names = results.class_names if len(results.class_names) == count else tuple(map(str, range(count)))
        return ConfusionData(split=self.split, classes=names, matrices=tuple(found), shown=self._shown(found))

    def draw(self, data: ConfusionData) -> Any:
        """Return heatmaps, or above 50 classes a picture of one pixel per cell with the most confused pairs."""
        return pixels(data) if len(data.classes) > PIXEL_CLASSES else heatmaps(data)

    def caption(self, data: ConfusionData) -> str:
        """Return what a cell is, over how many repeats, and which conditions are shown."""
        first = data.matrix(data.shown[0])
        named = data.shown if len(data.classes) <= FEW_CLASSES else data.shown[:1]
        which = " and ".join(f"{label} ({100 * data.matrix(label).accuracy:.2f} % correct)" for label in named)
        parts = [
            f"Confusion on {data.split} images, in percent of each true class, summed over {first.n} "
            f"repeat{'' if first.n == 1 else 's'}: {which}."
        ]
        if len(data.matrices) > 1 and not self.conditions:
            parts.append("The best and the worst condition." if len(named) == 2 else "The best condition.")
        if len(data.matrices) > len(named):
            parts.append("In HTML the condition can be chosen.")
        parts.append("Empty cells: no image.")
        return " ".join(parts)

    def alt_text(self, data: ConfusionData) -> str:
        """Return one sentence with the most frequent error of the first matrix shown."""
        matrix = data.matrix(data.shown[0])
        if not matrix.pairs:
            return f"{matrix.condition} makes no error on the {data.split} images."
        true, predicted, percent = matrix.pairs[0]
        return (
            f"The most frequent error of {matrix.condition}: {percent:.1f} % of {data.classes[true]} "
            f"are taken for {data.classes[predicted]}."
        )

    def _shown(self, found: Sequence[Confusion]) -> tuple[str, ...]:
        labels = [matrix.condition for matrix in found]
        unknown = [label for label in self.conditions if label not in labels]
        if unknown:
            raise PluginError(
                "the figure confusion-matrix was asked for conditions that have no finished repeat",
                problems=[f"{label!r}: expected one of {', '.join(labels)}" for label in unknown],
            )
        if self.conditions:
            return tuple(self.conditions[:2])
        return tuple(labels[:1] if len(labels) == 1 else [labels[0], labels[-1]])


def _confusion(results: StudyResults, condition: Condition, split: str) -> Confusion | None:
    scores = [m for t in done_repeats(results, condition) if t.outcome and (m := _metrics(t.outcome.metrics, split))]
    if not scores:
        return None
    count = len(scores[0].confusion)
    counts = tuple(
        tuple(sum(score.confusion[true][called] for score in scores) for called in range(count))
        for true in range(count)
    )
    percent = tuple(tuple(100 * cell / max(1, sum(row)) for cell in row) for row in counts)
    errors = [
        (true, called, percent[true][called])
        for true in range(count)
        for called in range(count)
        if true != called and counts[true][called]
    ]
    errors.sort(key=lambda error: (-error[2], error[0], error[1]))
    return Confusion(
        condition=condition.label,
        n=len(scores),
        accuracy=fmean(score.accuracy for score in scores),
        counts=counts,
        percent=percent,
        pairs=tuple(errors[:MOST_PAIRS]),
    )


def _metrics(metrics: Any, split: str) -> SplitMetrics | None:
    found: SplitMetrics | None = metrics.get(split)
    return found if found is not None and found.confusion else None
