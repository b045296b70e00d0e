"""A study then and now: every score and cost of the conditions that both have, and what else differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchkit.analysis.comparisons import (
    ALPHA,
    holm,
    minimum_detectable_difference,
    paired_by_repeat,
    welch_detectable,
    welch_t,
)
from benchkit.analysis.estimates import Estimate, estimate_metric
from benchkit.analysis.summary import COSTS, Record
from benchkit.analysis.wording import (
    MINUS,
    Finding,
    Tone,
    count,
    difference,
    difference_unit,
    listing,
    lower_is_better,
    metric_words,
    names,
    quoted,
    within_range,
)

OTHER_SCORES = (
    "test.accuracy", "test.macro_f1", "test.loss", "test.calibration_error", "val.accuracy", "val.loss"
)  # fmt: skip
"""The scores that are compared beside the study's main metric; micro F1 equals accuracy and would only repeat it."""

ChangeVerdict = Literal["better", "worse", "not told apart", "identical", "untested"]
"""identical: every repeat of then and now, of one seed, has the very value it had; untested: too few
repeats, or differences that do not vary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One metric of one condition: then, now, and now minus then.

    `method` is paired (by repeat, over `pairs` of them, whose differences have the standard deviation `spread`), welch
    or none. `old` and `new` are over all repeats of their time, `difference` over those compared. `p_adjusted` is
    Holm's over the family of rows; `detectable` is the smallest true change that the test finds with 80 % power at the
    level that the correction asks of its first step.
    """

    label: str
    metric: str
    old: Estimate
    new: Estimate
    method: Literal["paired", "welch", "none"]
    pairs: int
    difference: float
    low: float | None
    high: float | None
    p: float | None
    spread: float | None = None
    detectable: float | None = None
    p_adjusted: float | None = None
    verdict: ChangeVerdict = "untested"

    @property
    def told_apart(self) -> bool:
        """Return whether the change is beyond chance at the report's significance level."""
        return self.p_adjusted is not None and self.p_adjusted < ALPHA


@dataclass(frozen=True, slots=True, kw_only=True)
class PropertyChange:
    """Something that the study was made with and that differs: None where one of the two lacks it."""

    kind: str
    name: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What differs between two records of a study. `main`, `scores` and `costs` are families of their own for Holm."""

    metric: str
    old_study: str
    new_study: str
    old_dated: str
    same_seed: bool
    seeds: tuple[int, int]
    folds: tuple[int, int]
    main: tuple[Change, ...]
    scores: tuple[Change, ...]
    costs: tuple[Change, ...]
    gone: tuple[str, ...]
    added: tuple[str, ...]
    same_key: tuple[str, ...]
    properties: tuple[PropertyChange, ...]

    @property
    def resampled(self) -> tuple[float, float]:
        """Return the test images of a repeat over its other ones, then and now; 0 where repeats are no folds."""
        then, now = (1 / (folds - 1) if folds > 1 else 0.0 for folds in self.folds)
        return then, now


def compare_records(old: Record, new: Record) -> Changes:
    """Return what has changed from `old` to `new`; conditions are matched by label.

    With one study seed the same repeat had the same random numbers both times, so repeats are paired (Student's paired
    t); where fewer than two repeats are common, or the seeds differ, groups are compared by Welch's test.
    """
    before = {condition.label: condition for condition in old.conditions}
    after = {condition.label: condition for condition in new.conditions}
    shared = [label for label in after if label in before]

    def family(metrics: Sequence[str]) -> tuple[Change, ...]:
        rows = [
            _change(label, metric, (old, before[label].reading(metric)), (new, after[label].reading(metric)))
            for metric in metrics
            for label in shared
            if before[label].reading(metric) and after[label].reading(metric)
        ]
        return _judged(rows)

    return Changes(
        metric=new.metric,
        old_study=old.study,
        new_study=new.study,
        old_dated=old.dated,
        same_seed=old.seed == new.seed,
        seeds=(old.seed, new.seed),
        folds=(old.folds, new.folds),
        main=family([new.metric]),
        scores=family([metric for metric in OTHER_SCORES if metric != new.metric]),
        costs=family([metric for metric in COSTS if metric != new.metric]),
        gone=tuple(label for label in before if label not in after),
        added=tuple(label for label in after if label not in before),
        same_key=tuple(label for label in shared if before[label].key == after[label].key),
        properties=_property_changes(old, new),
    )


def _change(
    label: str, metric: str, then: tuple[Record, Mapping[int, float]], now: tuple[Record, Mapping[int, float]]
) -> Change:
    (old_record, old), (record, new) = then, now
    before = estimate_metric(metric, list(old.values()), resampled=old_record.resampled)
    after = estimate_metric(metric, list(new.values()), resampled=record.resampled)
    row = Change(
        label=label, metric=metric, old=before, new=after, method="none", pairs=0, difference=after.mean - before.mean,
        low=None, high=None, p=None, verdict="identical" if dict(old) == dict(new) else "untested",
    )  # fmt: skip
    # The same repeat shares random numbers, and the images that test it, where seed and folds are the same.
    is_paired = (old_record.seed, old_record.folds) == (record.seed, record.folds)
    comparison = paired_by_repeat(new, old, record.resampled) if is_paired else None
    if comparison is not None and comparison.n > 1:
        gap = comparison.difference
        return replace(
            row, method="paired", pairs=gap.n, difference=gap.mean, low=gap.low, high=gap.high, p=comparison.p,
            spread=gap.std, verdict="untested" if any(gap.values) else "identical",
        )  # fmt: skip
    if before.n > 1 and after.n > 1:
        welch = welch_t(after, before)
        return replace(row, method="welch", low=welch.low, high=welch.high, p=welch.p)
    return row


def _judged(rows: Sequence[Change]) -> tuple[Change, ...]:
    """Return the rows of one family with Holm's correction, verdicts and what could have been detected."""
    tested = [row.p for row in rows if row.p is not None]
    alpha, adjusted = ALPHA / max(1, len(tested)), iter(holm(tested))
    return tuple(row if row.p is None else _tested(row, next(adjusted), alpha) for row in rows)


