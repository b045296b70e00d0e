"""How figures encode what they show: quantities on axes, conditions by colour and shape, values in steps of colour."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import altair as alt

from benchkit import NothingToDraw, PluginError
from benchkit.analysis import CONFIDENCE, candidates_of, estimate, estimate_metric
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
    def capital(self) -> str:
        """Return the name as it begins a sentence."""
        return f"{self.name[0].upper()}{self.name[1:]}"

    @property
    def title(self) -> str:
        """Return the axis title, such as `Test accuracy (%)`, or `Test Brier score`, which has no unit."""
        return f"{self.capital} ({self.unit})" if self.unit else self.capital

    @property
    def lower(self) -> bool:
        """Return whether less of it is better."""
        return metric_of(self.metric).lower_is_better

    def rank(self, value: float) -> float:
        """Return by what values are sorted, best first."""
        return value if self.lower else -value

    def shown(self, value: float) -> float:
        """Return a stored value in the unit, with six significant digits."""
        return float(f"{value * self.factor:.6g}")

    def plain(self, value: float) -> str:
        """Return a stored value in the unit without naming it, such as `92.31`."""
        scaled = value * self.factor
        return f"{scaled:.2f}" if self.unit == "%" else f"{scaled:.4f}" if self.unit == "nats" else f"{scaled:.4g}"

    def text(self, value: float) -> str:
        """Return a stored value in words, such as `92.31 %`."""
        return f"{self.plain(value)} {self.unit}".rstrip()

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


SPEEDS = ("seconds", "images_per_second", "best_seconds", "energy", "matrix_share")
"""Costs that compare on one device alone."""


def comparable_metric(results: StudyResults, metric: str) -> str:
    """Return a metric that a figure is asked for; raise `PluginError` for one that does not exist.

    Raises `NothingToDraw` for a speed where several models of devices trained the study.
    """
    scope, _, name = quantity(metric).metric.partition(".")
    if scope == "cost" and name in SPEEDS:
        devices = {one.device for trial in results.trials for one in trial.devices}
        if len(devices) > 1:
            raise NothingToDraw(f"trials were trained on {len(devices)} kinds of device, whose speeds do not compare")
    return metric


def check_split(figure: str, split: str) -> None:
    """Raise `PluginError` where a figure's option `split` names none."""
    if split not in SPLIT_WORDS:
        words = f"split = {split!r}: expected {', '.join(SPLIT_WORDS)}"
        raise PluginError(f"the figure {figure} was given wrong options", problems=[words])


def value_of(trial: Trial, metric: str) -> float | None:
    """Return a finished trial's finite value of `split.metric` or `cost.field`, or None when it has none."""
    value = trial.value(metric)
    return value if value is not None and math.isfinite(value) else None


def done_repeats(results: StudyResults, condition: Condition) -> tuple[Trial, ...]:
    """Return the done repeats of a condition by index, of each the attempt that counts."""
    return tuple(trial for trial in results.repeats(condition).values() if trial.state == "done")


def values_of(results: StudyResults, condition: Condition, metric: str) -> dict[int, float]:
    """Return the finite values of a metric of a condition's done repeats, by index."""
    values = {trial.index: value_of(trial, metric) for trial in done_repeats(results, condition)}
    return {index: value for index, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The mean of `n` values and the ends of its 95 % t interval; without one (n = 1) both ends are the mean."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(
    values: Sequence[float], metric: str = "", confidence: float = CONFIDENCE, resampled: float = 0.0
) -> Interval:
    """Return the mean of at least one value with its 95 % t interval, cut at the range of `metric` where it has one.

    `resampled` is that of results whose repeats are folds.

    The same estimate as in the report's tables; without spread (one value) both ends are the mean.
    """
    estimated = (
        estimate_metric(metric, values, confidence, resampled)
        if metric
        else estimate(values, confidence, resampled=resampled)
    )
    low, high = (estimated.mean if end is None else end for end in (estimated.low, estimated.high))
    return Interval(mean=estimated.mean, low=low, high=high, n=estimated.n)


Made = TypeVar("Made")

Layers = alt.LayerChart | alt.FacetChart
"""What `altair.layer` returns."""

DASHES = ((1, 0), (6, 2), (2, 2), (8, 2, 2, 2), (12, 3), (4, 2, 1, 2, 1, 2), (1, 3))
"""Dash patterns of lines in pixels; colours and shapes come from the report's own Vega configuration."""

WIDTH = 640
"""The width in pixels that a figure fills on a printed page."""

MOST_COLOURS = 8
"""So many colours are told apart. Of more conditions, figures colour the leading ones and leave the others grey."""

LEADING, OTHERS = "#1E78B4", "#767676"


def planned_labels(results: StudyResults) -> tuple[str, ...]:
    """Return the labels of all planned conditions in report order: the domain of every condition scale."""
    return tuple(condition.label for condition in results.conditions)


