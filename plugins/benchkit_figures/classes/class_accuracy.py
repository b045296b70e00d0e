"""Accuracy by class: which classes each condition finds hard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import altair as alt

from benchkit import NothingToDraw, card
from benchkit.analysis import wilson
from benchkit.results import SPLITS, StudyResults
from benchkit_figures.classes.confusion_matrix import Confusion, ConfusionMatrix
from benchkit_figures.encodings import (
    DARK,
    LIGHT,
    WIDTH,
    Layers,
    Steps,
    check_split,
    colour,
    colour_steps,
    label_width,
    left_out,
    planned_labels,
    repeats_words,
    rounded,
    shape,
    tooltips,
)

if TYPE_CHECKING:
    from benchkit_figures.classes.confusion_matrix import ConfusionData

FEW_CONDITIONS = 4
"""Up to this many conditions stand as points with intervals; more of them make a table of colours."""

MOST_CLASSES = 25

LEAST_CELL = 24
"""Cells of this width in pixels have room for their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassShare:
    """How many images of a class a condition names rightly, summed over repeats, with the 95 % Wilson interval."""

    name: str
    right: int
    of: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionClasses:
    """A condition's classes that have images, in label order, over `n` repeats."""

    condition: str
    n: int
    classes: tuple[ClassShare, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassData:
    """All classes of all conditions; `shown` are the classes drawn, hardest first."""

    split: str
    labels: tuple[str, ...]
    conditions: tuple[ConditionClasses, ...]
    shown: tuple[str, ...]
    without: tuple[str, ...]

    @property
    def count(self) -> int:
        """Return the number of classes that have images."""
        return len({share.name for condition in self.conditions for share in condition.classes})


@card(
    title="Accuracy by class",
    summary="The share of each class that a condition names rightly, with Wilson intervals over images.",
    reference="Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22, 1927",
    url="https://doi.org/10.1080/01621459.1927.10502953",
    choices={"split": SPLITS},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAccuracy:
    """Accuracy by class on `split`, hardest class first; above 25 classes the hardest 25."""

    split: str = "test"

    def data(self, results: StudyResults) -> ClassData:
        """Return right and all images of every class, summed over repeats, in every condition with a done repeat."""
        check_split("class-accuracy", self.split)
        confusion = ConfusionMatrix(split=self.split).data(results)
        matrices = {matrix.condition: matrix for matrix in confusion.matrices}
        conditions = tuple(_classes(matrices[c.label], confusion) for c in results.conditions if c.label in matrices)
        if not any(condition.classes for condition in conditions):
            raise NothingToDraw(f"there is no image on {self.split}")
        without = tuple(c.label for c in results.conditions if c.label not in matrices and c.kind != "search")
        return ClassData(
            split=self.split,
            labels=planned_labels(results),
            conditions=conditions,
            shown=_hardest(conditions)[:MOST_CLASSES],
            without=without,
        )

    def draw(self, data: ClassData) -> Any:
        """Return points with intervals for a few conditions, a table in steps of colour for more."""
        return intervals(data) if len(data.conditions) <= FEW_CONDITIONS else table(data)

    def caption(self, data: ClassData) -> str:
        """Return what is shown, over how many repeats, and which uncertainty the bars are."""
        n = repeats_words(condition.n for condition in data.conditions)
        summed = f", summed over {n}" if any(condition.n > 1 for condition in data.conditions) else ", one repeat"
        sizes = sorted({share.of for condition in data.conditions for share in condition.classes})
        images = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        parts = [
            f"Accuracy by class on {data.split} images{summed} ({images} predictions a class), hardest class first."
        ]
        if len(data.shown) < data.count:
            parts.append(f"The hardest {len(data.shown)} of {data.count} classes.")
        bars = "Bars" if len(data.conditions) <= FEW_CONDITIONS else "In the data of this figure"
        parts.append(f"{bars}: 95 % Wilson intervals, the uncertainty over images of the class, not over random seeds.")
        if any(condition.n > 1 for condition in data.conditions):
            parts.append("Repeats share their images, so the intervals are on the narrow side.")
        parts += left_out("Without a finished repeat", data.without)
        return " ".join(parts)

    def alt_text(self, data: ClassData) -> str:
        """Return one sentence with the hardest class and the least accuracy of any class."""
        hardest = data.shown[0]
        least, condition = min(
            ((share, condition) for condition in data.conditions for share in condition.classes),
            key=lambda pair: pair[0].accuracy,
        )
        values = [100 * share.accuracy for one in data.conditions for share in one.classes if share.name == hardest]
        if len(values) == 1:
            words = f"{values[0]:.1f} % right ({least.right} of {least.of})"
            return f"The hardest class of {condition.condition} is {hardest}, {words}."
        return (
            f"The hardest class on average is {hardest} ({min(values):.1f} % to {max(values):.1f} % right by "
            f"condition); the least accuracy of all is that of {condition.condition} on {least.name}, "
            f"{100 * least.accuracy:.1f} %."
        )


def _classes(matrix: Confusion, data: ConfusionData) -> ConditionClasses:
    shares = []
    for label, row in enumerate(matrix.counts):
        if sum(row):
            interval = wilson(row[label], sum(row))
            shares.append(
                ClassShare(
                    name=data.classes[label],
                    right=interval.successes,
                    of=interval.n,
                    accuracy=interval.share,
                    low=interval.low,
                    high=interval.high,
                )
            )
    return ConditionClasses(condition=matrix.condition, n=matrix.n, classes=tuple(shares))


def _hardest(conditions: tuple[ConditionClasses, ...]) -> tuple[str, ...]:
    """Return the classes by their mean accuracy over conditions, least first."""
    values: dict[str, list[float]] = {}
    for condition in conditions:
        for share in condition.classes:
            values.setdefault(share.name, []).append(share.accuracy)
    return tuple(sorted(values, key=lambda name: sum(values[name]) / len(values[name])))


def intervals(data: ClassData) -> Layers:
    """Return a row for each class with a point and a bar for each condition beside each other."""
    drawn = [condition.condition for condition in data.conditions]
    offset = alt.YOffset("condition:N", scale=alt.Scale(domain=drawn))
    grid = alt.Axis(domain=False, ticks=False, grid=True, tickBand="extent", labelLimit=200)
    y = alt.Y("class:N", sort=list(data.shown), title=None, axis=grid)
    title = f"{data.split.capitalize()} accuracy of the class (%)"
    scale = alt.Scale(domain=_domain(data), nice=False, zero=False)
    base = alt.Chart(alt.InlineData(values=_rows(data, _steps(data)))).encode(y=y, color=colour(data.labels, drawn))
    if len(drawn) > 1:
        base = base.encode(yOffset=offset)
    bars = base.mark_rule(strokeWidth=1.8).encode(x=alt.X("low:Q", title=title, scale=scale), x2=alt.X2("high:Q"))
    points = base.mark_point(filled=True, size=42, fillOpacity=1).encode(
        x=alt.X("accuracy:Q", title=title, scale=scale), shape=shape(data.labels), tooltip=_tooltip()
    )
    step = max(18, 11 * len(drawn) + 4) if len(data.shown) <= 12 else max(14, 8 * len(drawn) + 3)
    width = WIDTH - label_width(data.shown) - 24
    return alt.layer(bars, points).properties(width=width, height=alt.Step(step, **{"for": "position"}))


def table(data: ClassData) -> Layers:
    """Return a cell for each class and condition, coloured in steps of accuracy, with its percentage."""
    drawn = [condition.condition for condition in data.conditions]
    width = WIDTH - label_width(data.shown) - 34
    size = min(60, width // len(drawn))
    upright = max(map(len, drawn)) * 6 <= size
    axis = alt.Axis(orient="top", ticks=False, domain=False, labelAngle=0 if upright else -45, labelLimit=150)
    steps = _steps(data)
    base = alt.Chart(alt.InlineData(values=_rows(data, steps))).encode(
        x=alt.X("condition:N", sort=drawn, scale=alt.Scale(domain=drawn), title=None, axis=axis),
        y=alt.Y("class:N", sort=list(data.shown), title=None, axis=alt.Axis(ticks=False, domain=False)),
        tooltip=_tooltip(),
    )
    layers = [base.mark_rect().encode(color=steps.encoding("Accuracy (%)"))]
    if size >= LEAST_CELL:
        ink = alt.condition("datum.dark", alt.value(LIGHT), alt.value(DARK))
        # On a phone the columns are narrower than they are made here.
        fits = alt.expr(f"bandwidth('x') < {LEAST_CELL} ? 0 : 1")
        text = base.mark_text(fontSize=10 if size >= 30 else 9, opacity=fits)
        layers.append(text.encode(text=alt.Text("accuracy:Q", format=".1f"), color=ink))
    height = alt.Step(22 if len(data.shown) <= 12 else 17)
    return alt.layer(*layers).properties(width=size * len(drawn), height=height)


def _domain(data: ClassData) -> list[float]:
    shares = [share for condition in data.conditions for share in condition.classes if share.name in data.shown]
    low, high = 100 * min(share.low for share in shares), 100 * max(share.high for share in shares)
    pad = 0.03 * (high - low) or 1.0
    return [max(0.0, rounded(low - pad)), min(100.0, rounded(high + pad))]


def _steps(data: ClassData) -> Steps:
    shares = [share for condition in data.conditions for share in condition.classes if share.name in data.shown]
    return colour_steps([_percent(share.accuracy) for share in shares])


def _rows(data: ClassData, steps: Steps) -> list[dict[str, Any]]:
    return [
        {
            "condition": condition.condition,
            "class": share.name,
            "accuracy": _percent(share.accuracy),
            "low": _percent(share.low),
            "high": _percent(share.high),
            "right": share.right,
            "of": share.of,
            "step": steps.name(_percent(share.accuracy)),
            "dark": steps.dark(_percent(share.accuracy)),
        }
        for condition in data.conditions
        for share in condition.classes
        if share.name in data.shown
    ]


def _percent(share: float) -> float:
    return rounded(100 * share)


def _tooltip() -> list[alt.Tooltip]:
    titles = {"condition:N": "Condition", "class:N": "Class", "accuracy:Q": "Accuracy (%)", "low:Q": "Interval from"}
    return tooltips(titles | {"high:Q": "Interval to", "right:Q": "Right", "of:Q": "Of"})
