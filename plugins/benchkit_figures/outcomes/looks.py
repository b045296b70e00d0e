"""A study with repeats until decided: means and intervals of the conditions at each look that was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from benchkit import NothingToDraw, card
from benchkit.analysis import looks_of, values_by_repeat
from benchkit.results import StudyResults
from benchkit_figures.encodings import (
    MOST_COLOURS,
    WIDTH,
    Layers,
    colour,
    listed,
    planned_labels,
    quantity,
    t_interval,
    tooltips,
)
from benchkit_figures.outcomes.results_forest import SQUEEZED


@dataclass(frozen=True, slots=True, kw_only=True)
class LookPoint:
    """A condition at a look: mean and interval over its first `n` repeats, and whether it may be the best after it."""

    look: int
    n: int
    condition: str
    mean: float
    low: float
    high: float
    stays: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LooksData:
    """The points, look by look, of those conditions that might still be the best before it; `planned` looks in all.

    `apart` are conditions that left and are not among the points, because they would squeeze those that stayed.
    """

    metric: str
    labels: tuple[str, ...]
    points: tuple[LookPoint, ...]
    apart: tuple[str, ...]
    taken: int
    planned: int
    decided: bool


@card(
    title="Means and intervals by look",
    summary="Mean and interval of the conditions at each planned look of a study with repeats until decided.",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """The looks at the study's main metric."""

    def data(self, results: StudyResults) -> LooksData:
        """Return the points; raise `NothingToDraw` where no look was taken."""
        metric = quantity(results.study.report.metric).metric
        looks = looks_of(results)
        if not looks.taken:
            raise NothingToDraw("no look was taken: the repeats of the study are fixed, or the first are under way")
        values = {one.key: values_by_repeat(results, one, metric) for one in results.conditions}
        points, open_ = [], set(values)
        for look in looks.taken:
            stays = {one.key for one in look.candidates.open}
            for one in look.candidates.conditions:
                of_look = [value for index, value in sorted(values[one.key].items()) if index < look.analysis.n]
                if one.key not in open_ | stays or not of_look:
                    continue
                found = t_interval(of_look, metric, look.analysis.confidence)
                points.append(
                    LookPoint(
                        look=look.analysis.number,
                        n=look.analysis.n,
                        condition=one.label,
                        mean=found.mean,
                        low=found.low,
                        high=found.high,
                        stays=one.key in stays,
                    )
                )
            open_ = stays
        kept = {one.label for one in looks.taken[-1].candidates.open}
        stayed = [point for point in points if point.condition in kept]
        squeezed = len(kept) > 1 and _reach(stayed) <= SQUEEZED * _reach(points)
        left = dict.fromkeys(point.condition for point in points if point.condition not in kept)
        apart = tuple(left) if squeezed else ()
        return LooksData(
            metric=metric,
            labels=planned_labels(results),
            points=tuple(point for point in points if point.condition not in apart),
            apart=apart,
            taken=len(looks.taken),
            planned=len(looks.planned),
            decided=looks.taken[-1].candidates.decided,
        )

    def draw(self, data: LooksData) -> Layers:
        """Return points and intervals side by side at each look; open points leave there."""
        unit = quantity(data.metric)
        rows = [
            {
                "condition": point.condition,
                "look": f"look {point.look}: {point.n} repeats",
                "stays": point.stays,
                "n": point.n,
            }
            | {name: unit.shown(getattr(point, name)) for name in ("mean", "low", "high")}
            for point in data.points
        ]
        drawn = list(dict.fromkeys(point.condition for point in data.points))
        last = [point.condition for point in data.points if point.look == data.taken and point.stays]
        told = colour(data.labels, drawn, leading=last if len(data.labels) > MOST_COLOURS else None)
        base = alt.Chart(alt.InlineData(values=rows)).encode(
            x=alt.X("look:N", sort=None, title=None, axis=alt.Axis(labelAngle=0, grid=False)),
            xOffset=alt.XOffset("condition:N", sort=drawn),
            color=told,
        )
        y = alt.Y("mean:Q", title=unit.title, scale=alt.Scale(zero=False, padding=8))
        filled = alt.condition("datum.stays", alt.value(1), alt.value(0))
        titles = {"condition:N": "Condition", "look:N": "Look"}
        titles |= {"mean:Q": "Mean", "low:Q": "Interval from", "high:Q": "Interval to"}
        layers = [
            base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", title=unit.title), y2=alt.Y2("high:Q")),
            base.mark_point(size=56, filled=False, strokeWidth=1.6).encode(y=y),
            base.mark_point(size=56, filled=True).encode(
                y=y, fillOpacity=filled, opacity=filled, tooltip=tooltips(titles)
            ),
        ]
        return alt.layer(*layers).properties(width=WIDTH - 60, height=260)

    def caption(self, data: LooksData) -> str:
        """Return what points and bars are, and how far the looks came."""
        end = "the last decided" if data.decided else "none decided"
        apart = f" Left, and far off the axis: {listed(data.apart)}." if data.apart else ""
        return (
            f"{quantity(data.metric).capital} at each look, of the conditions that might still be the best before it: "
            f"{data.taken} of {data.planned} planned looks were taken, {end}. Points: means of all repeats so far, "
            "open ones of conditions that are clearly worse from there on and get no more repeats. Bars: t intervals, "
            f"so wide that those of all looks hold together with 95 %.{apart}"
        )

    def alt_text(self, data: LooksData) -> str:
        """Return one sentence with what is left after the last look."""
        last = [point for point in data.points if point.look == data.taken and point.stays]
        kept = ", ".join(f"{point.condition} ({quantity(data.metric).text(point.mean)})" for point in last)
        return f"After look {data.taken} of {data.planned}, at {data.points[-1].n} repeats, may be the best: {kept}."


def _reach(points: Sequence[LookPoint]) -> float:
    """Return how much of the axis some points need."""
    return max(point.high for point in points) - min(point.low for point in points)