def other_losses(results: StudyResults) -> tuple[str, ...]:
    """Return the losses, each once, that conditions were trained by and that are not plain cross-entropy."""
    written = [condition.settings.get("train", {}).get("loss", "cross-entropy") for condition in results.conditions]
    used = [{"name": loss} if isinstance(loss, str) else loss for loss in written]
    return tuple(dict.fromkeys(str(loss["name"]) for loss in used if loss != {"name": "cross-entropy"}))


def may_be_best(results: StudyResults, metric: str) -> tuple[str, ...]:
    """Return the labels of the conditions that may be the best by a metric, as the report has it, best mean first."""
    return tuple(one.label for one in candidates_of(results, metric).open)


def by_condition(results: StudyResults, made: Callable[[Condition], Made | None]) -> tuple[list[Made], tuple[str, ...]]:
    """Return what is made of each condition that has something to show, in report order, and the labels of the others.

    A search itself has no repeats and is not among the others.
    """
    pairs = [(condition, made(condition)) for condition in results.conditions]
    without = tuple(condition.label for condition, item in pairs if item is None and condition.kind != "search")
    return [item for _, item in pairs if item is not None], without


def repeats_words(counts: Iterable[int]) -> str:
    """Return numbers of repeats in words, such as `3 repeats` or `2 to 3 repeats`."""
    known = sorted(set(counts))
    n = str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"
    return f"{n} repeat{'' if known[-1] == 1 else 's'}"


def listed(labels: Sequence[str], most: int = 6) -> str:
    """Return labels parted by commas, or by semicolons where they hold commas; more than `most` are counted."""
    mark = "; " if any("," in label for label in labels) else ", "
    if len(labels) <= most:
        return mark.join(labels)
    return f"{mark.join(labels[: most - 1])} and {len(labels) - most + 1} more"


def left_out(why: str, labels: Sequence[str]) -> list[str]:
    """Return a sentence of a caption for labels that are not shown, none where there are no such."""
    return [f"{why}: {listed(labels)}."] if labels else []


def rounded(value: float) -> float:
    """Return a number with four significant digits, as many as a chart shows."""
    return float(f"{value:.4g}")


def colour(
    labels: Sequence[str], drawn: Sequence[str] = (), symbol: str = "circle", leading: Sequence[str] | None = None
) -> alt.Color:
    """Return the colour of the field `condition`; the legend lists the conditions drawn, if there are several.

    Of more planned conditions than colours, the `leading` ones are blue and the others grey, where they are named.
    """
    if leading is not None and len(labels) > MOST_COLOURS:
        shades = [LEADING if label in leading else OTHERS for label in labels]
        return alt.Color("condition:N", scale=alt.Scale(domain=list(labels), range=shades), legend=None)
    return alt.Color("condition:N", scale=alt.Scale(domain=list(labels)), legend=_legend(drawn, symbol))


def dash(labels: Sequence[str], drawn: Sequence[str] = ()) -> alt.StrokeDash:
    """Return the dash pattern of the field `condition`, in one legend with its colour."""
    patterns = [list(DASHES[index % len(DASHES)]) for index in range(len(labels))]
    scale = alt.Scale(domain=list(labels), range=patterns)
    return alt.StrokeDash("condition:N", scale=scale, legend=_legend(drawn, "stroke"))


def shape(labels: Sequence[str]) -> alt.Shape:
    """Return the shape of the field `condition`, without a legend of its own."""
    return alt.Shape("condition:N", scale=alt.Scale(domain=list(labels)), legend=None)


def _legend(drawn: Sequence[str], symbol: str) -> alt.Legend | None:
    """Return a legend above the figure, with as many columns as its longest label lets fit."""
    if len(drawn) < 2:
        return None
    longest = min(max(len(label) for label in drawn), 36)
    columns = max(1, min(len(drawn), int(WIDTH / (longest * 6.4 + 36))))
    return alt.Legend(
        title=None,
        orient="top",
        direction="horizontal",
        columns=columns,
        values=list(drawn),
        symbolType=symbol,
        symbolSize=350 if symbol == "stroke" else 80,
    )


def label_width(labels: Sequence[str]) -> int:
    """Return about how many pixels an axis needs for these labels, at most 200."""
    return min(200, 14 + round(6.4 * max((len(label) for label in labels), default=0)))


def heading(words: str | Sequence[str], **options: Any) -> alt.TitleParams:
    """Return the title of a panel, in lines where there are several, with options such as `limit` in pixels."""
    return alt.TitleParams(words, anchor="start", frame="group", **options)


def tooltips(titles: Mapping[str, str]) -> list[alt.Tooltip]:
    """Return the lines of a tooltip by their titles: fields with their type, such as `epoch:Q`."""
    return [alt.Tooltip(field, title=title) for field, title in titles.items()]


def numbers_beside(rows: Sequence[Mapping[str, Any]], order: Sequence[str], **size: Any) -> alt.Chart:
    """Return the field `text` of each condition as a column beside a plot of the conditions in this order."""
    hidden = alt.Y("condition:N", sort=list(order), axis=None)
    numbers = alt.Chart(alt.InlineData(values=rows)).mark_text(align="left", fontSize=10.5)
    chart: alt.Chart = numbers.encode(y=hidden, x=alt.XValue(0), text=alt.Text("text:N")).properties(**size)
    return chart


