"""The difference of two conditions' confusion matrices: which errors one makes more often than the other."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import altair as alt

from benchkit import NothingToDraw, PluginError, card
from benchkit.results import SPLITS, StudyResults
from benchkit_figures.classes.confusion_matrix import (
    LABELLED_CLASSES,
    PIXEL_CLASSES,
    Confusion,
    ConfusionData,
    ConfusionMatrix,
    worst_that_learned,
    worst_words,
)
from benchkit_figures.encodings import (
    DARK,
    LIGHT,
    OTHERS,
    WIDTH,
    Steps,
    check_split,
    label_width,
    repeats_words,
    rounded,
)

MOST_PAIRS = 20

ENDS = (-20, -10, -5, -1, 1, 5, 10, 20)
SCALES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
"""What the ends are multiplied by: the first at which the greatest difference is in one of the outer steps."""

COLOURS = ("#A63E00", "#D9772E", "#EDAE7C", "#F7DCC6", "#F6F8FB", "#CFE0EF", "#91BBDD", "#5596CB", "#135590")
"""From orange to blue: told apart under colour-vision deficiencies. The middle one is not drawn."""

LIGHT_IN = (0, 8)
"""The steps whose cells are so dark that they carry light numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedPair:
    """A cell: percent of the true class in each condition, and the first minus the second in percentage points."""

    true: str
    called: str
    first: float
    second: float
    difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceData:
    """The difference of two conditions over `n_first` and `n_second` repeats, in percentage points of each true class.

    `pairs` are the cells that changed most, greatest change first; `second_words` says which condition the second is.
    """

    split: str
    first: str
    second: str
    n_first: int
    n_second: int
    accuracy_first: float
    accuracy_second: float
    classes: tuple[str, ...]
    difference: tuple[tuple[float, ...], ...]
    pairs: tuple[ChangedPair, ...]
    second_words: str

    @property
    def scale(self) -> float:
        """Return the least difference that is coloured, in percentage points."""
        most = max((abs(pair.difference) for pair in self.pairs), default=0.0)
        return next((scale for scale in SCALES if most >= 10 * scale), SCALES[-1])

    @property
    def steps(self) -> Steps:
        """Return the steps of colour, which follow how great the differences are."""
        ends = tuple(float(f"{end * self.scale:.4g}") for end in ENDS)
        inner = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(ends)]
        return Steps(ends=ends, names=(f"{ends[0]:g} or less", *inner, f"{ends[-1]:g} or more"), colours=COLOURS)


