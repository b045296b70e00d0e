"""Which classes a condition finds hard, and what it takes them for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchkit.analysis.readings import done_repeats
from benchkit.results import SplitName, StudyResults

if TYPE_CHECKING:
    import numpy as np

    from benchkit.plan import Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """How often images of class `true` are called `called`: `count` of `of` images, summed over repeats."""

    true: str
    called: str
    count: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassReport:
    """A condition's classes over its done repeats: recall by class (None without images), and the worst confusions.

    `recalls` are shares of correctly named images, in label order. `confusions` are the most frequent ones first.
    """

    key: str
    label: str
    split: SplitName
    repeats: int
    names: tuple[str, ...]
    recalls: tuple[float | None, ...]
    confusions: tuple[Confusion, ...]

    @property
    def weakest(self) -> tuple[str, float] | None:
        """Return the name and recall of the class with the least recall."""
        known = [(name, recall) for name, recall in zip(self.names, self.recalls, strict=True) if recall is not None]
        return min(known, key=lambda pair: pair[1]) if known else None


def class_report(results: StudyResults, condition: Condition, most: int = 5) -> ClassReport | None:
    """Return recalls and the `most` frequent confusions of a condition on test (on val where test was not scored)."""
    trials = done_repeats(results, condition).values()
    for split in ("test", "val"):
        found = [t.outcome.metrics[split].confusion for t in trials if t.outcome and split in t.outcome.metrics]
        if found and found[0]:
            return _report(results, condition, split, found, most)
    return None


def _report(
    results: StudyResults,
    condition: Condition,
    split: SplitName,
    matrices: list[tuple[tuple[int, ...], ...]],
    most: int,
) -> ClassReport:
    import numpy as np

    total: np.ndarray = np.sum([np.asarray(matrix, dtype=np.int64) for matrix in matrices], axis=0)
    names = results.class_names or tuple(str(i) for i in range(len(total)))
    rows = total.sum(axis=1)
    recalls = tuple(float(total[i, i] / rows[i]) if rows[i] else None for i in range(len(total)))
    off = total - np.diag(np.diag(total))
    worst = np.argsort(off, axis=None, kind="stable")[::-1][:most]
    confusions = tuple(
        Confusion(true=names[i], called=names[j], count=int(off[i, j]), of=int(rows[i]))
        for i, j in (divmod(int(flat), len(total)) for flat in worst)
        if off[i, j] > 0
    )
    return ClassReport(
        key=condition.key,
        label=condition.label,
        split=split,
        repeats=len(matrices),
        names=tuple(names),
        recalls=recalls,
        confusions=confusions,
    )
