"""The difference of two conditions' confusion matrices: which errors one makes more often than the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchkit import NothingToDraw, PluginError, card
from benchkit.results import SPLITS, StudyResults
from benchkit_figures.confusion_matrix import Confusion, ConfusionMatrix
from benchkit_figures.confusion_panels import PIXEL_CLASSES
from benchkit_figures.difference_panels import changed_pairs, heatmap
from benchkit_figures.epoch_series import repeats_words

MOST_PAIRS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedPair:
    """A cell: percent of the true class in each condition, and the first minus the second in percentage points."""

    true: str
    called: str
    first: float
    second: float
    difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceData:
    """The difference of two conditions over `n_first` and `n_second` repeats, in percentage points of each true class.

    `pairs` are the cells that changed most, greatest change first.
    """

    split: str
    first: str
    second: str
    n_first: int
    n_second: int
    accuracy_first: float
    accuracy_second: float
    classes: tuple[str, ...]
    difference: tuple[tuple[float, ...], ...]
    pairs: tuple[ChangedPair, ...]


@card(
    title="Difference of confusion",
    summary="Which classes one condition takes for others more often than another does, in percentage points.",
    choices={"split": SPLITS},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionDifference:
    """The confusion of `first` minus that of `second` on `split` (default: the best minus the worst condition)."""

    first: str = ""
    second: str = ""
    split: str = "test"

    def data(self, results: StudyResults) -> DifferenceData:
        """Return the difference of two conditions; raise `PluginError` for labels without a finished repeat."""
        if self.split not in SPLITS:
            raise _wrong([f"split = {self.split!r}: expected {', '.join(SPLITS)}"])
        given = ConfusionMatrix(split=self.split).data(results)
        labels = [matrix.condition for matrix in given.matrices]
        named = {"first": self.first, "second": self.second}
        unknown = [f"{name} = {label!r}" for name, label in named.items() if label and label not in labels]
        if unknown:
            raise _wrong([f"{words}: expected one of {', '.join(labels)}" for words in unknown])
        if len(labels) < 2:
            raise NothingToDraw(f"only one condition, {labels[0]}, has finished: nothing to compare it with")
        first = self.first or next(label for label in labels if label != self.second)
        second = self.second or next(label for label in labels[::-1] if label != first)
        if first == second:
            raise _wrong([f"first and second are both {first!r}"])
        return _difference(self.split, given.classes, given.matrix(first), given.matrix(second))

    def draw(self, data: DifferenceData) -> Any:
        """Return a heatmap, or above 50 classes the pairs that changed most."""
        return changed_pairs(data) if len(data.classes) > PIXEL_CLASSES else heatmap(data)

    def caption(self, data: DifferenceData) -> str:
        """Return what is subtracted from what, over how many repeats, and how to read the colours."""
        n = repeats_words((data.n_first, data.n_second))
        parts = [
            f"Confusion of {data.first} ({100 * data.accuracy_first:.2f} % correct) minus that of {data.second} "
            f"({100 * data.accuracy_second:.2f} %) on {data.split} images, in percentage points of each true class, "
            f"summed over {n}."
        ]
        if not self.first and not self.second:
            parts[0] = f"{parts[0][:-1]}: the best and the worst condition."
        if len(data.classes) > PIXEL_CLASSES:
            parts.append(f"The {len(data.pairs)} pairs of classes that changed most, of {len(data.classes)} classes.")
        parts.append(
            f"Blue: more often in {data.first}; orange: more often in {data.second}. On the diagonal, blue means that "
            f"{data.first} is right more often. No interval is drawn."
        )
        return " ".join(parts)

    def alt_text(self, data: DifferenceData) -> str:
        """Return one sentence with the cell that changed most."""
        if not data.pairs:
            return f"The confusion of {data.first} and {data.second} is the same on all {len(data.classes)} classes."
        pair = data.pairs[0]
        words = "rightly" if pair.true == pair.called else f"for {pair.called}"
        verb = "names" if pair.true == pair.called else "takes"
        return (
            f"The greatest difference: {data.first} {verb} {pair.first:.1f} % of {pair.true} {words}, {data.second} "
            f"{pair.second:.1f} %."
        )


def _wrong(problems: list[str]) -> PluginError:
    return PluginError("the figure confusion-difference was given wrong options", problems=problems)


def _difference(split: str, classes: tuple[str, ...], first: Confusion, second: Confusion) -> DifferenceData:
    cells = tuple(
        tuple(one - other for one, other in zip(row, other_row, strict=True))
        for row, other_row in zip(first.percent, second.percent, strict=True)
    )
    pairs = [
        ChangedPair(
            true=classes[true],
            called=classes[called],
            first=first.percent[true][called],
            second=second.percent[true][called],
            difference=value,
        )
        for true, row in enumerate(cells)
        for called, value in enumerate(row)
        if value
    ]
    pairs.sort(key=lambda pair: -abs(pair.difference))
    return DifferenceData(
        split=split,
        first=first.condition,
        second=second.condition,
        n_first=first.n,
        n_second=second.n,
        accuracy_first=first.accuracy,
        accuracy_second=second.accuracy,
        classes=classes,
        difference=cells,
        pairs=tuple(pairs[:MOST_PAIRS]),
    )