@card(
    title="Difference of confusion",
    summary="Which classes one condition takes for others more often than another does, in percentage points.",
    choices={"split": SPLITS},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionDifference:
    """The confusion of `first` minus that of `second` on `split`.

    By default the best condition minus the worst of those that name at least half as many images rightly.
    """

    first: str = ""
    second: str = ""
    split: str = "test"

    def data(self, results: StudyResults) -> DifferenceData:
        """Return the difference of two conditions; raise `PluginError` for labels without a finished repeat."""
        check_split("confusion-difference", self.split)
        given = ConfusionMatrix(split=self.split).data(results)
        labels = [matrix.condition for matrix in given.matrices]
        named = {"first": self.first, "second": self.second}
        unknown = [f"{name} = {label!r}" for name, label in named.items() if label and label not in labels]
        if unknown:
            raise _wrong([f"{words}: expected one of {', '.join(labels)}" for words in unknown])
        if len(labels) < 2:
            raise NothingToDraw(f"only one condition, {labels[0]}, has finished: nothing to compare it with")
        first = self.first or next(label for label in labels if label != self.second)
        second = self.second or worst_that_learned(given.matrices, first)
        if first == second:
            raise _wrong([f"first and second are both {first!r}"])
        return _difference(given, given.matrix(first), given.matrix(second))

    def draw(self, data: DifferenceData) -> Any:
        """Return a heatmap, or above 50 classes the pairs that changed most."""
        return changed_pairs(data) if len(data.classes) > PIXEL_CLASSES else heatmap(data)

    def caption(self, data: DifferenceData) -> str:
        """Return what is subtracted from what, over how many repeats, and how to read the colours."""
        n = repeats_words((data.n_first, data.n_second))
        parts = [
            f"Confusion of {data.first} ({100 * data.accuracy_first:.2f} % correct) minus that of {data.second} "
            f"({100 * data.accuracy_second:.2f} %) on {data.split} images, in percentage points of each true class, "
            f"summed over {n}."
        ]
        if not self.first and not self.second:
            parts[0] = f"{parts[0][:-1]}: the best condition and {data.second_words}."
        if len(data.classes) > PIXEL_CLASSES:
            parts.append(f"The {len(data.pairs)} pairs of classes that changed most, of {len(data.classes)} classes.")
        parts.append(
            f"Blue: more often in {data.first}; orange: more often in {data.second}. On the diagonal, blue means that "
            f"{data.first} is right more often. No interval is drawn."
        )
        if len(data.classes) <= PIXEL_CLASSES:
            parts.append(f"Blank: a difference under {data.scale:g} percentage point{'' if data.scale == 1 else 's'}.")
        return " ".join(parts)

    def alt_text(self, data: DifferenceData) -> str:
        """Return one sentence with the cell that changed most."""
        if not data.pairs:
            return f"The confusion of {data.first} and {data.second} is the same on all {len(data.classes)} classes."
        pair = data.pairs[0]
        words = "rightly" if pair.true == pair.called else f"for {pair.called}"
        verb = "names" if pair.true == pair.called else "takes"
        return (
            f"The greatest difference: {data.first} {verb} {pair.first:.1f} % of {pair.true} {words}, {data.second} "
            f"{pair.second:.1f} %."
        )


def _wrong(problems: list[str]) -> PluginError:
    return PluginError("the figure confusion-difference was given wrong options", problems=problems)


def _difference(given: ConfusionData, first: Confusion, second: Confusion) -> DifferenceData:
    classes = given.classes
    cells = tuple(
        tuple(cell - other for cell, other in zip(row, other_row, strict=True))
        for row, other_row in zip(first.percent, second.percent, strict=True)
    )
    pairs = [
        ChangedPair(
            true=classes[true],
            called=classes[called],
            first=first.percent[true][called],
            second=second.percent[true][called],
            difference=value,
        )
        for true, row in enumerate(cells)
        for called, value in enumerate(row)
        if value
    ]
    pairs.sort(key=lambda pair: -abs(pair.difference))
    return DifferenceData(
        split=given.split,
        first=first.condition,
        second=second.condition,
        n_first=first.n,
        n_second=second.n,
        accuracy_first=first.accuracy,
        accuracy_second=second.accuracy,
        classes=classes,
        difference=cells,
        pairs=tuple(pairs[:MOST_PAIRS]),
        second_words=worst_words(given, second.condition),
    )


def heatmap(data: DifferenceData) -> Any:
    """Return a cell for each pair of classes, coloured by the difference; small differences carry no number."""
    classes, count = list(data.classes), len(data.classes)
    size = max(6, min(30, (WIDTH - label_width(classes) - 40) // count))
    axis: dict[str, Any] = {"ticks": False, "domain": False, "labelOverlap": count > LABELLED_CLASSES}
    upright = max(map(len, classes)) * 6 <= size
    base = alt.Chart(alt.InlineData(values=_cells(data))).encode(
        x=alt.X(
            "called:O", sort=classes, title="Predicted class", axis=alt.Axis(labelAngle=0 if upright else -45, **axis)
        ),
        y=alt.Y("true:O", sort=classes, title="True class", axis=alt.Axis(**axis)),
        tooltip=[
            alt.Tooltip("true:N", title="True class"),
            alt.Tooltip("called:N", title="Predicted class"),
            alt.Tooltip("difference:Q", title="Difference (points)", format="+.2f"),
        ],
    )
    at_right = size * count <= WIDTH - 190 - label_width(classes)
    told = base.transform_filter(f"datum.step != '{data.steps.names[4]}'")
    layers = [told.mark_rect().encode(color=_color(data, _legend(at_right)))]
    if count <= LABELLED_CLASSES:
        dark = " || ".join(f"datum.step == '{data.steps.names[index]}'" for index in LIGHT_IN)
        text = told.mark_text(fontSize=min(11, max(7, size // 3)))
        digits = 0 if data.scale == 1 else 1 if data.scale >= 0.1 else 2
        words = alt.Text("difference:Q", format=f"+.{digits}f")
        layers.append(text.encode(text=words, color=alt.condition(dark, alt.value(LIGHT), alt.value(DARK))))
    view = alt.ViewBackground(stroke=OTHERS, strokeOpacity=0.3)
    return alt.layer(*layers).properties(width=size * count, height=size * count, view=view)


def changed_pairs(data: DifferenceData) -> Any:
    """Return a row for each pair with a bar to the left or right, and both percentages beside it."""
    rows: list[dict[str, Any]] = [
        {
            "pair": f"{pair.true} → {pair.called}" if pair.true != pair.called else f"{pair.true}, right",
            "difference": rounded(pair.difference),
            "step": data.steps.name(pair.difference),
            "text": f"{pair.first:.1f} % / {pair.second:.1f} %",
        }
        for pair in data.pairs
    ]
    order = [row["pair"] for row in rows]
    base = alt.Chart(alt.InlineData(values=rows))
    y = alt.Y("pair:N", sort=order, title=None, axis=alt.Axis(domain=False, ticks=False, labelLimit=200))
    x = alt.X("difference:Q", title="Difference (percentage points)", axis=alt.Axis(tickCount=6, format="+"))
    bars = base.mark_bar(size=11).encode(x=x, y=y, color=_color(data, None))
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(strokeOpacity=0.6).encode(x=alt.X("zero:Q"))
    plot = alt.layer(bars, zero).properties(width=WIDTH - label_width(order) - 150, height=alt.Step(18))
    title = alt.TitleParams(f"{data.first} / {data.second}", anchor="start", limit=150)
    numbers = base.mark_text(align="left", fontSize=10.5).encode(
        y=alt.Y("pair:N", sort=order, axis=None), x=alt.XValue(0), text=alt.Text("text:N")
    )
    return alt.hconcat(plot, numbers.properties(width=110, height=alt.Step(18), title=title), spacing=8)


def _color(data: DifferenceData, legend: alt.Legend | None) -> alt.Color:
    """Return the colour of the field `step`; the middle step, which is blank, is not in the legend."""
    told = [(name, colour) for index, (name, colour) in enumerate(zip(data.steps.names, COLOURS, strict=True))
            if index != 4]  # fmt: skip
    names, colours = zip(*told, strict=True)
    return alt.Color("step:O", scale=alt.Scale(domain=list(names), range=list(colours)), legend=legend)


def _legend(at_right: bool) -> alt.Legend:
    position: dict[str, Any] = (
        {"orient": "right"} if at_right else {"orient": "bottom", "direction": "horizontal", "columns": 4}
    )
    return alt.Legend(
        title="Difference (percentage points)",
        symbolType="square",
        symbolSize=150,
        symbolStrokeWidth=0.5,
        symbolStrokeColor="#808080",
        **position,
    )


def _cells(data: DifferenceData) -> list[dict[str, Any]]:
    steps = data.steps
    return [
        {
            "true": true,
            "called": called,
            "difference": rounded(value),
            "step": steps.name(value),
        }
        for true, row in zip(data.classes, data.difference, strict=True)
        for called, value in zip(data.classes, row, strict=True)
    ]