def _tested(row: Change, p_adjusted: float, alpha: float) -> Change:
    verdict: ChangeVerdict = "not told apart"
    if p_adjusted < ALPHA:
        verdict = "better" if (row.difference < 0) == lower_is_better(row.metric) else "worse"
    return replace(row, p_adjusted=p_adjusted, detectable=_detectable(row, alpha), verdict=verdict)


def _detectable(row: Change, alpha: float) -> float | None:
    if row.method == "welch":
        return welch_detectable(row.new, row.old, alpha)
    return minimum_detectable_difference(row.spread or 0.0, row.pairs, alpha, resampled=row.new.resampled)


def _property_changes(old: Record, new: Record) -> tuple[PropertyChange, ...]:
    before = {(item.kind, item.name): item.value for item in old.properties}
    after = {(item.kind, item.name): item.value for item in new.properties}
    kinds = list(dict.fromkeys(kind for kind, _ in [*after, *before]))
    both = sorted(dict.fromkeys([*after, *before]), key=lambda pair: kinds.index(pair[0]))
    return tuple(
        PropertyChange(kind=kind, name=name, old=before.get((kind, name)), new=after.get((kind, name)))
        for kind, name in both
        if before.get((kind, name)) != after.get((kind, name))
    )


INCOMPARABLE = ("fingerprint", "smoke")
"""Properties whose change makes then and now different experiments, by the last word of their name."""


def change_findings(changes: Changes) -> tuple[Finding, ...]:
    """Return the sentences about what has changed: the main metric, other scores and costs, conditions, cautions."""
    return (
        _main(changes),
        *_others(changes.scores, rule="changed-scores", noun="other score"),
        *_others(changes.costs, rule="changed-costs", noun="cost"),
        *_conditions(changes),
        *_cautions(changes),
    )


def pairing_words(changes: Changes) -> str:
    """Return which test compares then and now, and why."""
    if not changes.same_seed:
        return (
            f"The study seeds differ ({changes.seeds[0]} then, {changes.seeds[1]} now), so no repeat shares its random "
            "numbers with one of then: the groups are compared unpaired (Welch's t test, Welch 1947"
            f"{_corrected(changes)})."
        )
    if changes.folds[0] != changes.folds[1]:
        then, now = (f"on a fold of {n} each" if n else "all on the same images" for n in changes.folds)
        return (
            f"Repeats are tested {then} then and {now} now, so none shares its test images with one of then: the "
            f"groups are compared unpaired (Welch's t test, Welch 1947{_corrected(changes)})."
        )
    words = (
        f"Then and now have the study seed {changes.seeds[0]}, so the same repeat started from the same random numbers "
        f"both times: repeats are compared in pairs (paired t test{_corrected(changes)})."
    )
    if any(row.method != "paired" for row in changes.main):
        return f"{words} Where fewer than two repeats are common, Welch's t test compares the groups, if it can."
    return words


def _corrected(changes: Changes) -> str:
    """Return how the test allows for repeats that are trained on each other's test images, or nothing."""
    if not any(changes.folds):
        return ""
    return "; for folds its variance is that of the corrected resampled t, Nadeau and Bengio 2003"


