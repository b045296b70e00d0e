"""How even the classes are, and what naming one of them always would score: what every accuracy stands beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchkit.analysis.estimates import done_trials
from benchkit.analysis.wording import Finding, measured, quoted
from benchkit.data.manifest import UNBALANCED
from benchkit.results import SPLITS, StudyResults


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
