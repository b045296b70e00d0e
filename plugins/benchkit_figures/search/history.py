"""A search's history: the objective of every trial in order, and the best so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt

from benchkit import card
from benchkit.results import StudyResults
from benchkit_figures.encodings import WIDTH, Layers, panels_in_columns, quantity, tooltips
from benchkit_figures.search.axes import any_beyond, clamped, domain, objective_scale
from benchkit_figures.search.trials import RESULTS, SearchData, SearchedCondition, search_data
from benchkit_figures.training.curves import whole_ticks

COLOURS = ("#1E78B4", "#767676", "#C34B00", "#C34B00")
SHAPES = ("circle", "triangle-down", "cross", "M-1,-1L1,1M1,-1L-1,1")
"""By state: done, pruned, diverged, failed (a saltire)."""


@card(
    title="Search history",
    summary="The objective of every search trial by its number, and the best so far.",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHistory:
    """Objective by trial, a panel for each searched condition; trials without a value stand at the worse edge."""

    def data(self, results: StudyResults) -> SearchData:
        """Return the finished search trials of every searched condition."""
        return search_data(results)

    def draw(self, data: SearchData) -> Any:
        """Return a panel for each searched condition, marks by state, a stepped line for the best so far."""
        count = len(data.conditions)
        columns = 1 if count == 1 else 2 if count <= 4 else 3
        width = (WIDTH - 66 * columns) // columns
        height = 230 if count == 1 else 130
        rows = [row for searched in data.conditions for row in _rows(data, searched)]
        values = alt.InlineData(values=rows)
        panels = [self._panel(data, searched).properties(width=width, height=height) for searched in data.conditions]
        return panels_in_columns(
            panels, [searched.condition for searched in data.conditions], columns, width, data=values
        )

    def caption(self, data: SearchData) -> str:
        """Return what is shown, how many trials ended how, and what stands at the edge."""
        states = [point.state for searched in data.conditions for point in searched.points]
        counts = ", ".join(f"{states.count(state)} {state}" for state in RESULTS if state in states)
        unit = quantity(data.metric)
        parts = [f"Search history: {unit.name} of every trial by its number ({counts}); line: best so far."]
        if "pruned" in states:
            parts.append("A pruned trial stands at its last value.")
        without = any(point.objective is None for searched in data.conditions for point in searched.points)
        beyond = any_beyond(data, data.conditions)
        at_edge = ["without a value"] * without + ["beyond the axis"] * beyond
        if at_edge:
            parts.append(f"Trials {' or '.join(at_edge)} stand at the worse edge.")
        parts.append("Scores of a search are optimistic: the best of many trials is partly luck.")
        return " ".join(parts)

    def alt_text(self, data: SearchData) -> str:
        """Return one sentence with the best objective, its trial and its condition."""
        searched = data.best_condition()
        best, unit = searched.best(data.lower), quantity(data.metric)
        if best is None or best.objective is None:
            return f"No search trial was completed, so there is no best {unit.name}."
        of = f" for {searched.condition}" if len(data.conditions) > 1 else ""
        return (
            f"The search's best {unit.name}{of} is {unit.text(best.objective)}, "
            f"found by trial {best.place} of {len(searched.points)}."
        )

    def _panel(self, data: SearchData, searched: SearchedCondition) -> Layers:
        unit = quantity(data.metric)
        last = max(len(other.points) for other in data.conditions)
        x = alt.X(
            "place:Q",
            title="Trial",
            axis=alt.Axis(format="d", values=whole_ticks((0, last + 1), 10)),
            scale=alt.Scale(domain=[0, last + 1], nice=False),
        )
        y = alt.Y("shown:Q", title=unit.title, scale=objective_scale(data))
        own = alt.Chart().transform_filter(alt.FieldEqualPredicate(field="condition", equal=searched.condition))
        present = [s for s in RESULTS if any(p.state == s for c in data.conditions for p in c.points)]
        legend = alt.Legend(title=None, orient="top", values=present, symbolSize=60)
        color = alt.Color("state:N", scale=alt.Scale(domain=list(RESULTS), range=list(COLOURS)), legend=legend)
        shape = alt.Shape("state:N", scale=alt.Scale(domain=list(RESULTS), range=list(SHAPES)), legend=legend)
        titles = {"place:Q": "Trial", "state:N": "State", "value:Q": unit.title, "best:Q": "Best so far"}
        line = own.transform_filter("isValid(datum.best)").mark_line(interpolate="step-after", color="#5A3C00")
        points = own.mark_point(size=34, strokeWidth=1.5).encode(
            x=x, y=y, color=color, shape=shape, tooltip=tooltips(titles)
        )
        return alt.layer(line.encode(x=x, y=alt.Y("best:Q", scale=objective_scale(data), title=unit.title)), points)


def _rows(data: SearchData, searched: SearchedCondition) -> list[dict[str, Any]]:
    unit, ends, best, rows = quantity(data.metric), domain(data), None, []
    for point in searched.points:
        if point.state == "done" and point.objective is not None:
            better = min if data.lower else max
            best = point.objective if best is None else better(best, point.objective)
        rows.append(
            {
                "condition": searched.condition,
                "place": point.place,
                "state": point.state,
                "value": None if point.objective is None else unit.shown(point.objective),
                "shown": clamped(data, ends, point.objective),
                "best": None if best is None else clamped(data, ends, best),
            }
        )
    return rows
