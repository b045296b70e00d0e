"""Scores that say little: models of one answer, conditions that are one model, uneven classes, images seen before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchkit.analysis.estimates import compared, done_repeats, done_trials
from benchkit.analysis.wording import Finding, count, listing, measured, names, quoted
from benchkit.metrics import UNBALANCED
from benchkit.results import SPLITS, SplitMetrics, StudyResults, Trial

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantAnswer:
    """The accuracy on a split of naming always the class that is most frequent in train.

    `label` is that class, "" where all have the same number of images.
    """

    split: str
    label: str
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassBalance:
    """The smallest and the largest class of train with their images, and what naming one class always would score.

    Where nothing tells the classes of train, they are those of the first of `constant`.
    """

    least: tuple[str, int]
    most: tuple[str, int]
    split: str
    constant: tuple[ConstantAnswer, ...]

    @property
    def unbalanced(self) -> bool:
        """Return whether the largest class has three times the images of the smallest, or more."""
        return self.most[1] >= UNBALANCED * self.least[1]


def class_balance(results: StudyResults) -> ClassBalance | None:
    """Return how even the classes of a study's data are; None without a scored trial, and of several data sets."""
    facts = results.data
    if len({one.get("fingerprint") for one in facts.get("sets", ())}) > 1:
        return None
    scored: dict[str, list[int]] = {}
    for trial in done_trials(results):
        for split, metrics in trial.outcome.metrics.items() if trial.outcome else ():
            scored.setdefault(split, [sum(row) for row in metrics.confusion])
        if "test" in scored:
            break
    trained = list(facts.get("class_counts", {}).get("train", ()))
    of, counts = next(
        ((split, each) for split, each in (("train", trained), *((s, scored.get(s)) for s in SPLITS[::-1])) if each),
        ("", []),
    )
    if not scored or any(len(each) != len(counts) for each in scored.values()):
        return None
    named = results.class_names if len(results.class_names) == len(counts) else tuple(map(str, range(len(counts))))
    low, high = min(counts), max(counts)
    largest = counts.index(high)
    constant = tuple(
        ConstantAnswer(
            split=split,
            label="" if low == high and len(set(scored[split])) == 1 else named[largest],
            accuracy=scored[split][largest] / sum(scored[split]),
        )
        for split in SPLITS[::-1]
        if sum(scored.get(split, ()))
    )
    return ClassBalance(least=(named[counts.index(low)], low), most=(named[largest], high), split=of, constant=constant)


def constant_words(balance: ClassBalance | None, metric: str) -> str:
    """Return the sentence on naming one class always, after a space; nothing where it is not known, or of a loss."""
    for row in balance.constant if balance else ():
        if metric == f"{row.split}.accuracy":
            which = f"the most frequent class, {quoted(row.label)}," if row.label else "one class"
            return f" Naming {which} always would score {measured(metric, row.accuracy)}."
    return ""


def balance_findings(balance: ClassBalance | None) -> Sequence[Finding]:
    """Say that classes are unbalanced, and what naming the largest always would score."""
    if balance is None or not balance.unbalanced:
        return ()
    (least, few), (most, many) = balance.least, balance.most
    scores = balance.constant[0]
    return (
        Finding(
            rule="unbalanced-classes",
            tone="warning",
            sentence=f"Classes are unbalanced: {quoted(most)} has {many:,} {balance.split} images, {quoted(least)} has "
            f"{few:,}; naming {quoted(scores.label or most)} always would score "
            f"{measured(f'{scores.split}.accuracy', scores.accuracy)} on {scores.split}.",
            evidence="Accuracy weighs classes by their images. Macro F1 weighs them all alike.",
            about=(),
        ),
    )


def repeated_in(results: StudyResults) -> dict[str, int]:
    """Return by data set how many images of val and test an earlier split has, too, where its preparation found any."""
    sets = results.data.get("sets") or (results.data,)
    return {str(one.get("name", "")): int(one["repeated"]) for one in sets if one.get("repeated")}


def repeated_findings(repeated: Mapping[str, int]) -> Sequence[Finding]:
    """Say of each data set how many images several of its splits have."""
    return [
        Finding(
            rule="repeated-images",
            tone="warning",
            sentence=f"{number:,} val or test {'image' if number == 1 else 'images'} of {quoted(name)} "
            f"{'is' if number == 1 else 'are'} also in an earlier split, pixel for pixel.",
            evidence="A model may know such an image by heart: its score there is none on new images.",
            about=(),
        )
        for name, number in repeated.items()
    ]
