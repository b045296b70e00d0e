"""Unbalanced classes: what weighing them all alike makes of the order that the accuracy gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchkit.analysis.balance import ClassBalance
from benchkit.analysis.estimates import Estimate, compared, estimate_of
from benchkit.analysis.ranking import Ranking
from benchkit.analysis.wording import Finding, count, listing, measured, quoted
from benchkit.results import StudyResults


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancedRanking:
    """The balanced accuracy beside a ranking by accuracy: its metric, estimates by condition key, and both orders.

    The orders hold the labels of the conditions that have both, best mean first.
    """

    metric: str
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    by_accuracy: tuple[str, ...] = ()
    by_balanced: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Return whether the orders are different."""
        return self.by_accuracy != self.by_balanced


def balanced_ranking(results: StudyResults, ranking: Ranking, balance: ClassBalance | None) -> BalancedRanking | None:
    """Return the balanced accuracies beside a ranking by accuracy of unbalanced classes; None for any other one."""
    split, _, name = ranking.metric.rpartition(".")
    if balance is None or not balance.unbalanced or name != "accuracy":
        return None
    metric = f"{split}.balanced_accuracy"
    found = {condition.key: estimate_of(results, condition, metric) for condition in compared(results)}
    estimates = {key: estimate for key, estimate in found.items() if estimate is not None}
    rows = [row for row in ranking.rows if row.key in estimates]
    if not rows:
        return None
    return BalancedRanking(
        metric=metric,
        estimates=estimates,
        by_accuracy=tuple(row.label for row in rows),
        by_balanced=tuple(row.label for row in sorted(rows, key=lambda row: -estimates[row.key].mean)),
    )


def balanced_words(balanced: BalancedRanking | None, ranking: Ranking) -> str:
    """Return the sentence with the leader's balanced accuracy, nothing where none stands beside the accuracy."""
    leader = balanced.estimates.get(ranking.best.key) if balanced and ranking.best else None
    if leader is None or balanced is None:
        return ""
    return f"Its balanced accuracy, which weighs all classes alike, is {measured(balanced.metric, leader.mean)}."


def balanced_findings(balanced: BalancedRanking | None, ranking: Ranking) -> Sequence[Finding]:
    """Say that weighing all classes alike orders the conditions otherwise, and who is first then."""
    if balanced is None or not balanced.differs:
        return ()
    keys = {row.label: row.key for row in ranking.rows}
    first, usual = balanced.by_balanced[0], balanced.by_accuracy[0]
    means = {label: balanced.estimates[keys[label]] for label in (first, usual)}
    if first != usual:
        words = (
            f"By balanced accuracy {quoted(first)} is first with {measured(balanced.metric, means[first].mean)}, and "
            f"{quoted(usual)}, first by accuracy, has {measured(balanced.metric, means[usual].mean)}."
        )
    else:
        order = listing([quoted(label) for label in balanced.by_balanced])
        words = f"By balanced accuracy the order is another one: {order}."
    return (
        Finding(
            rule="balanced-order",
            tone="warning" if first != usual else "note",
            sentence=words,
            evidence=f"Means over {count(means[first].n, 'repeat')}; which comes first is no test. Classes are "
            "unbalanced: the accuracy weighs them by their images, the balanced accuracy all alike.",
            about=(first, usual) if first != usual else (first,),
        ),
    )
