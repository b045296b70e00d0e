"""Which condition is best, which others may be, and which are clearly worse: in numbers, and as the short answer.

The leader is seen by other metrics as well: balanced accuracy, loss, calibration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import median
from typing import Literal

from benchkit.analysis.candidates import (
    Candidate,
    candidates,
    candidates_of,
    plan_for,
    standing,
    standing_words,
    until_decided_command,
)
from benchkit.analysis.comparisons import (
    ALPHA,
    PairedComparison,
    holm,
    minimum_detectable_difference,
    paired_by_repeat,
    superiority,
)
from benchkit.analysis.estimates import CONFIDENCE, ClassBalance, Estimate, compared, estimate_of, values_by_repeat
from benchkit.analysis.trials import Coverage, TestReads, coverage_words
from benchkit.analysis.wording import (
    TIE,
    Finding,
    amount,
    bare,
    count,
    difference_unit,
    duration,
    listing,
    lower_is_better,
    measured,
    metric_words,
    names,
    number,
    p_words,
    quoted,
    setting,
    span,
)
from benchkit.metrics import metric_names
from benchkit.plan import Condition, planned_looks
from benchkit.results import StudyResults
from benchkit.study.study import UNTIL_DECIDED

Verdict = Literal["best", "may be best", "worse", "untested", "one class"]
"""best: the best mean; may be best: no other is better beyond chance; worse: another one is; untested: one repeat; one
class: no repeat tells classes apart, so there is nothing to compare."""


OPEN: tuple[Verdict, ...] = ("best", "may be best", "untested")
"""The verdicts on conditions that may be the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two ranked conditions compared by repeat, `first` ranked before `second`; differences are first minus second.

    `p_adjusted` is Holm's over all pairs of the table. `detectable` is the smallest difference that these repeats
    would find with 80 % power at the level that Holm's correction asks of its first step: alpha over the number of
    pairs. `superiority` is the share of pairs of runs, one of each, in which the first does better.
    """

    first: str
    second: str
    comparison: PairedComparison
    p_adjusted: float | None
    detectable: float | None
    superiority: float | None = None

    @property
    def decided(self) -> bool:
        """Return whether the two are told apart at the report's significance level."""
        return self.p_adjusted is not None and self.p_adjusted < ALPHA


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedCondition:
    """A condition's place: its estimate, its verdict, and what that rests on (`candidate`, None where not tested).

    `pair` compares it with the best one by repeat; None for the best itself. `chosen` are in words the settings that a
    search chose for it among named ones, such as a norm.
    """

    rank: int
    key: str
    label: str
    estimate: Estimate
    verdict: Verdict
    pair: Pair | None
    candidate: Candidate | None = None
    chosen: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Conditions by the mean of `metric` over repeats, best first, with every pair and those without a number.

    `alpha` is the chance, at most, with which the condition that is truly best is called worse.
    """

    metric: str
    rows: tuple[RankedCondition, ...]
    pairs: tuple[Pair, ...]
    without: tuple[str, ...]
    alpha: float = 0.0

    @property
    def best(self) -> RankedCondition | None:
        """Return the condition with the best mean, or None when there is none."""
        return self.rows[0] if self.rows else None

    @property
    def rivals(self) -> tuple[RankedCondition, ...]:
        """Return the conditions that may be the best beside the one with the best mean."""
        return tuple(row for row in self.rows[1:] if row.verdict in OPEN)

    @property
    def worse(self) -> tuple[RankedCondition, ...]:
        """Return the conditions that are worse than another one beyond chance."""
        return tuple(row for row in self.rows if row.verdict == "worse")

    @property
    def left_before(self) -> tuple[RankedCondition, ...]:
        """Return the worse conditions that left at an earlier look: all that is known now need not decide on them."""
        return tuple(row for row in self.worse if row.candidate and not (row.candidate.p or 0.0) < self.alpha)

    def told_apart(self, one: str, other: str) -> bool:
        """Return whether two conditions, by their keys, differ beyond chance: as a pair, or as the best and a worse."""
        is_pair = any({pair.first, pair.second} == {one, other} and pair.decided for pair in self.pairs)
        worse = {row.key for row in self.worse}
        is_tested = self.best is not None and self.best.candidate is not None and self.best.candidate.p is not None
        return is_pair or (is_tested and self.rows[0].key in (one, other) and bool(worse & {one, other}))

    @property
    def decided(self) -> bool:
        """Return whether no other condition than that of the best mean may be the best."""
        return len(self.rows) > 1 and not self.rivals


def rank(results: StudyResults, metric: str) -> Ranking:
    """Return the conditions ranked by the mean of `metric` over their done repeats.

    Verdicts are those of the set of candidates. Beside it every pair is compared by a paired t test over the repeats
    both have, and Holm's correction spans all pairs, because the data choose which of them are looked at.
    """
    found = candidates_of(results, metric)
    conditions = compared(results)
    means = [(condition, estimate_of(results, condition, metric)) for condition in conditions]
    ranked = [(condition, mean) for condition, mean in means if mean is not None]
    ranked.sort(key=lambda row: (1 if lower_is_better(metric) else -1) * row[1].mean)
    values = {condition.key: values_by_repeat(results, condition, metric) for condition, _ in ranked}
    pairs = _pairs(values, lower=lower_is_better(metric), resampled=results.resampled)
    by_key = {one.key: one for one in found.conditions}
    rows = []
    for position, (condition, mean) in enumerate(ranked, 1):
        candidate = by_key.get(condition.key)
        rows.append(
            RankedCondition(
                rank=position,
                key=condition.key,
                label=condition.label,
                estimate=mean,
                verdict="best" if position == 1 else VERDICTS[candidate.standing if candidate else "untested"],
                pair=pairs.get((ranked[0][0].key, condition.key)),
                candidate=candidate,
                chosen=_chosen(results, condition),
            )
        )
    return Ranking(
        metric=metric,
        rows=tuple(rows),
        pairs=tuple(pairs.values()),
        without=tuple(condition.label for condition, mean in means if mean is None),
        alpha=found.alpha,
    )


VERDICTS: Mapping[str, Verdict] = {
    "kept": "may be best", "left": "worse", "untested": "untested", "one class": "one class"
}  # fmt: skip
"""By the standing among candidates, the verdict on a condition that has not the best mean."""


def _chosen(results: StudyResults, condition: Condition) -> str:
    """Return what a search chose for a condition among named settings; a rate or a strength answers no question."""
    space = results.study.search.space if results.study.search else ()
    named = [one.path for one in space if any(isinstance(choice, str) for choice in one.choices)]
    return listing([f"{path} = {setting(condition.chosen[path])}" for path in named if path in condition.chosen])


def _pairs(values: Mapping[str, Mapping[int, float]], *, lower: bool, resampled: float) -> dict[tuple[str, str], Pair]:
    """Return the comparison of every two conditions, best first, that share a repeat, corrected as one family."""
    comparisons: dict[tuple[str, str], PairedComparison] = {}
    for first, second in combinations(values, 2):
        comparison = paired_by_repeat(values[first], values[second], resampled)
        if comparison is not None:
            comparisons[first, second] = comparison
    tested = [pair for pair, comparison in comparisons.items() if comparison.p is not None]
    adjusted = dict(zip(tested, holm([comparisons[pair].p or 0.0 for pair in tested]), strict=True))
    alpha = ALPHA / max(1, len(tested))
    return {
        (first, second): Pair(
            first=first,
            second=second,
            comparison=comparison,
            p_adjusted=adjusted.get((first, second)),
            detectable=minimum_detectable_difference(
                0.0 if comparison.p is None else comparison.difference.std or 0.0,
                comparison.n,
                alpha,
                resampled=resampled,
            ),
            superiority=superiority(tuple(values[first].values()), tuple(values[second].values()), lower=lower),
        )
        for (first, second), comparison in comparisons.items()
    }


def better_first(pair: Pair, metric: str) -> Pair:
    """Return a pair with the better one in the repeats of both first; means over all may rank them the other way."""
    ahead = -pair.comparison.difference.mean if lower_is_better(metric) else pair.comparison.difference.mean
    if ahead >= 0:
        return pair
    share = None if pair.superiority is None else 1 - pair.superiority
    turned = pair.comparison.turned
    return replace(pair, first=pair.second, second=pair.first, comparison=turned, superiority=share)


def winner_finding(ranking: Ranking, coverage: Sequence[Coverage]) -> Finding:
    """Say which condition leads, which may be as good and which are clearly worse, or that nothing can be said yet."""
    return Finding(
        rule="winner",
        tone="answer",
        sentence=" ".join(winner_sentences(ranking)),
        evidence=basis(ranking, coverage),
        about=tuple(row.label for row in (*ranking.rows[:1], *ranking.rivals)),
    )


def winner_sentences(ranking: Ranking) -> tuple[str, ...]:
    """Return the answer in up to three sentences: the leader, who may be as good, and who is clearly worse."""
    if ranking.best is None:
        return (f"There is no answer: no repeat has a {metric_words(ranking.metric)}.",)
    return (
        _leader_words(ranking, ranking.best),
        *([_rival_words(ranking)] if ranking.rivals else []),
        *([_worse_words(ranking)] if ranking.worse else []),
    )


def _leader_words(ranking: Ranking, best: RankedCondition) -> str:
    label, value = quoted(best.label), measured(ranking.metric, best.estimate.mean)
    if len(ranking.rows) == 1:
        return (
            f"{label} reaches a {metric_words(ranking.metric)} of {value}; it is the only condition with results, so "
            "there is nothing to compare it with."
        )
    label += f" ({best.chosen})" if best.chosen else ""
    return f"{label} {'is best' if ranking.decided else 'leads'} with a {metric_words(ranking.metric)} of {value}."


def _rival_words(ranking: Ranking) -> str:
    """Return who may be as good as the leader, with gaps, and how many runs leave that open."""
    rivals, metric = ranking.rivals, ranking.metric
    behind = [_behind(ranking, row) for row in rivals]
    worse = f"{difference_unit(metric)} {_lower(metric)}".strip()
    gaps = f"{listing([bare(metric, gap) for gap in behind])} {worse}"
    if len(behind) > 6:
        gaps = f"{bare(metric, min(behind))} to {bare(metric, max(behind))} {worse}"
    elif min(behind) <= TIE:
        gaps = listing([f"{bare(metric, gap)} {worse}" if gap > TIE else "the same mean" for gap in behind])
    each = {row.estimate.n for row in (*ranking.rows[:1], *rivals)}
    runs = count(min(each), "run") if len(each) == 1 else f"{min(each)} to {max(each)} runs"
    cannot = "each cannot say" if max(each) > 1 else "each says nothing of the spread between random seeds"
    return f"{names([row.label for row in rivals])} ({gaps}) may be as good: {runs} {cannot}."


def _worse_words(ranking: Ranking) -> str:
    """Return who is clearly worse, with the range of the gaps to the leader."""
    worse, metric = ranking.worse, ranking.metric
    gaps = sorted(_behind(ranking, row) for row in worse)
    by = amount(metric, gaps[0])
    if bare(metric, gaps[0]) != bare(metric, gaps[-1]):
        by = f"{bare(metric, gaps[0])} to {amount(metric, gaps[-1])}"
    who = "All others" if len(worse) > 6 and not ranking.rivals else names([row.label for row in worse])
    return f"{who} {'is' if len(worse) == 1 else 'are'} clearly worse, by {by}."


def _behind(ranking: Ranking, row: RankedCondition) -> float:
    """Return how far a condition is behind the best one: by the repeats that both have, as the table has it.

    By the means of all their repeats where those say another direction, or none are in common.
    """
    paired = row.pair.comparison.difference.mean if row.pair else 0.0
    behind = -paired if lower_is_better(ranking.metric) else paired
    return behind if behind > 0 else abs(ranking.rows[0].estimate.mean - row.estimate.mean)


def _lower(metric: str) -> str:
    return "higher" if lower_is_better(metric) else "lower"


def basis(ranking: Ranking, coverage: Sequence[Coverage]) -> str:
    """Return the statistics that the answer rests on, in one line."""
    if ranking.best is None:
        return f"{coverage_words(coverage)}."
    interval = interval_words(ranking.metric, ranking.best)
    tested = [row for row in ranking.rows if row.candidate is not None and row.candidate.p is not None]
    if len(tested) < 2:
        return interval
    rivals, before = [row for row in tested[1:] if row.verdict == "may be best"], ranking.left_before
    nearest = min(rivals, key=_p, default=None)
    last = max((row for row in ranking.worse if row not in before), key=_p, default=None)
    parts = [f"{quoted(row.label)} p {p_words(_p(row))}" for row in (nearest, last) if row is not None]
    return (
        f"{interval} Clearly worse: beaten in a one-sided Welch t test with variances shrunk to a common one, p "
        f"by Holm's correction below {number(ranking.alpha)}{f' ({listing(parts)})' if parts else ''}"
        f"{earlier_words(ranking)}."
    )


def earlier_words(ranking: Ranking) -> str:
    """Return which conditions were clearly worse at an earlier look, after the level of this one has been named."""
    before = [row.label for row in ranking.left_before]
    return f", or so at an earlier look, at its level ({names(before)})" if before else ""


def _p(row: RankedCondition) -> float:
    assert row.candidate is not None and row.candidate.p is not None
    return row.candidate.p


def interval_words(metric: str, row: RankedCondition) -> str:
    """Return an estimate's interval in words, or that one repeat has none."""
    repeats = row.estimate
    if repeats.low is None or repeats.high is None:
        return f"{quoted(row.label)} has one repeat, so nothing is known of the spread between random seeds."
    n = count(repeats.n, "repeat")
    looks = " (wide enough for those of all looks together)" if repeats.confidence > CONFIDENCE else ""
    if repeats.resampled:
        looks = ", each a fold, by the corrected resampled t (Nadeau and Bengio 2003)"
    return f"95 % t interval of {quoted(row.label)} over {n}{looks}: {span(metric, repeats.low, repeats.high)}."


