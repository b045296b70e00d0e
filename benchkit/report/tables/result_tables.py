"""The tables of results: ranking, every split and metric, all pairs, marginal effects, published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from benchkit.analysis.estimates import Estimate, LevelEffect, Scores
from benchkit.analysis.published import PublishedComparison, PublishedVerdict
from benchkit.analysis.ranking import Pair, RankedCondition, Verdict
from benchkit.analysis.summary import StudyStatistics
from benchkit.analysis.trained_models import Uncertainty
from benchkit.analysis.wording import (
    NONE,
    bare,
    bracket,
    difference,
    difference_unit,
    listing,
    lower_is_better,
    metric_unit,
    metric_words,
    number,
    p_value,
    p_words,
    span,
    within_range,
)
from benchkit.metrics import metric_names, metric_of
from benchkit.report.tables.table import ESTIMATE_PARTS, Cell, Column, Table, TableOf, estimate_cell, label, number_cell

VERDICTS: dict[Verdict, str] = {
    "best": "best mean",
    "may be best": "may be best",
    "worse": "clearly worse",
    "untested": "not tested",
    "one class": "names one class",
}
MOST_PAIRS = 45
"""Beyond this many pairs the page shows only those with the best condition; CSV has all."""


def ranking_table(numbers: StudyStatistics) -> Table:
    """Return the conditions by their main metric, best first, with the paired comparison to the best one."""
    metric = numbers.metric
    planned = {row.key: row.planned for row in numbers.coverage}
    keys = {scores.label: scores.key for scores in numbers.scores}
    columns = (
        Column(key="rank", heading="Rank"),
        Column(key="condition", heading="Condition", align="left"),
        Column(key="repeats", heading="Repeats", unit="done / planned", parts=("planned",)),
        Column(key="mean", heading=metric_words(metric), unit=metric_unit(metric), parts=ESTIMATE_PARTS),
        *_balanced_column(numbers),
        Column(key="behind", heading="From the best", unit=difference_unit(metric), parts=("low", "high", "pairs")),
        Column(key="superiority", heading="P(best better)"),
        Column(key="p_worse_holm", heading="p (worse)"),
        Column(key="verdict", heading="Verdict", align="left"),
    )
    reasons = {scores.key: scores.undefined.get(metric, "") for scores in numbers.scores}
    ranked = [_ranked(metric, row, planned.get(row.key, 0), reasons.get(row.key, "")) for row in numbers.ranking.rows]
    unranked = [
        _unranked(name, planned.get(key, 0), reasons.get(key, ""))
        for name, key in ((name, keys.get(name, "")) for name in numbers.ranking.without)
    ]
    if numbers.balanced:
        beside = [numbers.balanced.estimates.get(row.key) for row in numbers.ranking.rows]
        ranked = [
            (*row[:4], estimate_cell(numbers.balanced.metric, one), *row[4:])
            for row, one in zip(ranked, beside, strict=True)
        ]
        unranked = [(*row[:4], estimate_cell(numbers.balanced.metric, None), *row[4:]) for row in unranked]
    return Table(columns=columns, rows=(*ranked, *unranked))


def _balanced_column(numbers: StudyStatistics) -> tuple[Column, ...]:
    """Return the column of the balanced accuracy where it stands beside the accuracy."""
    if numbers.balanced is None:
        return ()
    metric = numbers.balanced.metric
    return (Column(key="balanced", heading=metric_words(metric), unit=metric_unit(metric), parts=ESTIMATE_PARTS),)


def _ranked(metric: str, row: RankedCondition, planned: int, reason: str) -> tuple[Cell, ...]:
    best = row.verdict == "best"
    p = row.candidate.p if row.candidate and not best else None
    return (
        number_cell(str(row.rank), row.rank),
        label(row.label, "best" if best else "", strong=best),
        Cell(text=f"{row.estimate.n} / {planned}", value=row.estimate.n, parts=(planned,)),
        estimate_cell(metric, row.estimate, strong=best, reason=reason),
        _behind(metric, row.pair),
        _share_of_pairs(row.pair),
        number_cell(p_value(p), p),
        label(VERDICTS[row.verdict]),
    )


def _share_of_pairs(pair: Pair | None) -> Cell:
    share = pair.superiority if pair else None
    return number_cell("" if share is None else f"{share:.2f}", share)


def _behind(metric: str, pair: Pair | None) -> Cell:
    """Return the paired difference of this condition from the best: negative where less, as a reader expects it."""
    if pair is None:
        return Cell(text=NONE, parts=(None, None, None))
    gap = pair.comparison.difference
    low, high = (None, None) if gap.low is None or gap.high is None else (-gap.high, -gap.low)
    return Cell(
        text=difference(metric, -gap.mean), detail=bracket(metric, low, high), value=-gap.mean, parts=(low, high, gap.n)
    )


def _unranked(name: str, planned: int, reason: str) -> tuple[Cell, ...]:
    nothing = Cell(text=NONE)
    return (
        nothing,
        label(name),
        Cell(text=f"0 / {planned}", value=0, parts=(planned,)),
        Cell(text=NONE, parts=(None, None, 0), reason=reason),
        Cell(text=NONE, parts=(None, None, None)),
        nothing,
        nothing,
        label("undefined" if reason else "no result yet"),
    )


FEWEST_TOP5_CLASSES = 20
"""From this many classes on, tables show the top-5 accuracy."""


def split_table(numbers: StudyStatistics, split: str) -> Table | None:
    """Return every metric of a split for every condition, or None when no condition has one."""
    every = [f"{split}.{name}" for name in metric_names()]
    known = [metric for metric in every if any(metric in {*s.metrics, *s.undefined} for s in numbers.scores)]
    metrics = [metric for metric in known if not says_little(numbers, metric)]
    if not metrics:
        return None
    table = TableOf(scores for scores in numbers.scores if _repeats(scores, metrics))
    table.text("condition", "Condition", lambda scores: scores.label)
    table.number("repeats", "Repeats", lambda scores: _repeats(scores, metrics))
    for metric in metrics:
        heading = metric_words(metric).removeprefix(f"{split} ")
        column = Column(key=metric.partition(".")[2], heading=heading, unit=metric_unit(metric), parts=ESTIMATE_PARTS)
        table.add(column, partial(_score, metric=metric, best=_best(numbers, metric)))
    return table.made()


def says_little(numbers: StudyStatistics, metric: str) -> bool:
    """Return whether tables and choices leave a metric out that is not the study's own.

    Micro F1 is the accuracy under another name where each image has one label; of fewer than 20 classes nearly every
    image's is among the first five.
    """
    split, _, name = metric.partition(".")
    if metric == numbers.metric:
        return False
    if name == "top5_accuracy":
        return numbers.classes is not None and len(numbers.classes.names) < FEWEST_TOP5_CLASSES
    if name != "micro_f1":
        return False
    pairs = [(scores.metrics.get(metric), scores.metrics.get(f"{split}.accuracy")) for scores in numbers.scores]
    return all(one is None or (other is not None and one.values == other.values) for one, other in pairs)


def _repeats(scores: Scores, metrics: Sequence[str]) -> int:
    return max((scores.metrics[metric].n for metric in metrics if metric in scores.metrics), default=0)


def _score(scores: Scores, metric: str, best: str) -> Cell:
    reason = scores.undefined.get(metric, "")
    return estimate_cell(metric, scores.metrics.get(metric), strong=scores.key == best, reason=reason)


def _best(numbers: StudyStatistics, metric: str) -> str:
    """Return the key of the condition with the best mean, or nothing when there is no other to be better than."""
    known = [(scores.metrics[metric].mean, scores.key) for scores in numbers.scores if metric in scores.metrics]
    if len(known) < 2:
        return ""
    return (min if lower_is_better(metric) else max)(known)[1]


def pairs_table(numbers: StudyStatistics) -> tuple[Table, Table]:
    """Return all pairs of ranked conditions, for the page (shortened when there are many) and for CSV."""
    pairs, best = numbers.ranking.pairs, numbers.ranking.best
    full = _pairs(numbers, pairs)
    if len(pairs) <= MOST_PAIRS or best is None:
        return full, full
    return _pairs(numbers, [pair for pair in pairs if best.key in (pair.first, pair.second)]), full


MOST_SQUARE = 10
"""So many conditions fit beside each other into a matrix of their pairs."""


def pairs_matrix(numbers: StudyStatistics) -> Table | None:
    """Return the differences of all pairs with their corrected p, each once: the row's condition minus the column's.

    None for more conditions than a page is wide enough for, and for fewer than three, whose pair is in the ranking.
    """
    rows = numbers.ranking.rows
    if not 2 < len(rows) <= MOST_SQUARE:
        return None
    pairs = {(pair.first, pair.second): pair for pair in numbers.ranking.pairs}
    table = TableOf(rows[:-1])
    table.number("rank", "Rank", lambda row: row.rank)
    table.text("condition", "Condition", lambda row: row.label)
    for column in rows[1:]:
        heading = Column(key=f"minus_{column.rank}", heading=f"minus {column.rank}", parts=("p_holm",))
        table.add(heading, partial(_pair_cell, numbers.metric, pairs, second=column.key))
    return table.made()


def _pair_cell(metric: str, pairs: Mapping[tuple[str, str], Pair], row: RankedCondition, second: str) -> Cell:
    pair = pairs.get((row.key, second))
    if pair is None:
        return Cell(text="", parts=(None,))
    gap = pair.comparison.difference.mean
    p = f"p {p_words(pair.p_adjusted)}" if pair.p_adjusted is not None else ""
    return Cell(text=difference(metric, gap), detail=p, value=gap, parts=(pair.p_adjusted,), strong=pair.decided)


def _pairs(numbers: StudyStatistics, pairs: Sequence[Pair]) -> Table:
    metric, unit = numbers.metric, difference_unit(numbers.metric)
    labels = {row.key: row.label for row in numbers.ranking.rows}
    table = TableOf(pairs)
    better = Column(key="first", heading="Better", align="left")
    table.add(better, lambda pair: label(labels[pair.first], strong=pair.decided))
    table.text("second", "Than", lambda pair: labels[pair.second])
    table.number("pairs", "Pairs", lambda pair: pair.comparison.n)
    gap = Column(key="difference", heading="Difference", unit=unit, parts=("low", "high"))
    table.add(gap, lambda pair: _amount(metric, pair.comparison.difference))
    table.number("p", "p", lambda pair: pair.comparison.p, p_value)
    corrected = Column(key="p_holm", heading="p (Holm)")
    table.add(corrected, lambda pair: number_cell(p_value(pair.p_adjusted), pair.p_adjusted, strong=pair.decided))
    table.number("effect_size", "d_z", lambda pair: pair.comparison.effect_size, lambda size: number(size, 3))
    within = partial(within_range, metric)
    table.number("detectable", "Detectable", lambda pair: pair.detectable, within, unit=unit)
    table.add(Column(key="superiority", heading="P(A > B)"), _share_of_pairs)
    return table.made()


def _amount(metric: str, gap: Estimate) -> Cell:
    return Cell(
        text=bare(metric, abs(gap.mean)),
        detail=_absolute(metric, gap.low, gap.high, gap.mean),
        value=gap.mean,
        parts=(gap.low, gap.high),
    )


def _absolute(metric: str, low: float | None, high: float | None, mean: float) -> str:
    """Return the interval of a difference that is shown as an amount, turned where less is better."""
    if low is None or high is None:
        return ""
    return bracket(metric, low, high) if mean >= 0 else bracket(metric, -high, -low)


def uncertainty_table(numbers: StudyStatistics) -> Table:
    """Return each condition's test accuracy with its intervals over seeds, over images, and over both together."""
    table = TableOf(numbers.uncertainty)
    table.text("condition", "Condition", lambda row: row.label)
    table.number("repeats", "Repeats", lambda row: row.interval.repeats)
    table.number("images", "Images", lambda row: row.interval.images, "{:,}".format)
    table.number("mean", "Accuracy", lambda row: row.interval.mean, partial(bare, "accuracy"), unit="%")
    for key, heading in (("seeds", "Other seeds"), ("images_only", "Other images"), ("both", "Both")):
        column = Column(key=key, heading=heading, unit="%", parts=("high",))
        table.add(column, partial(_interval, key=key))
    return table.made()


