"""The short answer of a report, and its leader seen by other metrics: balanced accuracy, loss, calibration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchkit.analysis.candidates import candidates
from benchkit.analysis.degenerate import ClassBalance
from benchkit.analysis.estimates import Estimate, compared, estimate_of
from benchkit.analysis.interim import planned_looks
from benchkit.analysis.ranking import Ranking, winner_sentences
from benchkit.analysis.sequential import plan_for, standing, standing_words, until_decided_command
from benchkit.analysis.trials import TestReads
from benchkit.analysis.wording import (
    Finding,
    amount,
    count,
    listing,
    lower_is_better,
    measured,
    metric_words,
    number,
    p_words,
    quoted,
)
from benchkit.duration import duration
from benchkit.metrics import metric_names
from benchkit.results import StudyResults
from benchkit.study.study import UNTIL_DECIDED


def short_answer(
    results: StudyResults, ranking: Ranking, reads: TestReads, findings: Sequence[Finding], beside: str = ""
) -> tuple[str, ...]:
    """Return up to three sentences on who is best, what to distrust or what else was found, and what would decide it.

    `beside` is a sentence that belongs to the leader's: its balanced accuracy, of unbalanced classes.

    Distrusted is the first caution, else told is what a search gave, else that nothing is missing; of a smoke test it
    is first. An undecided study's answer ends with the command that decides it.
    """
    warnings = [finding.sentence for finding in findings if finding.tone == "warning"]
    complete = f"Nothing planned is missing: {_trials_words(results, reads)}."
    searched = [finding.sentence for finding in findings if finding.rule in ("winner-bias", "search")]
    closing = (warnings or searched[::-1] or [complete])[0]
    if results.study.smoke:
        return (closing, *winner_sentences(ranking))
    further = [deciding_words(results)] if ranking.rivals else []
    leader, *others = winner_sentences(ranking)
    return (f"{leader} {beside}".rstrip(), *others, closing, *further)


def deciding_words(results: StudyResults) -> str:
    """Return how an undecided study is decided: the command and what its next look takes, or how far its looks are."""
    planned = planned_looks(results.decisions)
    if planned:
        words = standing_words(standing(results, planned))
        return f"{words[:1].upper()}{words[1:]}."
    state = standing(results, plan_for(results, results.study.most or UNTIL_DECIDED))
    command = f"To decide: {until_decided_command(results)}"
    if state.next is None:
        return command
    time = "" if state.seconds is None else f", about {duration(state.seconds, whole=True)} one after another"
    return f"{command} (next at {count(state.next.n, 'repeat')}: {count(state.missing, 'trial')}{time})"


def _trials_words(results: StudyResults, reads: TestReads) -> str:
    states = Counter(trial.state for trial in results.trials)
    parts = [f"{states[state]} {state}" for state in ("done", "pruned", "diverged", "failed") if states[state]]
    words = f"{count(len(results.trials), 'trial')} ({', '.join(parts)})"
    if reads.trials and not reads.repeated:
        return f"{words}, and the test images were read once by each of {count(reads.trials, 'scored model')}"
    return words


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


WEIGHTY = ("accuracy", "loss")
"""Metrics in which to be behind is a caution: a study is mostly read for one of them."""

OTHERS = (*WEIGHTY, "calibration_error")
"""What is looked at beside the main metric: how often models are right, how likely they call what is, how sure they
are. Other scores are the accuracy over again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BehindElsewhere:
    """The leader by the main metric, and the condition with the best mean of `metric`, by which the leader is worse.

    `p` is the leader's smallest one-sided p against another condition by Holm's correction, below `alpha`.
    """

    metric: str
    leader: str
    leader_mean: float
    better: str
    better_mean: float
    n: int
    p: float
    alpha: float


def behind_elsewhere(results: StudyResults, ranking: Ranking) -> tuple[BehindElsewhere, ...]:
    """Return the metrics of the main metric's split by which its leader is not among the candidates."""
    split, _, main = ranking.metric.partition(".")
    best = ranking.best
    if best is None or main not in metric_names():
        return ()
    found = []
    for name in OTHERS:
        if name == main:
            continue
        others = candidates(results, f"{split}.{name}")
        leader = next((one for one in others.left if one.key == best.key), None)
        if leader is not None and leader.p is not None:
            top = others.conditions[0]
            found.append(
                BehindElsewhere(
                    metric=others.metric,
                    leader=leader.label,
                    leader_mean=leader.mean,
                    better=top.label,
                    better_mean=top.mean,
                    n=leader.n,
                    p=leader.p,
                    alpha=others.alpha,
                )
            )
    return tuple(found)


def behind_elsewhere_findings(rows: Sequence[BehindElsewhere], metric: str) -> list[Finding]:
    """Say by which other metric the leader is clearly worse, and by how much."""
    return [
        Finding(
            rule="other-metric",
            tone="warning" if row.metric.rpartition(".")[2] in WEIGHTY else "note",
            sentence=f"{quoted(row.leader)} is first by {metric_words(metric)}, but clearly worse by "
            f"{metric_words(row.metric)}: {measured(row.metric, row.leader_mean)}, "
            f"{amount(row.metric, row.leader_mean - row.better_mean)} "
            f"{'higher' if lower_is_better(row.metric) else 'lower'} than {quoted(row.better)}.",
            evidence=f"{count(row.n, 'repeat')}; one-sided Welch t test with shrunk variances, p "
            f"{p_words(row.p)} by Holm's correction, against {number(row.alpha)}.",
            about=(row.leader, row.better),
        )
        for row in rows
    ]
