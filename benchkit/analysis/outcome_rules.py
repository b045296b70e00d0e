"""Rules about the answer: who won, by how much, what the images leave open, what the batch size does."""

from __future__ import annotations

from collections.abc import Sequence

from benchkit.analysis.comparisons import MOST_REPEATS
from benchkit.analysis.coverage import coverage_words
from benchkit.analysis.findings import Evidence, Finding
from benchkit.analysis.ranking import Pair, RankedCondition, Ranking
from benchkit.analysis.wording import (
    amount,
    bare,
    count,
    lower_is_better,
    measured,
    metric_words,
    names,
    number,
    p_value,
    quoted,
    span,
)
from benchkit.metrics import metric_of


def winner(evidence: Evidence) -> Sequence[Finding]:
    """Say which condition is best, that the ranking is not decided, or that nothing can be said yet."""
    ranking = evidence.ranking
    if ranking.best is None:
        return [_unanswered(evidence)]
    if len(ranking.rows) == 1:
        return [_alone(ranking, ranking.best)]
    if ranking.decided:
        return [_decided(ranking, ranking.best)]
    return [_undecided(ranking, ranking.best)]


def _unanswered(evidence: Evidence) -> Finding:
    return Finding(
        rule="winner",
        tone="answer",
        sentence=f"There is no answer yet: no repeat has a {metric_words(evidence.metric)}.",
        evidence=basis(evidence),
    )


def _alone(ranking: Ranking, best: RankedCondition) -> Finding:
    value = measured(ranking.metric, best.estimate.mean)
    return Finding(
        rule="winner",
        tone="answer",
        sentence=f"{quoted(best.label)} reaches a {metric_words(ranking.metric)} of {value}; it is the only "
        f"condition with "
        "results, so there is nothing to compare it with.",
        evidence=interval_words(ranking.metric, best),
        about=(best.label,),
    )


def _decided(ranking: Ranking, best: RankedCondition) -> Finding:
    second = ranking.rows[1]
    assert second.pair is not None
    by = amount(ranking.metric, second.pair.comparison.difference.mean)
    return Finding(
        rule="winner",
        tone="answer",
        sentence=f"{quoted(best.label)} is best with a {metric_words(ranking.metric)} of "
        f"{measured(ranking.metric, best.estimate.mean)}, {by} {_ahead(ranking.metric)} {quoted(second.label)}, "
        f"the next "
        "one.",
        evidence=f"{interval_words(ranking.metric, best)} Against {quoted(second.label)}: {pair_words(second.pair)}.",
        about=(best.label, second.label),
    )


def _undecided(ranking: Ranking, best: RankedCondition) -> Finding:
    tied = [row.label for row in ranking.tied]
    are = "is" if len(tied) == 1 else "are"
    return Finding(
        rule="winner",
        tone="answer",
        sentence=f"The ranking is not decided: {quoted(best.label)} has the best mean {metric_words(ranking.metric)}, "
        f"{measured(ranking.metric, best.estimate.mean)}, but {names(tied)} {are} not told apart from it.",
        evidence=f"{interval_words(ranking.metric, best)} {_closest_words(ranking.metric, ranking.tied[0])}",
        about=(best.label, *tied),
    )


def basis(evidence: Evidence) -> str:
    """Return the sentence that says what the answer rests on and what would settle it."""
    ranking = evidence.ranking
    if ranking.best is None:
        return f"{coverage_words(evidence.coverage)}."
    if len(ranking.rows) == 1:
        return interval_words(ranking.metric, ranking.best)
    if not ranking.decided:
        return _closest_words(ranking.metric, ranking.tied[0], short=True)
    pair = ranking.rows[1].pair
    assert pair is not None
    gap = pair.comparison.difference
    assert gap.low is not None and gap.high is not None
    low, high = sorted((abs(gap.low), abs(gap.high)))
    scale = f"{bare(ranking.metric, low)} to {amount(ranking.metric, high)}"
    n = count(pair.comparison.n, "repeat")
    return (
        f"Over {n} the lead is {scale} (95 % t interval of the paired difference; p {p_words(pair.p_adjusted)}, Holm)."
    )


def _closest_words(metric: str, row: RankedCondition, *, short: bool = False) -> str:
    pair, label = row.pair, quoted(row.label)
    if pair is None:
        return f"It shares no repeat with {label}, so the two cannot be paired."
    behind = f"{label} is {amount(metric, pair.comparison.difference.mean)} behind"
    if pair.p_adjusted is None and pair.comparison.n == 1:
        return f"{behind} in the one repeat that both have; from two repeats on it is known how many would decide."
    if pair.p_adjusted is None:
        return f"{behind} in each of {count(pair.comparison.n, 'repeat')}; a paired test needs differences that vary."
    return f"{behind}{'' if short else f': {pair_words(pair)}'}; {needed_words(metric, pair)}."


