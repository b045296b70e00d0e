"""Figures that each break one promise, for the tests of the conformance kit."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from benchkit import ImageGrid, NothingToDraw
from benchkit.results import StudyResults


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Means by condition."""

    labels: tuple[str, ...]
    means: tuple[float, ...]


@dataclass(frozen=True)
class Sound:
    """Points; the others change one thing."""

    def data(self, results: StudyResults) -> Any:
        rows = [(c.label, [t.score("test.accuracy") for t in results.of(c, "done")]) for c in results.conditions]
        rows = [(label, values) for label, values in rows if values]
        if not rows:
            raise NothingToDraw("nothing is done")
        labels, values = zip(*rows, strict=True)
        return Numbers(labels=labels, means=tuple(sum(one) / len(one) for one in values))

    def draw(self, data: Any) -> Any:
        rows = [{"label": label, "mean": mean} for label, mean in zip(data.labels, data.means, strict=True)]
        return alt.Chart(alt.InlineData(values=rows)).mark_point().encode(x="mean:Q", y="label:N")

    def caption(self, data: Any) -> str:
        return "Mean test accuracy of every condition."

    def alt_text(self, data: Any) -> str:
        return f"{data.labels[0]} has a mean test accuracy of {data.means[0]:.2f}."


class NeedsTwo(Sound):
    def data(self, results: StudyResults) -> Any:
        found = super().data(results)
        assert found.means[1] > 0
        return found


class TenColours(Sound):
    def draw(self, data: Any) -> Any:
        colours = {label: f"#00000{place}" for label, place in zip(data.labels, range(10), strict=False)}
        assert all(colours[label] for label in data.labels)
        return super().draw(data)


class TakesAllAsDone(Sound):
    def data(self, results: StudyResults) -> Any:
        for trial in results.trials:
            trial.outcome.metrics["test"]  # type: ignore[union-attr]
        return super().data(results)


class NoneForNothing(Sound):
    def data(self, results: StudyResults) -> Any:
        max(trial.number for trial in results.trials)
        return super().data(results)


class NumpyNumbers(Sound):
    def data(self, results: StudyResults) -> Any:
        found = super().data(results)
        return Numbers(labels=found.labels, means=tuple(np.float64(mean) for mean in found.means))


class NotANumber(Sound):
    def data(self, results: StudyResults) -> Any:
        found = super().data(results)
        return Numbers(labels=found.labels, means=(float("nan"), *found.means[1:]))


class Dictionary(Sound):
    def data(self, results: StudyResults) -> Any:
        found = super().data(results)
        return {"labels": found.labels, "means": found.means}


class DescribesThePicture(Sound):
    def alt_text(self, data: Any) -> str:
        return "A chart of the test accuracy of every condition."


class NoCaption(Sound):
    def caption(self, data: Any) -> str:
        return ""


class Counting(Sound):
    numbers = itertools.count()

    def data(self, results: StudyResults) -> Any:
        found = super().data(results)
        return Numbers(labels=found.labels, means=(float(next(self.numbers)), *found.means[1:]))


class RaggedGrid(Sound):
    def draw(self, data: Any) -> Any:
        return ImageGrid(columns=("a", "b"), rows=(("first", (b"\x89PNG\r\n\x1a\n",)),))


class FromElsewhere(Sound):
    def draw(self, data: Any) -> Any:
        return alt.Chart("https://example.org/data.json").mark_point().encode(x="mean:Q")
