"""The tables of results: ranking, every split and metric, all pairs, marginal effects, published numbers."""

from __future__ import annotations

from collections.abc import Sequence

from benchkit.analysis.effects import LevelEffect
from benchkit.analysis.published import PublishedComparison, PublishedVerdict
from benchkit.analysis.ranking import Pair, RankedCondition, Verdict
from benchkit.analysis.summary import StudyStatistics
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
    span,
    within_range,
)
from benchkit.metrics import metric_names
from benchkit.report.tables.table import ESTIMATE_PARTS, Cell, Column, Table, estimate_cell, label, number_cell

VERDICTS: dict[Verdict, str] = {
    "best": "best mean",
    "tied": "not told apart from the best",
    "behind": "behind the best",
    "untested": "not tested",
    "one class": "names one class",
}
MOST_PAIRS = 45
"""Beyond this many pairs the page shows only those with the best condition; CSV has all."""


def ranking_table(numbers: StudyStatistics) -> Table:
    """Return the conditions by their main metric, best first, with the paired comparison to the best one."""
    metric = numbers.metric
    planned = {row.key: row.planned for row in numbers.coverage}
    labels = {scores.label: scores.key for scores in numbers.scores}
    columns = (
        Column(key="rank", heading="Rank"),
        Column(key="condition", heading="Condition", align="left"),
        Column(key="repeats", heading="Repeats", unit="done / planned", parts=("planned",)),
        Column(key="mean", heading=metric_words(metric), unit=metric_unit(metric), parts=ESTIMATE_PARTS),
        Column(key="behind", heading="From the best", unit=difference_unit(metric), parts=("low", "high", "pairs")),
        Column(key="p_holm", heading="p (Holm)"),
        Column(key="verdict", heading="Verdict", align="left"),
    )
    rows = [_ranked(metric, row, planned.get(row.key, 0)) for row in numbers.ranking.rows]
    rows += [_unranked(name, planned.get(labels.get(name, ""), 0)) for name in numbers.ranking.without]
    return Table(columns=columns, rows=tuple(rows))


def _ranked(metric: str, row: RankedCondition, planned: int) -> tuple[Cell, ...]:
    best = row.verdict == "best"
    mark = {"best": "best", "tied": "tied"}.get(row.verdict, "")
    return (
        number_cell(str(row.rank), row.rank),
        label(row.label, mark, strong=best),
        Cell(text=f"{row.estimate.n} / {planned}", value=row.estimate.n, parts=(planned,)),
        estimate_cell(metric, row.estimate, strong=row.verdict in ("best", "tied")),
        _behind(metric, row.pair),
        number_cell(p_value(row.pair.p_adjusted if row.pair else None), row.pair.p_adjusted if row.pair else None),
        label(VERDICTS[row.verdict]),
    )


def _behind(metric: str, pair: Pair | None) -> Cell:
    """Return the paired difference of this condition from the best: negative where less, as a reader expects it."""
    if pair is None:
        return Cell(text=NONE, parts=(None, None, None))
    gap = pair.comparison.difference
    low, high = (None, None) if gap.low is None or gap.high is None else (-gap.high, -gap.low)
    return Cell(
        text=difference(metric, -gap.mean), detail=bracket(metric, low, high), value=-gap.mean, parts=(low, high, gap.n)
    )


def _unranked(name: str, planned: int) -> tuple[Cell, ...]:
    nothing = Cell(text=NONE)
    return (
        nothing,
        label(name),
        Cell(text=f"0 / {planned}", value=0, parts=(planned,)),
        Cell(text=NONE, parts=(None, None, 0)),
        Cell(text=NONE, parts=(None, None, None)),
        nothing,
        label("no result yet"),
    )


def split_table(numbers: StudyStatistics, split: str) -> Table | None:
    """Return every metric of a split for every condition, or None when no condition has one."""
    metrics = [
        f"{split}.{name}"
        for name in metric_names()
        if any(f"{split}.{name}" in scores.metrics for scores in numbers.scores)
    ]
    if not metrics:
        return None
    columns = (
        Column(key="condition", heading="Condition", align="left"),
        Column(key="repeats", heading="Repeats"),
        *(
            Column(
                key=metric.partition(".")[2],
                heading=metric_words(metric).removeprefix(f"{split} "),
                unit=metric_unit(metric),
                parts=ESTIMATE_PARTS,
            )
            for metric in metrics
        ),
    )
    best = {metric: _best(numbers, metric) for metric in metrics}
    rows = [
        (
            label(scores.label),
            number_cell(str(n), n),
            *(estimate_cell(m, scores.metrics.get(m), strong=scores.key == best[m]) for m in metrics),
        )
        for scores in numbers.scores
        if (n := max((scores.metrics[m].n for m in metrics if m in scores.metrics), default=0))
    ]
    return Table(columns=columns, rows=tuple(rows))


