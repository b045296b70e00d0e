"""Conditions that say nothing: models that answer one class for ever, and conditions that are one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchkit.analysis.estimates import compared, done_repeats
from benchkit.analysis.wording import Finding, count, listing, measured, names, quoted
from benchkit.results import SplitMetrics, StudyResults, Trial

if TYPE_CHECKING:
    from benchkit.plan import Condition

Marks = dict[int, object]
"""What a condition's done repeats gave, by repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneClass:
    """A condition whose models call every image of a split one class: `repeats` of its `of` done repeats.

    `called` are the classes that they name, `accuracy` is the mean of these repeats.
    """

    key: str
    label: str
    split: str
    called: tuple[str, ...]
    accuracy: float
    repeats: int
    of: int

    @property
    def always(self) -> bool:
        """Return whether no repeat tells classes apart."""
        return self.repeats == self.of


@dataclass(frozen=True, slots=True, kw_only=True)
class IdenticalConditions:
    """Conditions with the same number of parameters and, in all repeats that they share, exactly the same scores.

    `factors` are those in whose levels they differ, `repeats` how many repeats they share.
    """

    labels: tuple[str, ...]
    factors: tuple[str, ...]
    repeats: int


def one_class_conditions(results: StudyResults) -> tuple[OneClass, ...]:
    """Return the conditions of which a done repeat answers one class for ever, on test images, else on val images."""
    rows = (_one_class(results, condition) for condition in compared(results))
    return tuple(row for row in rows if row is not None)


def _one_class(results: StudyResults, condition: Condition) -> OneClass | None:
    trials = done_repeats(results, condition).values()
    split = "test" if any(trial.outcome and "test" in trial.outcome.metrics for trial in trials) else "val"
    scored = [trial.outcome.metrics[split] for trial in trials if trial.outcome and split in trial.outcome.metrics]  # type: ignore[index]
    answers = [(metrics, only) for metrics in scored if (only := only_class(metrics)) is not None]
    if not answers:
        return None
    class_names = results.class_names or tuple(map(str, range(len(answers[0][0].confusion))))
    return OneClass(
        key=condition.key,
        label=condition.label,
        split=split,
        called=tuple(dict.fromkeys(class_names[only] for _, only in answers)),
        accuracy=sum(metrics.accuracy for metrics, _ in answers) / len(answers),
        repeats=len(answers),
        of=len(scored),
    )


def only_class(metrics: SplitMetrics) -> int | None:
    """Return the class that a model calls all images of a split, None where it calls several, or all are of one."""
    called = [sum(column) for column in zip(*metrics.confusion, strict=True)]
    present = sum(any(row) for row in metrics.confusion)
    named = [label for label, images in enumerate(called) if images]
    return named[0] if len(named) == 1 and present > 1 else None


def identical_conditions(results: StudyResults) -> tuple[IdenticalConditions, ...]:
    """Return the groups of conditions that gave exactly the same scores in every repeat that they share."""
    groups: list[list[tuple[Condition, Marks]]] = []
    by_mark: dict[tuple[int, object], list[tuple[Condition, Marks]]] = {}
    for condition in compared(results):
        marks = {index: _mark(trial) for index, trial in done_repeats(results, condition).items() if trial.outcome}
        alike = next((by_mark[item] for item in marks.items() if item in by_mark), None)
        if alike is None or any(alike[0][1].get(index, mark) != mark for index, mark in marks.items()):
            alike = []
            groups.append(alike)
        alike.append((condition, marks))
        for item in marks.items():
            by_mark.setdefault(item, alike)
    return tuple(_identical(group) for group in groups if len(group) > 1)


def _mark(trial: Trial) -> object:
    """Return what two trainings of one model from the same random numbers have in common."""
    assert trial.outcome is not None
    cost, metrics = trial.outcome.cost, trial.outcome.metrics
    scored = [(split, metrics[split]) for split in sorted(metrics)]
    return cost.parameters if cost else None, tuple((s, m.loss, m.accuracy, m.confusion) for s, m in scored)


def _identical(group: Sequence[tuple[Condition, Marks]]) -> IdenticalConditions:
    conditions = [condition for condition, _ in group]
    paths = dict.fromkeys(path for condition in conditions for path in condition.levels)
    return IdenticalConditions(
        labels=tuple(condition.label for condition in conditions),
        factors=tuple(path for path in paths if len({condition.levels.get(path) for condition in conditions}) > 1),
        repeats=min(len(group[0][1].keys() & marks.keys()) for _, marks in group[1:]),
    )


def one_class_findings(rows: Sequence[OneClass]) -> list[Finding]:
    """Say which conditions name one class whatever the image is: their accuracy is that class's share."""
    return [
        Finding(
            rule="one-class",
            tone="warning",
            sentence=f"{quoted(row.label)} has learnt nothing: its model calls every {row.split} image "
            f"{listing([quoted(name) for name in row.called])} in {_which(row)}.",
            evidence=f"Its accuracy, {measured('accuracy', row.accuracy)}, is the share of "
            f"{'that class' if len(row.called) == 1 else 'those classes'} among the images.",
            about=(row.label,),
        )
        for row in rows
    ]


def _which(row: OneClass) -> str:
    return count(row.repeats, "repeat") if row.always else f"{row.repeats} of {count(row.of, 'repeat')}"


def identical_findings(groups: Sequence[IdenticalConditions]) -> list[Finding]:
    """Say which conditions are one and the same model, so that comparing them compares nothing."""
    return [
        Finding(
            rule="identical-conditions",
            tone="warning",
            sentence=f"{names(group.labels)} gave exactly the same results"
            f"{f': {listing(group.factors)} has no effect on them' if group.factors else ''}.",
            evidence=f"Parameters, losses and every confusion are equal to the last digit in "
            f"{count(group.repeats, 'repeat')} that they share: the same model was trained under several names.",
            about=group.labels,
        )
        for group in groups
    ]