def _interval(row: Uncertainty, key: str) -> Cell:
    low, high = getattr(row.interval, key)
    return Cell(text=bracket("accuracy", low, high), value=low, parts=(high,))


def effects_table(effects: tuple[LevelEffect, ...], metric: str) -> Table:
    """Return the marginal mean of every level of every factor."""
    table = TableOf(effects)
    table.text("factor", "Factor", lambda effect: effect.factor)
    table.text("level", "Level", lambda effect: effect.level)
    table.number("combinations", "Conditions", lambda effect: effect.combinations)
    table.estimate("mean", metric_words(metric), metric, lambda effect: effect.estimate, unit=metric_unit(metric))
    return table.made()


def published_table(rows: Sequence[PublishedComparison]) -> Table:
    """Return one source's numbers beside ours, with the interval for one more repeat of ours and the verdict."""
    table = TableOf(rows)
    table.text("condition", "Condition", lambda row: row.label)
    table.text("metric", "Metric", lambda row: named_metric(row.metric))
    table.add(Column(key="published", heading="Published", parts=("low", "high", "n")), _published)
    ours = Column(key="ours", heading="Ours", parts=ESTIMATE_PARTS)
    table.add(ours, lambda row: estimate_cell(row.metric, row.ours))
    gap = Column(key="difference", heading="Ours minus published")
    table.add(gap, lambda row: number_cell(difference(row.metric, row.difference), row.difference))
    verdict = Column(key="verdict", heading="Verdict", align="left", parts=("prediction_low", "prediction_high"))
    table.add(
        verdict,
        lambda row: Cell(text=_verdict(row), detail=_expected(row), value=row.verdict, parts=(row.low, row.high)),
    )
    return table.made()