def mean_intervals_words(confidence: float, resampled: float = 0.0) -> str:
    """Return what brackets beside the means of a table are: intervals of a `confidence`, above 0.95 with looks.

    `resampled` is that of repeats that are folds.
    """
    if resampled:
        return (
            "Brackets: 95 % interval of the mean over folds, each the test images of one repeat, by the corrected "
            f"resampled t (Nadeau and Bengio 2003): s √(1/n + {number(resampled)}), for folds are trained on each "
            "other's test images."
        )
    if confidence > CONFIDENCE:
        wide = ", so wide that those of all planned looks hold together with 95 %"
        return f"Brackets: t interval of the mean over repeats (random seeds), not over test images{wide}."
    return "Brackets: 95 % t interval of the mean over repeats (random seeds), not over test images."


UNSTABLE = 3.0
"""How many times the median spread of the other conditions counts as unstable."""


def unstable_findings(ranking: Ranking) -> Iterator[Finding]:
    """Say in one finding which conditions spread over repeats far more than the others do, the widest first.

    It is a caution where one of them may be the best.
    """
    spreads = [(row.label, row.estimate) for row in ranking.rows if row.estimate.n >= 3 and row.estimate.std]
    found = []
    for label, repeats in spreads:
        others = [other.std for name, other in spreads if name != label and other.std is not None]
        usual = median(others) if len(others) >= 2 else None
        if usual and repeats.std is not None and repeats.std > UNSTABLE * usual:
            found.append((repeats.std, usual, label, repeats))
    if not found:
        return
    found.sort(key=lambda one: (-one[0], one[2]))
    _, _, widest, repeats = found[0]
    reach = span(ranking.metric, min(repeats.values), max(repeats.values))
    labels = [label for _, _, label, _ in found]
    whose = "its repeats" if len(found) == 1 else f"the repeats of {quoted(widest)}"
    what = "fold" if repeats.resampled else "random seed"
    parts = [
        f"{quoted(label)} {amount(ranking.metric, std)} ({number(std / usual, 2)} times the median of the others)"
        for std, usual, label, _ in found
    ]
    yield Finding(
        rule="unstable-seeds",
        tone="warning" if any(row.label in labels for row in ranking.rows if row.verdict in OPEN) else "note",
        sentence=f"{names(labels)} {'depends' if len(found) == 1 else 'depend'} on the {what}: {whose} reach "
        f"from {reach}.",
        evidence=f"Standard deviation over {count(repeats.n, 'repeat')}: {listing(parts, most=8)}.",
        about=tuple(labels),
    )


