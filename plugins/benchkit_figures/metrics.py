"""Metrics as figures need them: a trial's finite value, the words and units of an axis, and t intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchkit import PluginError
from benchkit.analysis import estimate, estimate_metric
from benchkit.metrics import COSTS, metric_of, score_metrics
from benchkit.plan import Condition
from benchkit.results import StudyResults, Trial

SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A metric in words: `name` without unit, `unit`, and the `factor` from stored values to that unit."""

    metric: str
    name: str
    unit: str
    factor: float

    @property
    def title(self) -> str:
        """Return the axis title, such as `Test accuracy (%)`."""
        return f"{self.name[0].upper()}{self.name[1:]} ({self.unit})"

    def shown(self, value: float) -> float:
        """Return a stored value in the unit, with six significant digits."""
        return float(f"{value * self.factor:.6g}")

    def plain(self, value: float) -> str:
        """Return a stored value in the unit without naming it, such as `92.31`."""
        scaled = value * self.factor
        return f"{scaled:.2f}" if self.unit == "%" else f"{scaled:.4f}" if self.unit == "nats" else f"{scaled:.4g}"

    def text(self, value: float) -> str:
        """Return a stored value in words, such as `92.31 %`."""
        return f"{self.plain(value)} {self.unit}"

    def common(self, other: Quantity) -> str:
        """Return the words for an axis of both quantities: `Accuracy` for that of test and validation."""
        words = metric_of(self.metric).on_axis[0]
        shared = (
            words if self.metric.partition(".")[2] == other.metric.partition(".")[2] else f"{other.name}, {self.name}"
        )
        return shared[0].upper() + shared[1:]


def quantity(metric: str) -> Quantity:
    """Return how to show `split.metric` or `cost.field`; raise `PluginError` for a metric that does not exist."""
    known = (*score_metrics(), *(f"cost.{cost.name}" for cost in COSTS))
    if metric in known:
        words, unit, factor = metric_of(metric).on_axis
        split = SPLIT_WORDS.get(metric.partition(".")[0], "")
        return Quantity(metric=metric, name=f"{split} {words}".lstrip(), unit=unit, factor=factor)
    raise PluginError(f"a figure was asked for an unknown metric, {metric!r}", problems=[f"known: {', '.join(known)}"])


def check_split(figure: str, split: str) -> None:
    """Raise `PluginError` where a figure's option `split` names none."""
    if split not in SPLIT_WORDS:
        words = f"split = {split!r}: expected {', '.join(SPLIT_WORDS)}"
        raise PluginError(f"the figure {figure} was given wrong options", problems=[words])


def lower_is_better(metric: str) -> bool:
    """Return whether a smaller value of the metric is better."""
    return metric_of(metric).lower_is_better


def value_of(trial: Trial, metric: str) -> float | None:
    """Return a finished trial's finite value of `split.metric` or `cost.field`, or None when it has none."""
    value = trial.value(metric)
    return value if value is not None and math.isfinite(value) else None


def done_repeats(results: StudyResults, condition: Condition) -> tuple[Trial, ...]:
    """Return the done repeats of a condition by index, of each the attempt that counts."""
    return tuple(trial for trial in results.repeats(condition).values() if trial.state == "done")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The mean of `n` values and the ends of its 95 % t interval; without one (n = 1) both ends are the mean."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: Sequence[float], metric: str = "") -> Interval:
    """Return the mean of at least one value with its 95 % t interval, cut at the range of `metric` where it has one.

    The same estimate as in the report's tables; without spread (one value) both ends are the mean.
    """
    estimated = estimate_metric(metric, values) if metric else estimate(values)
    low, high = (estimated.mean if end is None else end for end in (estimated.low, estimated.high))
    return Interval(mean=estimated.mean, low=low, high=high, n=estimated.n)