def _main(changes: Changes) -> Finding:
    rows, metric = changes.main, metric_words(changes.metric)
    moved = [row for row in rows if row.told_apart]
    tone: Tone = "warning" if any(row.verdict == "worse" for row in moved) else "note"
    evidence = f"{pairing_words(changes)} Holm's correction spans {count(len(rows), 'condition')}."
    if not rows:
        sentence = f"No condition has a {metric} both then and now."
    elif moved:
        rest = len(rows) - len(moved)
        others = f"; {count(rest, 'other condition')} {'is' if rest == 1 else 'are'} not told apart" if rest else ""
        sentence = f"Beyond chance, {metric} has changed for {_moved_words(moved)}{others}."
    elif all(row.verdict == "identical" for row in rows):
        more = any(row.new.n > row.old.n for row in rows)
        sentence = (
            f"Nothing has changed in {metric}: every repeat of {count(len(rows), 'condition')} has exactly the value "
            f"it had{', and there are more by now, which move the means' if more else ''}."
        )
    else:
        sentence = _unmoved(rows, metric)
    return Finding(rule="changed", tone=tone, sentence=sentence, evidence=evidence, about=_labels(moved))


def _unmoved(rows: Sequence[Change], metric: str) -> str:
    """Return that no change is beyond chance, and which changes these repeats could have shown."""
    seen = sorted(row.detectable for row in rows if row.detectable is not None)
    if not seen:
        return f"No change in {metric} can be tested: that needs two repeats or more whose values vary."
    least, most = (within_range(rows[0].metric, size) for size in (seen[0], seen[-1]))
    size = f"{most if most == least else f'{least} to {most}'} {difference_unit(rows[0].metric)}".rstrip()
    return (
        f"No change in {metric} is beyond chance in {count(len(rows), 'condition')}; these repeats would have shown a "
        f"true change of {size} (80 % power)."
    )


def _moved_words(rows: Sequence[Change]) -> str:
    return listing([f"{quoted(row.label)} ({_signed(row)})" for row in rows], most=6)


def _signed(row: Change) -> str:
    if row.metric == "cost.seconds":
        share = 100 * row.difference / row.old.mean if row.old.mean else 0.0
        return f"{share:+.0f} %".replace("-", MINUS)
    return f"{difference(row.metric, row.difference)} {difference_unit(row.metric)}".rstrip()


def _others(rows: Sequence[Change], *, rule: str, noun: str) -> Iterator[Finding]:
    """Say what changed beyond chance in one of the further families, or that nothing did."""
    if not rows:
        return
    moved = [row for row in rows if row.told_apart]
    compared = count(len(rows), noun)
    if not moved:
        tested = sum(row.p is not None for row in rows)
        outcome = f"none has changed beyond chance; {tested} could be tested"
        if all(row.verdict == "identical" for row in rows):
            outcome = "all are exactly what they were"
        elif not tested:
            outcome = "none can be tested: that needs two repeats or more whose values vary"
        yield Finding(rule=rule, sentence=f"Of {compared} compared, {outcome}.")
        return
    shown = [f"{metric_words(row.metric)} of {quoted(row.label)} ({_signed(row)})" for row in moved]
    have = "has" if len(moved) == 1 else "have"
    sentence = f"Of {compared} compared, {len(moved)} {have} changed beyond chance: {listing(shown, most=5)}."
    yield Finding(rule=rule, sentence=sentence, about=_labels(moved))


def _conditions(changes: Changes) -> Iterable[Finding]:
    found = (("gone", changes.gone), ("new", changes.added))
    parts = [f"{what}: {names(labels, most=12)}" for what, labels in found if labels]
    return [Finding(rule="changed-conditions", sentence=f"Conditions {'; '.join(parts)}.")] if parts else []


def _cautions(changes: Changes) -> Iterator[Finding]:
    """Warn where another study, other data or a smoke run stands behind one of the two."""
    if words := another_study(changes):
        same = f"Of {same_of(changes)} conditions of the same label {len(changes.same_key)} have the same settings."
        yield Finding(rule="changed-study", tone="warning", sentence=words, evidence=same)
    changed = [
        item for item in changes.properties
        if item.name.rpartition(" ")[2] in INCOMPARABLE and item.old is not None and item.new is not None
    ]  # fmt: skip
    if not changed:
        return
    what = listing([item.name for item in changed])
    yield Finding(
        rule="changed-basis",
        tone="warning",
        sentence=f"Then and now do not rest on the same data ({what} differ): their scores are of two experiments.",
        evidence=" ".join(f"{item.name}: {item.old} then, {item.new} now." for item in changed),
    )


def another_study(changes: Changes) -> str:
    """Return a sentence where then is a study of another name than now, or nothing."""
    if changes.old_study == changes.new_study:
        return ""
    return (
        f"Then is another study, {quoted(changes.old_study)}, and now {quoted(changes.new_study)}: unless it was only "
        "renamed, these are differences between two studies, and no changes of one."
    )


def same_of(changes: Changes) -> int:
    """Return how many conditions then and now have in common."""
    return len({row.label for row in (*changes.main, *changes.scores, *changes.costs)} | set(changes.same_key))


def _labels(rows: Sequence[Change]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.label for row in rows))