def short_answer(
    results: StudyResults, ranking: Ranking, reads: TestReads, findings: Sequence[Finding], beside: str = ""
) -> tuple[str, ...]:
    """Return up to three sentences on who is best, what to distrust or what else was found, and what would decide it.

    `beside` is a sentence that belongs to the leader's: its balanced accuracy, of unbalanced classes.

    Distrusted is a leader with repeats that name one class, else the first caution; else told is what a search gave,
    else that nothing is missing; of a smoke test it is first. An undecided study's answer ends with the command that
    decides it.
    """
    best = ranking.best.label if ranking.best else ""
    cautions = [finding for finding in findings if finding.tone == "warning"]
    cautions.sort(key=lambda one: not (one.rule == "one-class" and best in one.about) or results.study.smoke)
    warnings = [one.sentence for one in cautions]
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
    if results.study.splits == "folds":
        return f"Not decided: {results.study.repeats} folds are all there are; fixed splits can have more repeats."
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


def balanced_findings(balanced: BalancedRanking | None, ranking: Ranking) -> Iterator[Finding]:
    """Say that weighing all classes alike orders the conditions otherwise, and who is first then."""
    if balanced is None or not balanced.differs:
        return
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
    yield Finding(
        rule="balanced-order",
        tone="warning" if first != usual else "note",
        sentence=words,
        evidence=f"Means over {count(means[first].n, 'repeat')}; which comes first is no test. Classes are "
        "unbalanced: the accuracy weighs them by their images, the balanced accuracy all alike.",
        about=(first, usual) if first != usual else (first,),
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
    for name in (other for other in OTHERS if other != main):
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
            f"{_lower(row.metric)} than {quoted(row.better)}.",
            evidence=f"{count(row.n, 'repeat')}; one-sided Welch t test with shrunk variances, p "
            f"{p_words(row.p)} by Holm's correction, against {number(row.alpha)}.",
            about=(row.leader, row.better),
        )
        for row in rows
    ]
