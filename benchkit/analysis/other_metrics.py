"""Where the best condition by the study's metric is clearly behind in another one: the loss against the accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchkit.analysis.candidates import candidates
from benchkit.analysis.ranking import Ranking
from benchkit.analysis.wording import (
    Finding,
    amount,
    count,
    lower_is_better,
    measured,
    metric_words,
    number,
    p_words,
    quoted,
)
from benchkit.metrics import metric_names
from benchkit.results import StudyResults

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
