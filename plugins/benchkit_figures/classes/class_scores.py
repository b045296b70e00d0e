"""Precision, recall and F1 of every class in one condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt

from benchkit import NothingToDraw, PluginError, card
from benchkit.results import SPLITS, StudyResults
from benchkit_figures.classes.confusion_matrix import ConfusionMatrix
from benchkit_figures.encodings import WIDTH, Layers, check_split, label_width, repeats_words, rounded

MOST_CLASSES = 25
MARKS = (("Precision", "square", "#C34B00"), ("Recall", "circle", "#1E78B4"), ("F1", "diamond", "#2A2AF0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """A class's precision (None where it is never predicted), recall (None without an image) and F1, as shares."""

    name: str
    images: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresData:
    """The classes of `condition` that occur, least F1 first, over all images of `n` repeats."""

    split: str
    condition: str
    best: bool
    n: int
    classes: tuple[ClassScore, ...]


@card(
    title="Precision, recall and F1 by class",
    summary="Which classes a condition finds, which it names too often, and their F1.",
    reference="van Rijsbergen, Information Retrieval, second edition, Butterworths 1979",
    choices={"split": SPLITS},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """Precision, recall and F1 by class on `split`, of `condition` (default: the best one).

    Of r images rightly named so, p of the class and q named so: precision r / q, recall r / p, F1 2 r / (p + q). Above
    25 classes the 25 of the least F1 are drawn.
    """

    split: str = "test"
    condition: str = ""

    def data(self, results: StudyResults) -> ScoresData:
        """Return the scores of the classes that occur; raise `PluginError` for a label without a finished repeat."""
        check_split("class-scores", self.split)
        confusion = ConfusionMatrix(split=self.split).data(results)
        labels = [matrix.condition for matrix in confusion.matrices]
        if self.condition and self.condition not in labels:
            problems = [f"condition = {self.condition!r}: expected one of {', '.join(labels)}"]
            raise PluginError("the figure class-scores was given wrong options", problems=problems)
        matrix = confusion.matrix(self.condition or labels[0])
        counts = matrix.counts
        scores = []
        for label, name in enumerate(confusion.classes):
            right, images, predicted = counts[label][label], sum(counts[label]), sum(row[label] for row in counts)
            if images or predicted:
                scores.append(
                    ClassScore(
                        name=name,
                        images=images,
                        predicted=predicted,
                        precision=right / predicted if predicted else None,
                        recall=right / images if images else None,
                        f1=2 * right / (images + predicted),
                    )
                )
        if not scores:
            raise NothingToDraw(f"there is no image on {self.split}")
        scores.sort(key=lambda score: score.f1)
        best = matrix.condition == labels[0] and len(labels) > 1
        return ScoresData(split=self.split, condition=matrix.condition, best=best, n=matrix.n, classes=tuple(scores))

    def draw(self, data: ScoresData) -> Layers:
        """Return a row for each class, least F1 first, with three marks and the line between them."""
        shown = data.classes[:MOST_CLASSES]
        order = [score.name for score in shown]
        rows: list[dict[str, Any]] = [
            {"class": score.name, "score": name, "value": rounded(100 * value)}
            for score in shown
            for name, value in (("Precision", score.precision), ("Recall", score.recall), ("F1", score.f1))
            if value is not None
        ]
        low, high = min(row["value"] for row in rows), max(row["value"] for row in rows)
        pad = 0.04 * (high - low) or 1.0
        ends = [max(-0.5, rounded(low - pad)), min(100 + pad / 2, rounded(high + pad))]
        names, shapes, colours = (list(column) for column in zip(*MARKS, strict=True))
        legend = alt.Legend(title=None, orient="top", symbolSize=70)
        axis = alt.Axis(domain=False, ticks=False, grid=True, labelLimit=200)
        base = alt.Chart(alt.InlineData(values=rows)).encode(y=alt.Y("class:N", sort=order, title=None, axis=axis))
        scale, few = alt.Scale(domain=ends, nice=False), alt.Axis(tickCount=8)
        x = alt.X("value:Q", title=f"On {data.split} images (%)", scale=scale, axis=few)
        span = base.mark_line(strokeWidth=1.2, color="#767676").encode(x=x, detail=alt.Detail("class:N"))
        points = base.mark_point(filled=True, size=46, fillOpacity=1).encode(
            x=x,
            color=alt.Color("score:N", scale=alt.Scale(domain=names, range=colours), legend=legend),
            shape=alt.Shape("score:N", scale=alt.Scale(domain=names, range=shapes), legend=legend),
            tooltip=[alt.Tooltip("class:N"), alt.Tooltip("score:N"), alt.Tooltip("value:Q")],
        )
        width = WIDTH - label_width(order) - 24
        step = alt.Step(18 if len(order) <= 12 else 14)
        return alt.layer(span, points).properties(width=width, height=step)

    def caption(self, data: ScoresData) -> str:
        """Return of which condition, over how many repeats, and which classes are shown."""
        which = ", the best condition" if data.best else ""
        n = f"all images of {repeats_words([data.n])} taken together" if data.n > 1 else "one repeat"
        parts = [
            f"Precision, recall and F1 of each class on {data.split} images by {data.condition}{which}, {n}, least F1 "
            "first. Precision above recall: the class is named too rarely; below: too often. No interval is drawn."
        ]
        if len(data.classes) > MOST_CLASSES:
            parts.append(f"The {MOST_CLASSES} of the least F1 of {len(data.classes)} classes.")
        return " ".join(parts)

    def alt_text(self, data: ScoresData) -> str:
        """Return one sentence with the classes of the least and the greatest F1."""
        least, most = data.classes[0], data.classes[-1]
        if least is most:
            return f"{data.condition} has an F1 of {100 * least.f1:.1f} % on {least.name}, the only class."
        return (
            f"The F1 of {data.condition} reaches from {100 * least.f1:.1f} % ({least.name}) to {100 * most.f1:.1f} % "
            f"({most.name})."
        )