def _best(numbers: StudyStatistics, metric: str) -> str:
    """Return the key of the condition with the best mean, or nothing when there is no other to be better than."""
    known = [(scores.metrics[metric].mean, scores.key) for scores in numbers.scores if metric in scores.metrics]
    if len(known) < 2:
        return ""
    return (min if lower_is_better(metric) else max)(known)[1]


def pairs_table(numbers: StudyStatistics) -> tuple[Table, Table]:
    """Return all pairs of ranked conditions, for the page (shortened when there are many) and for CSV."""
    metric = numbers.metric
    labels = {row.key: row.label for row in numbers.ranking.rows}
    columns = (
        Column(key="first", heading="Better", align="left"),
        Column(key="second", heading="Than", align="left"),
        Column(key="pairs", heading="Pairs"),
        Column(key="difference", heading="Difference", unit=difference_unit(metric), parts=("low", "high")),
        Column(key="p", heading="p"),
        Column(key="p_holm", heading="p (Holm)"),
        Column(key="effect_size", heading="d_z"),
        Column(key="detectable", heading="Detectable", unit=difference_unit(metric)),
        Column(key="repeats_needed", heading="Repeats to decide"),
    )
    rows = [_pair(metric, pair, labels) for pair in numbers.ranking.pairs]
    full = Table(columns=columns, rows=tuple(rows))
    if len(rows) <= MOST_PAIRS or numbers.ranking.best is None:
        return full, full
    best = numbers.ranking.best.key
    kept = [row for row, pair in zip(rows, numbers.ranking.pairs, strict=True) if best in (pair.first, pair.second)]
    return full.with_rows(kept), full


def _pair(metric: str, pair: Pair, labels: dict[str, str]) -> tuple[Cell, ...]:
    gap, found = pair.comparison.difference, pair.comparison
    tested = pair.p_adjusted is not None
    needed = pair.repeats_needed
    return (
        label(labels[pair.first], strong=pair.decided),
        label(labels[pair.second]),
        number_cell(str(found.n), found.n),
        Cell(
            text=bare(metric, abs(gap.mean)),
            detail=_absolute(metric, gap.low, gap.high, gap.mean),
            value=gap.mean,
            parts=(gap.low, gap.high),
        ),
        number_cell(p_value(found.p), found.p),
        number_cell(p_value(pair.p_adjusted), pair.p_adjusted, strong=pair.decided),
        number_cell(number(found.effect_size, 3), found.effect_size),
        number_cell(within_range(metric, pair.detectable), pair.detectable),
        Cell(text=str(needed) if needed else "over 1,000" if tested else NONE, value=needed),
    )


def _absolute(metric: str, low: float | None, high: float | None, mean: float) -> str:
    """Return the interval of a difference that is shown as an amount, turned where less is better."""
    if low is None or high is None:
        return ""
    return bracket(metric, low, high) if mean >= 0 else bracket(metric, -high, -low)


def effects_table(effects: tuple[LevelEffect, ...], metric: str) -> Table:
    """Return the marginal mean of every level of every factor."""
    columns = (
        Column(key="factor", heading="Factor", align="left"),
        Column(key="level", heading="Level", align="left"),
        Column(key="combinations", heading="Conditions"),
        Column(key="mean", heading=metric_words(metric), unit=metric_unit(metric), parts=ESTIMATE_PARTS),
    )
    rows = tuple(
        (
            label(effect.factor),
            label(effect.level),
            number_cell(str(effect.combinations), effect.combinations),
            estimate_cell(metric, effect.estimate),
        )
        for effect in effects
    )
    return Table(columns=columns, rows=rows)


def published_table(rows: Sequence[PublishedComparison]) -> Table:
    """Return one source's numbers beside ours, with the interval for one more repeat of ours and the verdict."""
    columns = (
        Column(key="condition", heading="Condition", align="left"),
        Column(key="metric", heading="Metric", align="left"),
        Column(key="published", heading="Published", parts=("low", "high", "n")),
        Column(key="ours", heading="Ours", parts=ESTIMATE_PARTS),
        Column(key="difference", heading="Ours minus published"),
        Column(key="verdict", heading="Verdict", align="left", parts=("prediction_low", "prediction_high")),
    )
    return Table(columns=columns, rows=tuple(_published(row) for row in rows))


def _published(row: PublishedComparison) -> tuple[Cell, ...]:
    sampling = row.sampling
    unit = metric_unit(row.metric)
    detail = f"{bracket(row.metric, sampling.low, sampling.high)}, n = {sampling.n:,}" if sampling else ""
    return (
        label(row.label),
        label(f"{metric_words(row.metric)}{f' ({unit})' if unit else ''}"),
        Cell(
            text=bare(row.metric, row.published),
            detail=detail,
            value=row.published,
            parts=(sampling.low, sampling.high, sampling.n) if sampling else (None, None, None),
        ),
        estimate_cell(row.metric, row.ours),
        number_cell(difference(row.metric, row.difference), row.difference),
        Cell(text=_verdict(row), detail=_expected(row), value=row.verdict, parts=(row.low, row.high)),
    )


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
