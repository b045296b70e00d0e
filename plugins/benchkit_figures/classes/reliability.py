"""Reliability diagrams: how often a network is right where it says that it is this sure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, cast

import altair as alt
import numpy as np

from benchkit import NothingToDraw, card
from benchkit.metrics import BINS, SPLITS, SplitName
from benchkit.plan import Condition
from benchkit.results import StudyResults, Trial
from benchkit_figures.encodings import (
    LEADING,
    WIDTH,
    Layers,
    by_condition,
    check_split,
    done_repeats,
    heading,
    left_out,
    may_be_best,
    repeats_words,
    rounded,
    tooltips,
)

MOST_PANELS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """The predictions whose probability lies from `low` to `high`: their number, mean probability and share right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionReliability:
    """A condition's bins that hold predictions, over all images of `n` repeats, and its mean calibration error."""

    condition: str
    n: int
    calibration_error: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityData:
    """All conditions with stored predictions of `split`; `shown` are those that are drawn."""

    split: str
    conditions: tuple[ConditionReliability, ...]
    shown: tuple[str, ...]
    without: tuple[str, ...]


@card(
    title="Reliability",
    summary="The share of right predictions against the probability that the network gave them.",
    reference="Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017",
    url="https://arxiv.org/abs/1706.04599",
    choices={"split": SPLITS[1:]},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Reliability on `split`, val or test: of up to four conditions that may be the best, in 15 bins of equal width."""

    split: str = "test"

    def data(self, results: StudyResults) -> ReliabilityData:
        """Return the bins of every condition; raise `NothingToDraw` where no logits are stored."""
        check_split("reliability", self.split)
        split = cast(SplitName, self.split)
        found, without = by_condition(results, lambda condition: _reliability(results, condition, split))
        if not found:
            raise NothingToDraw(f"no finished repeat has its predictions of the {split} images")
        names = [one.condition for one in found]
        leading = [label for label in may_be_best(results, results.study.report.metric) if label in names]
        shown = tuple(
            [*leading, *(name for name in names if name not in leading)][: max(1, min(MOST_PANELS, len(leading)))]
        )
        return ReliabilityData(split=split, conditions=tuple(found), shown=shown, without=without)

    def draw(self, data: ReliabilityData) -> Any:
        """Return a panel for each condition shown: points by probability, larger where more predictions are."""
        shown = {one.condition: one for one in data.conditions}
        width = min(220, (WIDTH - 70 - 14 * (len(data.shown) - 1)) // len(data.shown))
        panels = [
            _panel(shown[label], width, first=label == data.shown[0], several=len(data.conditions) > 1)
            for label in data.shown
        ]
        return panels[0] if len(panels) == 1 else alt.hconcat(*panels, spacing=14, bounds="flush")

    def caption(self, data: ReliabilityData) -> str:
        """Return what points, lines and sizes are, and over how many repeats."""
        n = repeats_words(one.n for one in data.conditions)
        parts = [
            f"Reliability on {data.split} images: the share of right predictions by the probability of the predicted "
            f"class, in {BINS} bins of equal width, all images of {n} taken together. Below the dashed line a network "
            "is surer than it should be. Larger points stand for more images; bins with fewer than a hundredth of "
            "them are not joined. ECE: the expected calibration error, mean over repeats."
        ]
        if len(data.shown) < len(data.conditions):
            parts.append("Shown: conditions that may be the best. The others are in the data of this figure.")
        parts += left_out("Without stored predictions", data.without)
        return " ".join(parts)

    def alt_text(self, data: ReliabilityData) -> str:
        """Return one sentence with how far the first condition shown is too sure, or not sure enough."""
        first = next(one for one in data.conditions if one.condition == data.shown[0])
        images = sum(one.n for one in first.bins)
        sure = sum(one.n * one.confidence for one in first.bins) / images
        right = sum(one.n * one.accuracy for one in first.bins) / images
        how = "surer than right" if sure > right else "less sure than right"
        return (
            f"{first.condition} is {how}: its mean probability on {data.split} images is {100 * sure:.1f} %, and "
            f"{100 * right:.1f} % are right (calibration error {100 * first.calibration_error:.2f} %)."
        )


def _reliability(results: StudyResults, condition: Condition, split: SplitName) -> ConditionReliability | None:
    read = [(t, scores) for t in done_repeats(results, condition) if (scores := _scores(results, t, split)) is not None]
    if not read:
        return None
    confidence = np.concatenate([sure for _, (sure, _) in read])
    right = np.concatenate([correct for _, (_, correct) in read])
    errors = [value for t, _ in read if (value := t.value(f"{split}.calibration_error")) is not None]
    return ConditionReliability(
        condition=condition.label,
        n=len(read),
        calibration_error=fmean(errors) if errors else 0.0,
        bins=reliability_bins(confidence, right),
    )


def reliability_bins(confidence: np.ndarray, right: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """Return the bins that hold predictions; an end belongs to the bin above it, 1 to the last one."""
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return tuple(
        ReliabilityBin(
            low=rounded(place / BINS),
            high=rounded((place + 1) / BINS),
            n=int((places == place).sum()),
            confidence=float(confidence[places == place].mean()),
            accuracy=float(right[places == place].mean()),
        )
        for place in np.unique(places).tolist()
    )


def _scores(results: StudyResults, trial: Trial, split: SplitName) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the probability of the predicted class and whether it is right, or None without finite logits.

    What a report's capsule keeps of predictions, right or wrong, is no logits.
    """
    try:
        logits = trial.predictions(split)
        labels = trial.labels(split) if split not in results.labels else results.labels[split]
    except (FileNotFoundError, KeyError):
        return None
    if logits.dtype.kind != "f" or not len(logits) or len(labels) != len(logits) or not np.isfinite(logits).all():
        return None
    wide = logits.astype(np.float64)
    shares = np.exp(wide - wide.max(axis=1, keepdims=True))
    return shares.max(axis=1) / shares.sum(axis=1), logits.argmax(axis=1) == labels


def _panel(one: ConditionReliability, width: int, *, first: bool, several: bool) -> Layers:
    images = sum(each.n for each in one.bins)
    rows: Sequence[dict[str, Any]] = [
        {
            "confidence": rounded(100 * each.confidence),
            "accuracy": rounded(100 * each.accuracy),
            "images": each.n,
            "joined": each.n >= images / 100,
        }
        for each in one.bins
    ]
    scale = alt.Scale(domain=[-3, 106], nice=False)  # points and labels at the ends are whole
    ticks = [0, 25, 50, 75, 100]
    x = alt.X("confidence:Q", title="Probability (%)", scale=scale, axis=alt.Axis(values=ticks))
    y_axis = alt.Axis(values=ticks, labels=first, title="Right (%)" if first else None)
    y = alt.Y("accuracy:Q", scale=scale, axis=y_axis)
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x, y=y)
    even = alt.Chart(alt.InlineData(values=[{"confidence": end, "accuracy": end} for end in (0, 100)])).encode(x=x, y=y)
    size = alt.Size("images:Q", scale=alt.Scale(domain=[0, images], range=[8, 8 + 900 / math.sqrt(2)]), legend=None)
    titles = {"confidence:Q": "Mean probability (%)", "accuracy:Q": "Right (%)", "images:Q": "Images"}
    layers = [
        even.mark_line(strokeDash=[3, 3], strokeWidth=1, color="#767676"),
        base.transform_filter("datum.joined").mark_line(color=LEADING, strokeWidth=1.5),
        base.mark_point(filled=True, color=LEADING, fillOpacity=0.8, clip=True).encode(
            size=size, tooltip=tooltips(titles)
        ),
    ]
    words = f"ECE {100 * one.calibration_error:.2f} %"
    title = heading([one.condition, words] if several else [words], limit=width)
    return alt.layer(*layers).properties(width=width, height=width, title=title)
