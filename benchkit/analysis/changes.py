"""A study then and now: every score and cost of the conditions that both have, and what else differs between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchkit.analysis.comparisons import ALPHA, holm, minimum_detectable_difference, paired_t
from benchkit.analysis.estimates import Estimate
from benchkit.analysis.readings import estimate_metric
from benchkit.analysis.record import COSTS, Record
from benchkit.analysis.unpaired import welch_detectable, welch_t
from benchkit.analysis.wording import lower_is_better

OTHER_SCORES = (
    "test.accuracy", "test.macro_f1", "test.loss", "test.calibration_error", "val.accuracy", "val.loss"
)  # fmt: skip
"""The scores that are compared beside the study's main metric; micro F1 equals accuracy and would only repeat it."""

ChangeVerdict = Literal["better", "worse", "not told apart", "identical", "untested"]
"""identical: every repeat has the very value it had; untested: too few repeats, or differences that do not vary."""


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
    old_dated: str
    same_seed: bool
    seeds: tuple[int, int]
    main: tuple[Change, ...]
    scores: tuple[Change, ...]
    costs: tuple[Change, ...]
    gone: tuple[str, ...]
    added: tuple[str, ...]
    same_key: tuple[str, ...]
    properties: tuple[PropertyChange, ...]


def compare_records(old: Record, new: Record) -> Changes:
    """Return what has changed from `old` to `new`; conditions are matched by label.

    With one study seed the same repeat had the same random numbers both times, so repeats are paired (Student's paired
    t); where fewer than two repeats are common, or the seeds differ, groups are compared by Welch's test.
    """
    before = {condition.label: condition for condition in old.conditions}
    after = {condition.label: condition for condition in new.conditions}
    shared = [label for label in after if label in before]
    paired = old.seed == new.seed

    def family(metrics: Sequence[str]) -> tuple[Change, ...]:
        rows = [
            _change(label, metric, before[label].reading(metric), after[label].reading(metric), paired=paired)
            for metric in metrics
            for label in shared
            if before[label].reading(metric) and after[label].reading(metric)
        ]
        return _judged(rows)

    return Changes(
        metric=new.metric,
        old_study=old.study,
        old_dated=old.dated,
        same_seed=paired,
        seeds=(old.seed, new.seed),
        main=family([new.metric]),
        scores=family([metric for metric in OTHER_SCORES if metric != new.metric]),
        costs=family([metric for metric in COSTS if metric != new.metric]),
        gone=tuple(label for label in before if label not in after),
        added=tuple(label for label in after if label not in before),
        same_key=tuple(label for label in shared if before[label].key == after[label].key),
        properties=_property_changes(old, new),
    )


def _change(label: str, metric: str, old: Mapping[int, float], new: Mapping[int, float], *, paired: bool) -> Change:
    before, after = (estimate_metric(metric, list(values.values())) for values in (old, new))
    common = sorted(old.keys() & new.keys())
    row = Change(
        label=label, metric=metric, old=before, new=after, method="none", pairs=0, difference=after.mean - before.mean,
        low=None, high=None, p=None, verdict="identical" if dict(old) == dict(new) else "untested",
    )  # fmt: skip
    if paired and len(common) > 1:
        found = paired_t([new[i] for i in common], [old[i] for i in common])
        gap = found.difference
        return replace(
            row, method="paired", pairs=len(common), difference=gap.mean, low=gap.low, high=gap.high, p=found.p,
            spread=gap.std,
        )  # fmt: skip
    if before.n > 1 and after.n > 1:
        welch = welch_t(after.values, before.values)
        return replace(row, method="welch", low=welch.low, high=welch.high, p=welch.p)
    return row


def _judged(rows: Sequence[Change]) -> tuple[Change, ...]:
    """Return the rows of one family with Holm's correction, verdicts and what could have been detected."""
    tested = [place for place, row in enumerate(rows) if row.p is not None]
    adjusted = dict(zip(tested, holm([rows[place].p or 0.0 for place in tested]), strict=True))
    alpha = ALPHA / max(1, len(tested))
    return tuple(
        _verdict(replace(row, p_adjusted=adjusted.get(place), detectable=_detectable(row, alpha)))
        for place, row in enumerate(rows)
    )


def _verdict(row: Change) -> Change:
    if row.p_adjusted is None:
        return row
    if not row.told_apart:
        return replace(row, verdict="not told apart")
    better = row.difference < 0 if lower_is_better(row.metric) else row.difference > 0
    return replace(row, verdict="better" if better else "worse")


def _detectable(row: Change, alpha: float) -> float | None:
    if row.p is None:
        return None
    if row.method == "welch":
        return welch_detectable(row.new, row.old, alpha)
    return minimum_detectable_difference(row.spread or 0.0, row.pairs, alpha)


def _property_changes(old: Record, new: Record) -> tuple[PropertyChange, ...]:
    before = {(one.kind, one.name): one.value for one in old.properties}
    after = {(one.kind, one.name): one.value for one in new.properties}
    kinds = list(dict.fromkeys(kind for kind, _ in [*after, *before]))
    both = sorted(dict.fromkeys([*after, *before]), key=lambda pair: kinds.index(pair[0]))
    return tuple(
        PropertyChange(kind=kind, name=name, old=before.get((kind, name)), new=after.get((kind, name)))
        for kind, name in both
        if before.get((kind, name)) != after.get((kind, name))
    )
