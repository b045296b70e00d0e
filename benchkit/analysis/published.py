"""Published numbers beside ours: the difference, a verdict, and whether a number can be what it claims to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchkit.analysis.estimates import Estimate, Proportion, prediction_interval, wilson
from benchkit.analysis.fractions import MOST_IMAGES, implied_n
from benchkit.analysis.published_doubts import WHY, Doubt
from benchkit.analysis.readings import compared, estimate_of
from benchkit.metrics import metric_of
from benchkit.results import StudyResults
from benchkit.study import Published, PublishedRow, Study

PublishedVerdict = Literal[
    "consistent",
    "ours higher",
    "ours lower",
    "few images",
    "in doubt",
    "other protocol",
    "one repeat",
    "no counterpart",
]
"""consistent: where one more repeat of ours could fall; ours higher or lower: not consistent; the rest says why the two
cannot be compared: too few published images to tell, a number that cannot be, settings of ours that --set changed, one
repeat of ours, or none."""

PROTOCOL = ("data", "model", "train", "regularizers", "factors")
"""The sections of a study file that make its protocol, which a published table was matched to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedComparison:
    """One published number beside ours.

    `low` and `high` bound where one more repeat of ours would fall (95 % prediction interval): a published number is
    taken as one run. `sampling` is the published share's own Wilson interval over its n images, where n is stated.
    `difference` is ours minus published. `doubt` says why the published number cannot be what it claims to be.
    """

    source: str
    label: str
    metric: str
    published: float
    sampling: Proportion | None
    ours: Estimate | None
    low: float | None
    high: float | None
    verdict: PublishedVerdict
    note: str
    doubt: str = ""

    @property
    def difference(self) -> float | None:
        """Return ours minus published, or None when we have no such number."""
        return None if self.ours is None else self.ours.mean - self.published


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpliedN:
    """A published source whose shares look like fractions of few images: the smallest n that gives them all.

    `stated` is the n that the study file gives for them, if any.
    `chance` is how often as many random numbers with these digits would agree with an n this small.
    """

    source: str
    metric: str
    n: int
    values: tuple[float, ...]
    fractions: tuple[str, ...]
    chance: float
    stated: int | None = None


def compare_published(results: StudyResults, doubts: Sequence[Doubt]) -> tuple[PublishedComparison, ...]:
    """Return every published row beside each of our conditions that has its levels, in the study's order."""
    found: list[PublishedComparison] = []
    changed = changed_protocol(results.study)
    why = {(doubt.table, doubt.row): WHY[doubt.kind] for doubt in reversed(doubts)}
    for table, source in enumerate(results.study.published):
        for place, row in enumerate(source.rows):
            matching = [c for c in compared(results) if all(c.levels.get(k) == v for k, v in row.when.items())]
            pairs = [(c.label, estimate_of(results, c, row.metric)) for c in matching]
            for label, ours in pairs or [(_when(row), None)]:
                images = _images(results, row.metric)
                one = _comparison(source, row, label, ours, images)
                if changed and ours:
                    one = replace(one, verdict="other protocol")
                doubt = why.get((table, place), "")
                found.append(replace(one, doubt=doubt, verdict="in doubt") if doubt and ours else one)
    return tuple(found)


def changed_protocol(study: Study) -> tuple[str, ...]:
    """Return the changes (`data.train_size=5000`) by which --set made this a variant with another protocol."""
    return tuple(change for change in study.overrides if change.partition(".")[0] in PROTOCOL)


def _images(results: StudyResults, metric: str) -> int:
    """Return how many images our own numbers of a metric rest on, 0 when there are none."""
    split = metric.partition(".")[0]
    scored = (trial.outcome.metrics for trial in results.trials if trial.outcome)
    return max((metrics[split].n for metrics in scored if split in metrics), default=0)  # type: ignore[index]


def _when(row: PublishedRow) -> str:
    return ", ".join(f"{path} = {value}" for path, value in row.when.items())


def _comparison(
    source: Published, row: PublishedRow, label: str, ours: Estimate | None, images: int
) -> PublishedComparison:
    interval = prediction_interval(ours, bounds=metric_of(row.metric).bounds) if ours else None
    low, high = interval or (None, None)
    share = metric_of(row.metric).of_images and row.n and 0 <= row.value <= 1
    sampling = wilson(round(row.value * row.n), row.n) if share and row.n else None
    return PublishedComparison(
        source=source.source,
        label=label,
        metric=row.metric,
        published=row.value,
        sampling=sampling,
        ours=ours,
        low=low,
        high=high,
        verdict=_verdict(row.value, ours, (low, high), sampling if row.n and row.n < images else None),
        note=row.note,
    )


def _verdict(
    published: float, ours: Estimate | None, expected: tuple[float | None, float | None], few: Proportion | None
) -> PublishedVerdict:
    """Return the verdict; `few` is the sampling interval of a published share that rests on fewer images than ours.

    On as many images as ours the two are taken for the same images, whose sampling error both share.
    """
    low, high = expected
    if ours is None:
        return "no counterpart"
    if low is None or high is None:
        return "one repeat"
    if low <= published <= high:
        return "consistent"
    if few is not None and few.low <= high and few.high >= low:
        return "few images"
    return "ours higher" if published < low else "ours lower"


def implied_numbers(study_published: Sequence[Published]) -> tuple[ImpliedN, ...]:
    """Return the sources whose shares, metric by metric, look like fractions of few images.

    A stated n of more than `MOST_IMAGES` is believed; F1 averaged over classes is no fraction of images.
    """
    found: list[ImpliedN] = []
    for source in study_published:
        for metric in dict.fromkeys(row.metric for row in source.rows):
            if metric_of(metric).of_images:
                rows = [row for row in source.rows if row.metric == metric and (row.n or 0) <= MOST_IMAGES]
                values = [row.value for row in rows if 0 < row.value < 1]
                implied = implied_n(values)
                if implied is not None:
                    n, chance = implied
                    found.append(_implied(source.source, metric, (n, chance), rows))
    return tuple(found)


def _implied(source: str, metric: str, found: tuple[int, float], rows: Sequence[PublishedRow]) -> ImpliedN:
    n, chance = found
    values = tuple(row.value for row in rows if 0 < row.value < 1)
    return ImpliedN(
        source=source,
        metric=metric,
        n=n,
        values=values,
        fractions=tuple(f"{round(value * n)}/{n}" for value in values),
        chance=chance,
        stated=rows[0].n,
    )
