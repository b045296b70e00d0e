"""Confusion matrices: which classes are taken for which, as percent of each true class."""

from __future__ import annotations

import base64
import bisect
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import altair as alt
from PIL import Image

from benchkit import NothingToDraw, PluginError, card
from benchkit.plan import Condition
from benchkit.results import SPLITS, SplitMetrics, StudyResults
from benchkit_figures.encodings import (
    COLOURS,
    DARK,
    LIGHT,
    OTHERS,
    WIDTH,
    Layers,
    check_split,
    choice_of,
    done_repeats,
    label_width,
    rounded,
    step_colour,
)

MOST_PAIRS = 12

FEW_CLASSES = 12
"""Up to this many classes two matrices stand side by side."""

LABELLED_CLASSES = 25
"""Up to this many classes cells carry their number."""

PIXEL_CLASSES = 50
"""Above this many classes the matrix is a picture."""

MOST_CELLS = 20_000
"""More cells than this over all conditions are not put into the HTML: only the matrices shown are."""

ENDS = (1, 2, 5, 10, 20, 40, 70)
STEPS = ("under 1", "1 to 2", "2 to 5", "5 to 10", "10 to 20", "20 to 40", "40 to 70", "70 and over")
LEGEND = "% of true class"
EMPTY = "#F6F8FB"
DARK_FROM = 20
"""Cells from this percentage on are dark and carry light numbers."""

