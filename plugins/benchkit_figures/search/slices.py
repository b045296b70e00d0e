"""A search in slices: the objective of every trial against each searched setting."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import altair as alt

from benchkit import card
from benchkit.results import StudyResults
from benchkit_figures.encodings import WIDTH, Layers, quantity, tooltips
from benchkit_figures.search.axes import any_beyond, clamped, condition_choice, domain, objective_scale
from benchkit_figures.search.trials import SearchData, search_data

COLOURS = ("#5A3C00", "#C32D96", "#2A2AF0", "#1E78B4")
"""From the first quarter of the trials to the last."""

STATES = ("done", "pruned")
COLUMNS = 3


@card(
    title="Search in slices",
    summary="The objective of every search trial against each searched setting, coloured by trial order.",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSlices:
    """A panel for each searched setting of one searched condition: the best one in print, any of them in HTML."""

    def data(self, results: StudyResults) -> SearchData:
        """Return the finished search trials of every searched condition."""
        return search_data(results)

    def draw(self, data: SearchData) -> Any:
        """Return the panels, three in a row, with one objective axis."""
        choice = condition_choice(data, "slices_condition")
        columns = min(COLUMNS, len(data.paths))
        width = (WIDTH - 76 - 14 * (columns - 1)) // columns
        panels = [
            self._panel(data, index, first=index % columns == 0).properties(width=width, height=150)
            for index in range(len(data.paths))
        ]
        shown = alt.InlineData(values=_rows(data))
        chart = alt.concat(*panels, columns=columns, data=shown, spacing={"row": 14, "column": 14})
        if choice is None:
            return chart
        return chart.add_params(choice).transform_filter(f"datum.condition == {choice.name}")

    def caption(self, data: SearchData) -> str:
        """Return what the points are, which condition is shown and what the colours mean."""
        unit, searched = quantity(data.metric), data.best_condition()
        several = len(data.conditions) > 1
        parts = [
            f"Search in slices: {unit.name} against each searched setting"
            f"{f' for {searched.condition}, the condition with the best trial' if several else ''}; colour: order of "
            "the trials; the ring marks the best one."
        ]
        if any(point.state == "pruned" for point in searched.points):
            parts.append("Triangles: pruned trials at their last value.")
        if any_beyond(data, [searched]):
            parts.append("What is beyond the axis stands at its edge.")
        parts.append("Settings were varied together, so a slice shows association, not the effect of one setting.")
        if several:
            parts.append("In HTML the condition can be chosen.")
        return " ".join(parts)

    def alt_text(self, data: SearchData) -> str:
        """Return one sentence with the settings of the best trial."""
        searched = data.best_condition()
        best, unit = searched.best(data.lower), quantity(data.metric)
        if best is None or best.objective is None:
            return f"{unit.capital} against each searched setting; no trial was completed."
        of = f" of {searched.condition}" if len(data.conditions) > 1 else ""
        return f"The best {unit.name}{of}, {unit.text(best.objective)}, was found at {data.settings_words(best)}."

    def _panel(self, data: SearchData, index: int, *, first: bool) -> Layers:
        unit = quantity(data.metric)
        y_axis = alt.Axis(labels=first, ticks=first, title=unit.title if first else None)
        y = alt.Y("shown:Q", scale=objective_scale(data), axis=y_axis)
        legend = alt.Legend(title=None, orient="top", symbolType="circle", symbolSize=60)
        names = _quarters(data)
        color = alt.Color("order:N", scale=alt.Scale(domain=names, range=list(COLOURS)), legend=legend)
        shape = alt.Shape(
            "state:N", scale=alt.Scale(domain=list(STATES), range=["circle", "triangle-down"]), legend=None
        )
        base = alt.Chart().encode(x=_x(data, index), y=y)
        setting = f"p{index}:{'N' if data.choices[index] else 'Q'}"
        titles = {"trial:Q": "Trial", "state:N": "State", "value:Q": unit.title, setting: data.names[index]}
        points = base.mark_point(size=28, strokeWidth=1.5).encode(color=color, shape=shape, tooltip=tooltips(titles))
        ring = base.transform_filter("datum.best").mark_point(size=120, strokeWidth=2, color="#C34B00", shape="circle")
        return alt.layer(points, ring)


def _x(data: SearchData, index: int) -> alt.X:
    name = data.names[index]
    if data.choices[index]:
        axis = alt.Axis(labelAngle=0, labelLimit=90)
        return alt.X(f"p{index}:N", title=name, sort=list(data.choices[index]), axis=axis)
    low, high, log = data.low[index], data.high[index], data.log[index]
    scale = alt.Scale(domain=[low, high], type="log" if log else "linear", nice=False, padding=6)
    axis = alt.Axis(
        format=".0e" if log and high / low > 999 else "~g" if log else alt.Undefined, tickCount=4, labelOverlap="greedy"
    )
    return alt.X(f"p{index}:Q", title=f"{name} (log scale)" if log else name, scale=scale, axis=axis)


def _quarters(data: SearchData) -> list[str]:
    """Return the names of the four parts of the trials, from first to last."""
    last = max(point.place for searched in data.conditions for point in searched.points)
    ends = [round(last * part / 4) for part in range(5)]
    return [f"trials {low + 1} to {high}" for low, high in itertools.pairwise(ends)]


def _rows(data: SearchData) -> list[dict[str, Any]]:
    unit, names, ends = quantity(data.metric), _quarters(data), domain(data)
    last = max(point.place for searched in data.conditions for point in searched.points)
    rows: list[dict[str, Any]] = []
    for searched in data.conditions:
        best = searched.best(data.lower)
        for point in searched.points:
            if point.objective is None or point.state not in STATES:
                continue
            quarter = min(3, next(part for part in range(4) if point.place <= round(last * (part + 1) / 4)))
            values = {f"p{index}": value if value != "" else None for index, value in enumerate(point.values)}
            row = {"condition": searched.condition, "state": point.state, "order": names[quarter], "trial": point.place}
            row |= {"value": unit.shown(point.objective), "shown": clamped(data, ends, point.objective)}
            rows.append(row | {"best": point is best} | values)
    return rows