def named_metric(metric: str) -> str:
    """Return a metric in words, with its unit."""
    unit = metric_unit(metric)
    return f"{metric_words(metric)}{f' ({unit})' if unit else ''}"


def _published(row: PublishedComparison) -> Cell:
    text, sampling = bare(row.metric, row.published), row.sampling
    printed = f"printed {row.printed}" if row.printed else ""
    if sampling is None:
        unknown = "n not stated" if metric_of(row.metric).of_images else ""
        detail = ", ".join(part for part in (printed, unknown) if part)
        return Cell(text=text, detail=detail, value=row.published, parts=(None, None, None))
    interval = f"{bracket(row.metric, sampling.low, sampling.high)}, n = {sampling.n:,}"
    detail = ", ".join(part for part in (printed, interval) if part)
    return Cell(text=text, detail=detail, value=row.published, parts=(sampling.low, sampling.high, sampling.n))


def _verdict(row: PublishedComparison) -> str:
    few = ""
    if row.sampling is not None:
        open_ = span(row.metric, row.sampling.low, row.sampling.high)
        few = f"cannot be judged: its {row.sampling.n:,} images leave {open_} open"
    words: dict[PublishedVerdict, str] = {
        "consistent": "consistent with ours",
        "ours higher": "not consistent: ours is higher",
        "ours lower": "not consistent: ours is lower",
        "few images": few,
        "in doubt": f"cannot be compared: {row.doubt}",
        "other protocol": f"cannot be compared: {listing(row.departs, most=3)}",
        "one repeat": "cannot be judged: one repeat of ours has no spread",
        "no counterpart": "cannot be compared: no result of ours yet",
    }
    return words[row.verdict]


def _expected(row: PublishedComparison) -> str:
    """Return where one more repeat of ours would fall, and the row's own note."""
    within = f"one more of ours: {span(row.metric, row.low, row.high)}" if row.low is not None and row.high else ""
    return "; ".join(part for part in (within, row.note) if part)
