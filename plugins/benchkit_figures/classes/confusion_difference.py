"""The difference of two conditions' confusion matrices: which errors one makes more often than the other."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Any

import altair as alt

from benchkit import NothingToDraw, PluginError, card
from benchkit.results import SPLITS, StudyResults
from benchkit_figures.classes.confusion_matrix import LABELLED_CLASSES, PIXEL_CLASSES, Confusion, ConfusionMatrix
from benchkit_figures.encodings import WIDTH, check_split, label_width, repeats_words, rounded

MOST_PAIRS = 20

ENDS = (-20, -10, -5, -1, 1, 5, 10, 20)
STEPS = ("-20 or less", "-20 to -10", "-10 to -5", "-5 to -1", "-1 to 1", "1 to 5", "5 to 10", "10 to 20", "20 or more")
COLOURS = ("#A63E00", "#D9772E", "#EDAE7C", "#F7DCC6", "#F6F8FB", "#CFE0EF", "#91BBDD", "#5596CB", "#135590")
"""From orange over nearly white to blue: told apart under colour-vision deficiencies."""

DARK_FROM = 20
"""Cells from this many points on, either way, are dark and carry light numbers."""


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

    `pairs` are the cells that changed most, greatest change first.
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


@card(
    title="Difference of confusion",
    summary="Which classes one condition takes for others more often than another does, in percentage points.",
    choices={"split": SPLITS},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionDifference:
    """The confusion of `first` minus that of `second` on `split` (default: the best minus the worst condition)."""

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
        second = self.second or next(label for label in labels[::-1] if label != first)
        if first == second:
            raise _wrong([f"first and second are both {first!r}"])
        return _difference(self.split, given.classes, given.matrix(first), given.matrix(second))

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
            parts[0] = f"{parts[0][:-1]}: the best and the worst condition."
        if len(data.classes) > PIXEL_CLASSES:
            parts.append(f"The {len(data.pairs)} pairs of classes that changed most, of {len(data.classes)} classes.")
        parts.append(
            f"Blue: more often in {data.first}; orange: more often in {data.second}. On the diagonal, blue means that "
            f"{data.first} is right more often. No interval is drawn."
        )
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


def _difference(split: str, classes: tuple[str, ...], first: Confusion, second: Confusion) -> DifferenceData:
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
        split=split,
        first=first.condition,
        second=second.condition,
        n_first=first.n,
        n_second=second.n,
        accuracy_first=first.accuracy,
        accuracy_second=second.accuracy,
        classes=classes,
        difference=cells,
        pairs=tuple(pairs[:MOST_PAIRS]),
    )


def heatmap(data: DifferenceData) -> Any:
    """Return a cell for each pair of classes, coloured by the difference; small differences carry no number."""
    classes, count = list(data.classes), len(data.classes)
    size = max(6, min(44, (WIDTH - label_width(classes) - 40) // count))
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
    layers = [base.mark_rect().encode(color=_color(_legend(at_right)))]
    if count <= LABELLED_CLASSES:
        ink = alt.condition(f"abs(datum.difference) >= {DARK_FROM}", alt.value("#F6F8FB"), alt.value("#1f2328"))
        text = base.transform_filter("abs(datum.difference) >= 1").mark_text(fontSize=min(11, max(7, size // 3)))
        layers.append(text.encode(text=alt.Text("difference:Q", format="+.0f"), color=ink))
    return alt.layer(*layers).properties(width=size * count, height=size * count)


def changed_pairs(data: DifferenceData) -> Any:
    """Return a row for each pair with a bar to the left or right, and both percentages beside it."""
    rows: list[dict[str, Any]] = [
        {
            "pair": f"{pair.true} → {pair.called}" if pair.true != pair.called else f"{pair.true}, right",
            "difference": rounded(pair.difference),
            "step": STEPS[bisect.bisect_right(ENDS, pair.difference)],
            "text": f"{pair.first:.1f} % / {pair.second:.1f} %",
        }
        for pair in data.pairs
    ]
    order = [row["pair"] for row in rows]
    base = alt.Chart(alt.InlineData(values=rows))
    y = alt.Y("pair:N", sort=order, title=None, axis=alt.Axis(domain=False, ticks=False, labelLimit=200))
    x = alt.X("difference:Q", title="Difference (percentage points)", axis=alt.Axis(tickCount=6, format="+"))
    bars = base.mark_bar(size=11).encode(x=x, y=y, color=_color(None))
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(strokeOpacity=0.6).encode(x="zero:Q")
    plot = alt.layer(bars, zero).properties(width=WIDTH - label_width(order) - 150, height=alt.Step(18))
    title = alt.TitleParams(f"{data.first} / {data.second}", anchor="start", limit=150)
    numbers = base.mark_text(align="left", fontSize=10.5).encode(
        y=alt.Y("pair:N", sort=order, axis=None), x=alt.value(0), text="text:N"
    )
    return alt.hconcat(plot, numbers.properties(width=110, height=alt.Step(18), title=title), spacing=8)


def _color(legend: alt.Legend | None) -> alt.Color:
    return alt.Color("step:O", scale=alt.Scale(domain=list(STEPS), range=list(COLOURS)), legend=legend)


def _legend(at_right: bool) -> alt.Legend:
    position: dict[str, Any] = (
        {"orient": "right"} if at_right else {"orient": "bottom", "direction": "horizontal", "columns": 5}
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
    return [
        {
            "true": true,
            "called": called,
            "difference": rounded(value),
            "step": STEPS[bisect.bisect_right(ENDS, value)],
        }
        for true, row in zip(data.classes, data.difference, strict=True)
        for called, value in zip(data.classes, row, strict=True)
    ]