def choice_of(name: str, labels: Sequence[str], value: str, words: str = "Condition ") -> alt.Parameter | None:
    """Return a selector of one of the labels for HTML, or None where there is one only."""
    if len(labels) < 2:
        return None
    return alt.param(name=name, value=value, bind=alt.binding_select(options=list(labels), name=words))


def panels_in_columns(panels: Sequence[Layers], labels: Sequence[str], columns: int, width: int, **data: Any) -> Any:
    """Return the only panel, or panels in columns under their labels, at most `width` wide each."""
    if len(panels) == 1:
        return panels[0].properties(**data) if data else panels[0]
    titled = [panel.properties(title=heading(label, limit=width)) for panel, label in zip(panels, labels, strict=True)]
    return alt.concat(*titled, columns=columns, spacing={"row": 12, "column": 16}, **data)


def panel_columns(labels: Sequence[str], most: int = 4, least: int = 2) -> int:
    """Return how many panels stand in a row so that each has room for its label: at most `most`, at least `least`.

    Among those, no last row with a single panel if that can be, then the fewest rows, then the fullest last one.
    """
    count, longest = len(labels), max((len(label) for label in labels), default=0)
    room = next((columns for columns in (6, 5, 4, 3) if longest * 6.6 <= (WIDTH - 72) / columns - 10), 2)
    top = max(1, min(most, max(room, least), count))
    choices = range(top, min(top, least) - 1, -1)
    return min(choices, key=lambda columns: (count > columns and count % columns == 1, -(-count // columns),
                                             -count % columns))  # fmt: skip


COLOURS = ("#E8EFF7", "#C7DAEC", "#A0C3E1", "#73A8D3", "#5596CB", "#2570AC", "#135590", "#0B3A69")
"""From light to dark blue."""

LIGHT, DARK = "#F6F8FB", "#1f2328"
"""Numbers on dark cells and on light ones."""

DARK_STEPS = 3
"""Of the colours, the last three carry light numbers; all numbers have a contrast of at least 4.5 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Steps of a quantity: their inner ends, ascending, their names and colours in the same order."""

    ends: tuple[float, ...]
    names: tuple[str, ...]
    colours: tuple[str, ...]

    def name(self, value: float) -> str:
        """Return the step that a value is in; a value on an end is in the step above it."""
        return self.names[sum(value >= end for end in self.ends)]

    def dark(self, value: float) -> bool:
        """Return whether the value's colour needs light numbers."""
        return self.colours[self.names.index(self.name(value))] in COLOURS[-DARK_STEPS:]

    def encoding(self, title: str) -> alt.Color:
        """Return the colour of the field `step`, with a legend below the figure."""
        return step_colour(self.names, self.colours, title)


def step_colour(names: Sequence[str], colours: Sequence[str], title: str, columns: int = 4) -> alt.Color:
    """Return the colour of the field `step`, with a legend of squares below the figure."""
    legend = alt.Legend(
        title=title,
        orient="bottom",
        direction="horizontal",
        columns=columns,
        symbolType="square",
        symbolSize=140,
        symbolStrokeWidth=0,
    )
    return alt.Color("step:O", scale=alt.Scale(domain=list(names), range=list(colours)), legend=legend)


def colour_steps(values: Sequence[float], *, lower_is_better: bool = False) -> Steps:
    """Return up to eight steps of round width over the values; the better end is the darker one."""
    ends = _ends(min(values), max(values))
    if not ends:
        return Steps(ends=(), names=(f"{values[0]:.4g}",), colours=(COLOURS[2],))
    inner = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(ends)]
    names = (f"under {ends[0]:g}", *inner, f"{ends[-1]:g} and over")
    colours = _spread(len(names))
    return Steps(ends=ends, names=names, colours=colours[::-1] if lower_is_better else colours)


def _spread(count: int) -> tuple[str, ...]:
    """Return colours as far apart as there is room for, without the lightest one where there are few."""
    first, last = (0 if count == len(COLOURS) else 1), len(COLOURS) - 1
    return tuple(COLOURS[round(first + index * (last - first) / (count - 1))] for index in range(count))


def _ends(low: float, high: float) -> tuple[float, ...]:
    """Return ends that are multiples of 1, 2, 2.5 or 5 times a power of ten; none when all values are equal."""
    if high - low <= 1e-9 * max(abs(high), 1.0):
        return ()
    power = 10.0 ** math.floor(math.log10((high - low) / len(COLOURS)))
    for width in (factor * power for factor in (1, 2, 2.5, 5, 10, 20, 25)):
        first, last = math.floor(low / width + 1e-9) + 1, math.ceil(high / width - 1e-9) - 1
        if last - first + 2 <= len(COLOURS):
            return tuple(float(f"{index * width:.10g}") for index in range(first, max(first, last) + 1))
    return (rounded((low + high) / 2),)