def needed_words(metric: str, pair: Pair) -> str:
    """Return in words what difference could have been seen, and how many repeats would decide."""
    if pair.repeats_needed is None:
        needed = f"more than {MOST_REPEATS:,} repeats would be needed if that difference is true"
    elif pair.repeats_needed <= pair.comparison.n:
        needed = "one or two more repeats may decide"
    else:
        needed = f"about {count(pair.repeats_needed, 'repeat')} would decide if that difference is true"
    if pair.detectable is None:
        return needed
    if pair.detectable >= metric_of(metric).high:
        return f"{count(pair.comparison.n, 'repeat')} can show no possible difference (80 % power), and {needed}"
    seen = (
        f"{count(pair.comparison.n, 'repeat')} can show a difference of {amount(metric, pair.detectable)} (80 % power)"
    )
    return f"{seen}, and {needed}"


def pair_words(pair: Pair) -> str:
    """Return the paired test in words: paired t test over 3 repeats, p = 0.031 after Holm's correction, d_z = 2.1."""
    effect = pair.comparison.effect_size
    size = f", effect size d_z = {number(effect, 3)}" if effect is not None else ""
    n = count(pair.comparison.n, "repeat")
    return f"paired t test over {n}, p {p_words(pair.p_adjusted)} after Holm's correction{size}"


def p_words(p: float | None) -> str:
    """Return a p value with its relation: = 0.031 or < 0.001."""
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"


def interval_words(metric: str, row: RankedCondition) -> str:
    """Return an estimate's interval in words, or that one repeat has none."""
    repeats = row.estimate
    if repeats.low is None or repeats.high is None:
        return f"{quoted(row.label)} has one repeat, so nothing is known of the spread between random seeds."
    n = count(repeats.n, "repeat")
    return f"95 % t interval of {quoted(row.label)} over {n}: {span(metric, repeats.low, repeats.high)}."


def _ahead(metric: str) -> str:
    return "below" if lower_is_better(metric) else "ahead of"


def test_images(evidence: Evidence) -> Sequence[Finding]:
    """Say how much of an accuracy the limited number of test images leaves open, for the best model as trained."""
    best = evidence.ranking.best
    model = next((m for m in evidence.models if best is not None and m.key == best.key), None)
    if model is None:
        return []
    share = model.accuracy
    apart = [pair for pair in evidence.model_pairs if pair.p_adjusted < 0.05]
    pairs = (
        f" Exact McNemar tests on the same images tell its model of one repeat from {len(apart)} of "
        f"{count(len(evidence.model_pairs), 'other model')} (Holm); that is about these trained models, not the "
        f"methods."
        if evidence.model_pairs
        else ""
    )
    return [
        Finding(
            rule="test-images",
            tone="note",
            sentence=f"{share.n:,} test images pin the accuracy of one trained {quoted(model.label)} model down to "
            f"{span('test.accuracy', share.low, share.high)}, whatever the random seeds do.",
            evidence=f"Repeat {model.repeat}: {share.successes:,} of {share.n:,} right, 95 % Wilson interval over test "
            f"images.{pairs}",
            about=(model.label,),
        )
    ]


def sensitivity(evidence: Evidence) -> Sequence[Finding]:
    """Say how far the batch size moves the mean: of the combination that suffers most and least, or of the only one."""
    rows = sorted(evidence.sensitivities, key=lambda row: row.range)
    if not rows:
        return []
    least, most = rows[0], rows[-1]
    metric = evidence.metric
    moved = quoted(most.others) if most.others else f"the {metric_words(metric)}"
    sentence = f"The batch size moves {moved}{' most,' if len(rows) > 1 else ''} by {amount(metric, most.range)}"
    if len(rows) > 1:
        sentence += f", and {quoted(least.others)} least, by {amount(metric, least.range)}"
    return [
        Finding(
            rule="batch-size-sensitivity",
            tone="note",
            sentence=f"{sentence}.",
            evidence=f"Range of mean {metric_words(metric)} over the levels of {most.factor}; "
            f"{quoted(most.others) if most.others else 'it'} is lowest at {most.lowest_level} "
            f"({measured(metric, most.low)}) and highest at {most.highest_level} ({measured(metric, most.high)}).",
            about=tuple(dict.fromkeys(row.others for row in (most, least) if row.others)),
        )
    ]