LEAST_NUMBER = 0.5
"""Cells carry their number from this percentage on, where it is no longer rounded to 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """A condition's matrix: counts summed over `n` repeats, and percent of each true class (rows sum to 100 or 0).

    `accuracy` is the mean over repeats; `pairs` are the most frequent errors as (true, predicted, percent).
    """

    condition: str
    n: int
    accuracy: float
    counts: tuple[tuple[int, ...], ...]
    percent: tuple[tuple[float, ...], ...]
    pairs: tuple[tuple[int, int, float], ...] = field(metadata={"apart": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionData:
    """The matrices of all conditions, best accuracy first, and the labels of those that print shows."""

    split: str
    classes: tuple[str, ...]
    matrices: tuple[Confusion, ...]
    shown: tuple[str, ...]

    def matrix(self, label: str) -> Confusion:
        """Return the matrix of a condition."""
        return next(matrix for matrix in self.matrices if matrix.condition == label)


@card(
    title="Confusion matrix",
    summary="Which classes are taken for which, in percent of each true class, summed over repeats.",
    choices={"split": SPLITS},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionMatrix:
    """Confusion on `split`: of two conditions in print, any in HTML.

    The two are the `conditions` named, by default the best one and the worst of those that name at least half as many
    images rightly: beside a network that learned nothing every other one looks alike.
    """

    split: str = "test"
    conditions: tuple[str, ...] = ()

    def data(self, results: StudyResults) -> ConfusionData:
        """Return the matrices of all conditions with a done repeat; raise `PluginError` for unknown labels."""
        check_split("confusion-matrix", self.split)
        matrices = [m for condition in results.conditions if (m := _confusion(results, condition, self.split))]
        if not matrices:
            raise NothingToDraw(f"no repeat has finished with a confusion matrix on {self.split}")
        matrices.sort(key=lambda matrix: -matrix.accuracy)
        count = len(matrices[0].counts)
        names = results.class_names if len(results.class_names) == count else tuple(map(str, range(count)))
        return ConfusionData(split=self.split, classes=names, matrices=tuple(matrices), shown=self._shown(matrices))

    def draw(self, data: ConfusionData) -> Any:
        """Return heatmaps, or above 50 classes a picture of one pixel per cell with the most confused pairs."""
        return pixels(data) if len(data.classes) > PIXEL_CLASSES else heatmaps(data)

    def caption(self, data: ConfusionData) -> str:
        """Return what a cell is, over how many repeats, and which conditions are shown."""
        first = data.matrix(data.shown[0])
        named = data.shown if len(data.classes) <= FEW_CLASSES else data.shown[:1]
        which = " and ".join(f"{label} ({100 * data.matrix(label).accuracy:.2f} % correct)" for label in named)
        parts = [
            f"Confusion on {data.split} images, in percent of each true class, summed over {first.n} "
            f"repeat{'' if first.n == 1 else 's'}: {which}."
        ]
        if len(data.matrices) > 1 and not self.conditions:
            parts.append(
                f"The best condition and {worst_words(data, named[1])}." if len(named) == 2 else "The best one."
            )
        if len(data.matrices) > len(named):
            parts.append("In HTML the condition can be chosen.")
        return " ".join([*parts, *_blanks(data, named)])

    def alt_text(self, data: ConfusionData) -> str:
        """Return one sentence with the most frequent error of the first matrix shown."""
        matrix = data.matrix(data.shown[0])
        if not matrix.pairs:
            return f"{matrix.condition} makes no error on the {data.split} images."
        true, predicted, percent = matrix.pairs[0]
        return (
            f"The most frequent error of {matrix.condition}: {percent:.1f} % of {data.classes[true]} "
            f"are taken for {data.classes[predicted]}."
        )

    def _shown(self, matrices: Sequence[Confusion]) -> tuple[str, ...]:
        labels = [matrix.condition for matrix in matrices]
        unknown = [label for label in self.conditions if label not in labels]
        if unknown:
            raise PluginError(
                "the figure confusion-matrix was asked for conditions that have no finished repeat",
                problems=[f"{label!r}: expected one of {', '.join(labels)}" for label in unknown],
            )
        if self.conditions:
            return tuple(self.conditions[:2])
        return (labels[0], *([worst_that_learned(matrices, labels[0])] if len(labels) > 1 else []))


def worst_that_learned(matrices: Sequence[Confusion], besides: str) -> str:
    """Return the last of the conditions, best first, with at least half of the best accuracy, the second without one.

    It is another one than `besides`.
    """
    others = [matrix for matrix in matrices if matrix.condition != besides]
    enough = [matrix for matrix in others if matrix.accuracy >= matrices[0].accuracy / 2]
    return (enough or others[:1])[-1].condition


def worst_words(data: ConfusionData, label: str) -> str:
    """Return which condition a label is of those that confusions are shown of beside the best one."""
    if label == data.matrices[-1].condition:
        return "the worst condition"
    return "the worst of those that name at least half as many images rightly"


def _blanks(data: ConfusionData, named: Sequence[str]) -> list[str]:
    """Return what cells without a number or without colour stand for, and how many errors have no number."""
    if len(data.classes) > LABELLED_CLASSES:
        return ["Blank cells: no image."]
    small = []
    for label in named:
        matrix = data.matrix(label)
        errors = [(count, matrix.percent[true][called]) for true, row in enumerate(matrix.counts)
                  for called, count in enumerate(row) if count and true != called]  # fmt: skip
        hidden = sum(count for count, percent in errors if percent < LEAST_NUMBER)
        if hidden:
            small.append(f"{hidden:,} of the {sum(count for count, _ in errors):,} errors of {label}")
    words = f", which hold {' and '.join(small)}" if small else ""
    return [f"Cells without a number: under {LEAST_NUMBER} %{words}. Blank cells: no image."]


def _confusion(results: StudyResults, condition: Condition, split: str) -> Confusion | None:
    scores = [m for t in done_repeats(results, condition) if t.outcome and (m := _metrics(t.outcome.metrics, split))]
    if not scores:
        return None
    count = len(scores[0].confusion)
    counts = tuple(
        tuple(sum(score.confusion[true][called] for score in scores) for called in range(count))
        for true in range(count)
    )
    percent = tuple(tuple(100 * cell / max(1, sum(row)) for cell in row) for row in counts)
    errors = [
        (true, called, percent[true][called])
        for true in range(count)
        for called in range(count)
        if true != called and counts[true][called]
    ]
    errors.sort(key=lambda error: (-error[2], error[0], error[1]))
    return Confusion(
        condition=condition.label,
        n=len(scores),
        accuracy=fmean(score.accuracy for score in scores),
        counts=counts,
        percent=percent,
        pairs=tuple(errors[:MOST_PAIRS]),
    )


def _metrics(metrics: Any, split: str) -> SplitMetrics | None:
    scores: SplitMetrics | None = metrics.get(split)
    return scores if scores is not None and scores.confusion else None


def heatmaps(data: ConfusionData) -> Any:
    """Return one heatmap, or for few classes and several conditions two side by side; HTML lets choose which."""
    count = len(data.classes)
    shown = data.shown if count <= FEW_CLASSES else data.shown[:1]
    kept = _kept(data, shown)
    values = alt.InlineData(values=[row for matrix in kept for row in _cell_rows(data, matrix)])
    room = WIDTH - label_width(data.classes) - 34 - 16 * (len(shown) - 1)
    size = min(46, room // len(shown) // count)
    panels = []
    for index, label in enumerate(shown):
        side = ("left", "right")[index]
        choice = choice_of(f"confusion_{side}", [matrix.condition for matrix in kept], label, f"{side.capitalize()} ")
        panels.append(_chosen(_heatmap(data, size, first=index == 0), label, choice))
    chart = panels[0] if len(panels) == 1 else alt.hconcat(*panels, spacing=16)
    return chart.properties(data=values)


def pixels(data: ConfusionData) -> Any:
    """Return the matrix as a picture with one pixel per cell, beside the pairs of classes most often confused."""
    kept = _kept(data, data.shown[:1])
    labels = [matrix.condition for matrix in kept]
    pairs = [row for matrix in kept for row in _pair_rows(data, matrix)]
    longest = label_width([row["pair"] for row in pairs])
    choice = choice_of("confusion_condition", labels, data.shown[0])
    picture = _picture(data, kept, data.shown[0], choice)
    y = alt.Y("pair:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False, labelLimit=200))
    x = alt.X("percent:Q", title="% of true class", axis=alt.Axis(tickCount=3))
    bars = alt.Chart(
        alt.InlineData(values=pairs),
        title=alt.TitleParams("Most confused: true → predicted", anchor="start", frame="bounds"),
    ).mark_bar(color=COLOURS[4], size=11)
    bars = bars.encode(x=x, y=y).properties(width=WIDTH - 400 - longest, height=alt.Step(20))
    bars = bars.transform_filter(_is_condition(data.shown[0], choice))
    chart = alt.hconcat(picture, bars, spacing=20)
    return chart.add_params(choice) if choice is not None else chart


def _kept(data: ConfusionData, shown: tuple[str, ...]) -> list[Confusion]:
    """Return the matrices that HTML can choose from: all while they are few cells, else those shown."""
    cells = sum(1 for matrix in data.matrices for row in matrix.counts for cell in row if cell)
    return [m for m in data.matrices if cells <= MOST_CELLS or m.condition in shown]


def _is_condition(label: str, choice: alt.Parameter | None) -> Any:
    if choice is None:
        return alt.FieldEqualPredicate(field="condition", equal=label)
    return f"datum.condition == {choice.name}"


def _chosen(panel: Layers, label: str, choice: alt.Parameter | None) -> Layers:
    filtered = panel.transform_filter(_is_condition(label, choice))
    if choice is None:
        return filtered.properties(title=label)
    title = alt.TitleParams(alt.expr(choice.name), anchor="middle", frame="group")
    return filtered.add_params(choice).properties(title=title)


def _heatmap(data: ConfusionData, size: int, *, first: bool) -> Layers:
    classes, count = list(data.classes), len(data.classes)
    upright = max(map(len, classes)) * 6 <= size
    y_axis = alt.Axis(ticks=False, domain=False, labels=first, labelOverlap=count > LABELLED_CLASSES)
    x_axis = alt.Axis(
        ticks=False, domain=False, labelAngle=0 if upright else -45, labelOverlap=count > LABELLED_CLASSES
    )
    base = alt.Chart().encode(
        x=alt.X("called:O", sort=classes, scale=alt.Scale(domain=classes), title="Predicted class", axis=x_axis),
        y=alt.Y("true:O", scale=alt.Scale(domain=classes), title="True class" if first else None, axis=y_axis),
        tooltip=[
            alt.Tooltip("true:N", title="True class"),
            alt.Tooltip("called:N", title="Predicted class"),
            alt.Tooltip("percent:Q", title="% of true class", format=".2f"),
            alt.Tooltip("count:Q", title="Images"),
        ],
    )
    layers = [base.mark_rect().encode(color=step_colour(STEPS, COLOURS, LEGEND, 8 if size * count > 400 else 4))]
    if len(classes) <= LABELLED_CLASSES:
        ink = alt.condition(f"datum.percent >= {DARK_FROM}", alt.value(LIGHT), alt.value(DARK))
        text = base.transform_filter(f"datum.percent >= {LEAST_NUMBER}").mark_text(fontSize=min(11, size // 2))
        layers.append(text.encode(text=alt.Text("percent:Q", format=".0f"), color=ink))
    length = size * len(classes)
    view = alt.ViewBackground(stroke=OTHERS, strokeOpacity=0.3)
    return alt.layer(*layers).properties(width=length, height=length, view=view)


def _cell_rows(data: ConfusionData, matrix: Confusion) -> list[dict[str, Any]]:
    return [
        {
            "condition": matrix.condition,
            "true": data.classes[true],
            "called": data.classes[called],
            "percent": rounded(percent),
            "count": matrix.counts[true][called],
            "step": STEPS[bisect.bisect_right(ENDS, percent)],
        }
        for true, row in enumerate(matrix.percent)
        for called, percent in enumerate(row)
        if matrix.counts[true][called]
    ]


def _pair_rows(data: ConfusionData, matrix: Confusion) -> list[dict[str, Any]]:
    return [
        {
            "condition": matrix.condition,
            "pair": f"{data.classes[true]} → {data.classes[called]}",
            "percent": rounded(percent),
        }
        for true, called, percent in matrix.pairs
    ]


def _picture(data: ConfusionData, kept: list[Confusion], label: str, choice: alt.Parameter | None) -> Layers:
    count, length = len(data.classes), 300
    rows = [{"condition": m.condition, "url": _png(m), "low": 0, "high": count} for m in kept]
    image = alt.Chart(alt.InlineData(values=rows)).transform_filter(_is_condition(label, choice))
    scale = alt.Scale(domain=[0, count], nice=False)
    picture = image.mark_image(width=length, height=length, aspect=False, smooth=False).encode(
        url=alt.Url("url:N"), x=alt.XValue(length / 2), y=alt.YValue(length / 2)
    )
    frame = image.mark_rect(fillOpacity=0, stroke="#808080", strokeOpacity=0.5).encode(
        x=alt.X("low:Q", title="Predicted class, by number", scale=scale, axis=alt.Axis(grid=False)),
        x2=alt.X2("high:Q"),
        y=alt.Y(
            "low:Q",
            title="True class, by number",
            scale=alt.Scale(domain=[0, count], nice=False, reverse=True),
            axis=alt.Axis(grid=False),
        ),
        y2=alt.Y2("high:Q"),
    )
    steps = alt.InlineData(values=[{"step": step} for step in STEPS])
    key = alt.Chart(steps).mark_square(size=0).encode(color=step_colour(STEPS, COLOURS, LEGEND))
    title = alt.expr(choice.name) if choice is not None else label
    return alt.layer(picture, frame, key).properties(
        width=length, height=length, title=alt.TitleParams(title, frame="group")
    )


def _png(matrix: Confusion) -> str:
    """Return the matrix as a `data:` address of a PNG, each cell a square of whole pixels, about 400 pixels wide."""
    count = len(matrix.percent)
    steps = [
        1 + bisect.bisect_right(ENDS, percent) if matrix.counts[true][called] else 0
        for true, row in enumerate(matrix.percent)
        for called, percent in enumerate(row)
    ]
    picture = Image.frombytes("P", (count, count), bytes(steps))
    picture.putpalette([int(colour[i : i + 2], 16) for colour in (EMPTY, *COLOURS) for i in (1, 3, 5)])
    times = max(1, round(400 / count))
    buffer = io.BytesIO()
    picture.resize((count * times, count * times), Image.Resampling.NEAREST).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
