"""The learning rate by epoch, as it was used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from benchkit import NothingToDraw, card
from benchkit.plan import Condition
from benchkit.results import StudyResults
from benchkit_figures.encodings import (
    DASHES,
    LEADING,
    WIDTH,
    Layers,
    by_condition,
    done_repeats,
    listed,
    rounded,
    tooltips,
)
from benchkit_figures.training.curves import MOST_EPOCHS, epoch_axis

LOG_FROM = 20
"""Rates that fall in steps and differ by more than this factor, all above 0, stand on a log scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCurve:
    """Conditions with one course of the learning rate, and that of the last step of each epoch from 1 on."""

    conditions: tuple[str, ...] = field(metadata={"apart": True})
    rates: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateData:
    """The different courses, in the study's order."""

    curves: tuple[RateCurve, ...]

    @property
    def log(self) -> bool:
        """Return whether the rates stand on a log scale."""
        rates = [rate for curve in self.curves for rate in curve.rates]
        steps = all(2 * len(set(curve.rates)) <= len(curve.rates) for curve in self.curves)
        return steps and min(rates) > 0 and max(rates) > LOG_FROM * min(rates)


@card(title="Learning rate", summary="The learning rate at the end of each epoch, a line for each course that it took.")
@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRate:
    """The learning rate by epoch; conditions that share its course share a line, short trainings with longer ones."""

    def data(self, results: StudyResults) -> RateData:
        """Return the courses; raise `NothingToDraw` where the rate is constant and the same everywhere."""
        found, _ = by_condition(results, lambda condition: _course(results, condition))
        courses: list[tuple[tuple[float, ...], list[str]]] = []
        for label, rates in sorted(found, key=lambda pair: -len(pair[1])):
            same = next((names for known, names in courses if known[: len(rates)] == rates), None)
            if same is None:
                courses.append((rates, [label]))
            else:
                same.append(label)
        if not courses:
            raise NothingToDraw("no repeat of any condition has finished with a recorded history")
        if len({rate for rates, _ in courses for rate in rates}) == 1:
            raise NothingToDraw(f"the learning rate is {courses[0][0][0]:g} throughout")
        order = [label for label, _ in found]
        curves = [RateCurve(conditions=tuple(sorted(names, key=order.index)), rates=rates) for rates, names in courses]
        return RateData(curves=tuple(sorted(curves, key=lambda curve: order.index(curve.conditions[0]))))

    def draw(self, data: RateData) -> Layers:
        """Return a line for each course, named above where there are several."""
        names = [listed(curve.conditions, 3) for curve in data.curves]
        last = max(len(curve.rates) for curve in data.curves)
        stride = max(1, last // MOST_EPOCHS)
        rows = [
            {"course": name, "epoch": epoch, "rate": rounded(rate)}
            for name, curve in zip(names, data.curves, strict=True)
            for epoch, rate in enumerate(curve.rates, start=1)
            if epoch % stride == 0 or epoch in (1, len(curve.rates))
        ]
        axis = alt.Axis(format="~g", tickCount=4, labelOverlap="greedy")
        scale = alt.Scale(type="log", nice=False) if data.log else alt.Scale(zero=True, nice=True)
        title = "Learning rate (log scale)" if data.log else "Learning rate"
        chart = alt.Chart(alt.InlineData(values=rows)).encode(
            x=epoch_axis(range(1, last + 1), 10), y=alt.Y("rate:Q", title=title, scale=scale, axis=axis)
        )
        line = chart.mark_line(interpolate="linear", color=LEADING, point=last == 1)
        if len(names) > 1:
            legend = alt.Legend(
                title=None, orient="top", symbolType="stroke", symbolSize=350, columns=2, labelLimit=280
            )
            dashes = alt.Scale(domain=names, range=[list(DASHES[at % len(DASHES)]) for at in range(len(names))])
            line = line.encode(
                color=alt.Color("course:N", scale=alt.Scale(domain=names), legend=legend),
                strokeDash=alt.StrokeDash("course:N", scale=dashes, legend=legend),
            )
        line = line.encode(tooltip=tooltips({"epoch:Q": "Epoch", "rate:Q": "Learning rate"}))
        return alt.layer(line).properties(width=WIDTH - 72, height=80 if len(names) == 1 else 110)

    def caption(self, data: RateData) -> str:
        """Return whose rate it is, and of which step."""
        whose = "All conditions share it." if len(data.curves) == 1 else f"{len(data.curves)} courses."
        return f"Learning rate of the last step of each epoch, in the longest repeat of each condition. {whose}"

    def alt_text(self, data: RateData) -> str:
        """Return one sentence with where the rate of the first course starts, peaks and ends."""
        rates = data.curves[0].rates
        peak = max(rates)
        return (
            f"The learning rate of {listed(data.curves[0].conditions, 3)} is {rates[0]:.3g} after epoch 1, at most "
            f"{peak:.3g} after epoch {rates.index(peak) + 1}, and {rates[-1]:.3g} after epoch {len(rates)}."
        )


def _course(results: StudyResults, condition: Condition) -> tuple[str, tuple[float, ...]] | None:
    histories: Sequence[Any] = [trial.history for trial in done_repeats(results, condition) if trial.history]
    if not histories:
        return None
    return condition.label, tuple(rounded(record.learning_rate) for record in max(histories, key=len))
