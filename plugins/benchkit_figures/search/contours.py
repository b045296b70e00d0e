"""A search in contours: the objective over pairs of settings, drawn only where trials have been."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from benchkit import NothingToDraw, Range, card
from benchkit.results import StudyResults
from benchkit_figures.encodings import WIDTH, Layers, Steps, choice_of, colour_steps, quantity, rounded, tooltips
from benchkit_figures.search.axes import CELLS, placed, spots, ticks, usual
from benchkit_figures.search.importances import FEWEST, scored, shares_of
from benchkit_figures.search.trials import SearchData, SearchedCondition, search_data

REACH = 0.1
"""How far a trial speaks for the plane around it, as a share of an axis; beyond it the plane stays blank."""

MOST_TRIALS, MOST_CONDITIONS = 120, 8
"""What the importances are computed from, and how many searches can be chosen in HTML."""

COLUMNS = 3
EDGE = 0.02
"""How far the axes go beyond 0 and 1, so that trials at an end are whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContourAxis:
    """A setting: its name, its ticks as (position from 0 to 1, text), its importance (None: unknown)."""

    name: str
    log: bool
    share: float | None
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContourCell:
    """A piece of the plane near a trial: its edges on both axes, and the mean objective of the trials near it."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float
    objective: float
    trials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContourTrial:
    """A trial on the plane: its place in the search, state, whether it is the best, objective, position."""

    place: int
    state: str
    best: bool
    objective: float
    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ContourPanel:
    """One pair of settings in one search: indices of both axes, the cells near trials, and all trials with a value."""

    condition: str
    first: int
    second: int
    cells: tuple[ContourCell, ...]
    trials: tuple[ContourTrial, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContourData:
    """The axes by importance, and a panel for every pair shown of every searched condition, the best one first."""

    metric: str
    lower: bool
    ranked: bool
    searches: int
    axes: tuple[ContourAxis, ...]
    panels: tuple[ContourPanel, ...]

    @property
    def shown(self) -> tuple[ContourPanel, ...]:
        """Return the panels of the condition that is shown in print."""
        return tuple(panel for panel in self.panels if panel.condition == self.panels[0].condition)


@card(
    title="Search in contours",
    summary="The objective over pairs of searched settings, coloured near trials and blank elsewhere.",
    ranges={"settings": Range(low=2, high=4)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchContours:
    """Every pair of the `settings` most important settings of one search: the best one in print, any of them in HTML.

    A cell's colour is the mean objective of the done trials within a tenth of both axes, the nearer ones counting more
    (Gaussian weights of half that width); a cell without such a trial stays blank. With fewer than eight done trials
    the settings stand in the study's order.
    """

    settings: int = 3

    def data(self, results: StudyResults) -> ContourData:
        """Return the panels; raise `NothingToDraw` for a search of one setting or without a done trial."""
        search = search_data(results)
        if len(search.paths) < 2:
            raise NothingToDraw("the search has one setting only, and contours need two")
        best = search.best_condition()
        if not scored(best):
            raise NothingToDraw("no search trial is done, and contours show nothing else")
        shares = _shares(search, best)
        order = sorted(range(len(search.paths)), key=lambda index: -shares[index] if shares else index)
        chosen = order[: self.settings]
        searches = [best, *(searched for searched in search.conditions if searched is not best and scored(searched))]
        return ContourData(
            metric=search.metric,
            lower=search.lower,
            ranked=bool(shares),
            searches=len(search.conditions),
            axes=tuple(_axis(search, index, shares) for index in chosen),
            panels=tuple(
                _panel(search, searched, chosen, pair)
                for searched in searches[:MOST_CONDITIONS]
                for pair in itertools.combinations(range(len(chosen)), 2)
            ),
        )

    def draw(self, data: ContourData) -> alt.ConcatChart:
        """Return a panel for every pair of settings, three in a row, coloured cells below, trials above."""
        steps, count = _steps(data), len(data.shown)
        columns = min(COLUMNS, count)
        width = min(300, (WIDTH - 78 * columns) // columns)
        labels = list(dict.fromkeys(panel.condition for panel in data.panels))
        choice = choice_of("contours_condition", labels, labels[0], "Search ")
        panels = [_draw_panel(data, index, steps, width) for index in range(count)]
        chart = alt.concat(*panels, columns=columns, spacing={"row": 14, "column": 14})
        return chart if choice is None else chart.add_params(choice)

    def caption(self, data: ContourData) -> str:
        """Return what is coloured and what is not, which settings and trials are shown, and what that cannot tell."""
        unit = quantity(data.metric)
        done = sum(trial.state == "done" for trial in data.shown[0].trials)
        several = f" for {data.shown[0].condition}, the search with the best trial" if data.searches > 1 else ""
        order = "the most important first (fANOVA)" if data.ranked else "in the study's order: too few trials to rank"
        parts = [
            f"Search in contours: {unit.name} over pairs of searched settings{several}, {order}. A cell is coloured "
            f"by the mean of the done trials within {100 * REACH:.0f} % of both axes, or with the same choice "
            f"(n = {done} done trials in all), "
            "nearer ones counting more; where no trial was near, nothing is drawn. Points: done trials; ring: the "
            "best one."
        ]
        if any(trial.state == "pruned" for trial in data.shown[0].trials):
            parts.append("Triangles: pruned trials, which colour nothing.")
        parts.append("The other settings vary from trial to trial, so a colour holds for the company they kept.")
        if log := [axis.name for axis in data.axes if axis.log]:
            parts.append(f"On a log scale: {', '.join(log)}.")
        if len({panel.condition for panel in data.panels}) > 1:
            parts.append("In HTML the condition can be chosen.")
        return " ".join(parts)

    def alt_text(self, data: ContourData) -> str:
        """Return one sentence with how much of the first plane has been tried and where its best cell lies."""
        panel, unit = data.shown[0], quantity(data.metric)
        first, second = data.axes[panel.first], data.axes[panel.second]
        covered = sum((c.high_x - c.low_x) * (c.high_y - c.low_y) for c in panel.cells)
        best = (min if data.lower else max)(panel.cells, key=lambda cell: cell.objective)
        return (
            f"Trials reach {100 * covered:.0f} % of the plane of {first.name} and {second.name}; the best mean near "
            f"trials, {unit.text(best.objective)}, is at {_near(first, (best.low_x + best.high_x) / 2)} and "
            f"{_near(second, (best.low_y + best.high_y) / 2)}."
        )


def _shares(search: SearchData, searched: SearchedCondition) -> tuple[float, ...]:
    """Return the importance of every setting in the space's order, nothing where there are too few trials."""
    points = scored(searched)[-MOST_TRIALS:]
    if len(points) < FEWEST or len({point.objective for point in points}) < 2:
        return ()
    importances = shares_of(search, points)
    return tuple(importances[path] for path in search.paths)


def _axis(search: SearchData, index: int, shares: Sequence[float]) -> ContourAxis:
    choices = tuple((placed(search, index, choice), choice) for choice in search.choices[index])
    return ContourAxis(
        name=search.names[index],
        log=search.log[index],
        share=shares[index] if shares else None,
        ticks=choices or ticks(search, index),
    )


def _panel(
    search: SearchData, searched: SearchedCondition, chosen: Sequence[int], pair: tuple[int, int]
) -> ContourPanel:
    best = searched.best(search.lower)
    first, second = (chosen[index] for index in pair)
    trials = tuple(
        ContourTrial(
            place=point.place,
            state=point.state,
            best=point is best,
            objective=point.objective,
            x=placed(search, first, point.values[first]),
            y=placed(search, second, point.values[second]),
        )
        for point in searched.points
        if point.objective is not None and "" not in point.values
    )
    done = [trial for trial in trials if trial.state == "done"]
    cells = [
        cell
        for low_x, high_x in spots(len(search.choices[first]) or CELLS)
        for low_y, high_y in spots(len(search.choices[second]) or CELLS)
        if (cell := cell_of((low_x, high_x, low_y, high_y), done, _reaches(search, first, second))) is not None
    ]
    return ContourPanel(condition=searched.condition, first=pair[0], second=pair[1], cells=tuple(cells), trials=trials)


def _reaches(search: SearchData, first: int, second: int) -> tuple[float, float]:
    """Return how far a trial reaches on both axes: to no other choice where the setting is a list of choices."""
    x, y = (0.25 / len(search.choices[p]) if search.choices[p] else REACH for p in (first, second))
    return x, y


def cell_of(
    edges: tuple[float, float, float, float], done: Sequence[ContourTrial], reaches: tuple[float, float]
) -> ContourCell | None:
    """Return the cell with the weighted mean of the trials that reach its centre, or None without one."""
    low_x, high_x, low_y, high_y = edges
    x, y = (low_x + high_x) / 2, (low_y + high_y) / 2
    near = [(((trial.x - x) / reaches[0]) ** 2 + ((trial.y - y) / reaches[1]) ** 2, trial.objective) for trial in done]
    weighed = [(math.exp(-2 * distance), objective) for distance, objective in near if distance <= 1 + 1e-9]
    if not weighed:
        return None
    mean = sum(weight * objective for weight, objective in weighed) / sum(weight for weight, _ in weighed)
    return ContourCell(low_x=low_x, high_x=high_x, low_y=low_y, high_y=high_y, objective=mean, trials=len(weighed))


def _near(axis: ContourAxis, position: float) -> str:
    """Return the tick of the axis nearest to a position, in words."""
    _, text = min(axis.ticks, key=lambda tick: abs(tick[0] - position))
    return f"{axis.name} near {text}"


def _steps(data: ContourData) -> Steps:
    """Return colour steps over the usual values; what is far worse than those is in the last one."""
    unit = quantity(data.metric)
    values = sorted(unit.shown(cell.objective) for panel in data.panels for cell in panel.cells)
    low, high = usual(values, lower=data.lower)
    return colour_steps([min(max(value, low), high) for value in values], lower_is_better=data.lower)


def _draw_panel(data: ContourData, index: int, steps: Steps, width: int) -> Layers:
    shown = data.shown[index]
    same = [panel for panel in data.panels if (panel.first, panel.second) == (shown.first, shown.second)]
    x, y = (_draw_axis(channel, data.axes[at], width) for channel, at in ((alt.X, shown.first), (alt.Y, shown.second)))
    unit = quantity(data.metric)
    only = "datum.condition == contours_condition" if len({p.condition for p in data.panels}) > 1 else "true"
    cells = (
        alt.Chart(alt.InlineData(values=[row for panel in same for row in _cell_rows(data, panel, steps)]))
        .transform_filter(only)
        .mark_rect(strokeWidth=0)
        .encode(
            x=x,
            x2=alt.X2("x2:Q"),
            y=y,
            y2=alt.Y2("y2:Q"),
            color=steps.encoding(unit.title),
            tooltip=tooltips({"value:Q": f"Mean {unit.title}", "n:Q": "Trials near"}),
        )
    )
    points = alt.Chart(alt.InlineData(values=[row for panel in same for row in _trial_rows(data, panel)]))
    marks = points.transform_filter(only).encode(x=x, y=y)
    tooltip = tooltips({"trial:Q": "Trial", "state:N": "State", "value:Q": unit.title})
    done = marks.transform_filter("datum.state == 'done'").mark_point(
        size=26, shape="circle", filled=True, color="#1f2328", stroke="#ffffff", strokeWidth=0.8
    )
    pruned = marks.transform_filter("datum.state == 'pruned'").mark_point(
        size=26, shape="triangle-down", color="#5b6470", strokeWidth=1.2
    )
    ring = marks.transform_filter("datum.best").mark_point(size=150, strokeWidth=2.4, color="#C34B00", shape="circle")
    layers = (cells, pruned.encode(tooltip=tooltip), done.encode(tooltip=tooltip), ring)
    return alt.layer(*layers).properties(width=width, height=width)


def _draw_axis(channel: type[alt.X] | type[alt.Y], axis: ContourAxis, length: int) -> Any:
    """Return a channel from 0 to 1 whose ticks carry the setting's own values; a long title is in two lines."""
    texts = json.dumps({f"{at:.4f}": text for at, text in axis.ticks})
    given = alt.Axis(
        values=[at for at, _ in axis.ticks],
        labelExpr=f"{texts}[format(datum.value, '.4f')]",
        labelOverlap="greedy",
        labelLimit=70,
        labelAngle=0,
        grid=False,
        titleLimit=length + 20,
    )
    title = axis.name if 6.6 * len(axis.name) <= length else axis.name.split(".")
    scale = alt.Scale(domain=[-EDGE, 1 + EDGE], nice=False, zero=False)
    short = "x:Q" if channel is alt.X else "y:Q"
    return channel(short, title=title, axis=given, scale=scale)


def _cell_rows(data: ContourData, panel: ContourPanel, steps: Steps) -> list[dict[str, Any]]:
    unit = quantity(data.metric)
    return [
        {
            "condition": panel.condition,
            "x": rounded(cell.low_x),
            "x2": rounded(cell.high_x),
            "y": rounded(cell.low_y),
            "y2": rounded(cell.high_y),
            "step": steps.name(unit.shown(cell.objective)),
            "value": unit.shown(cell.objective),
            "n": cell.trials,
        }
        for cell in panel.cells
    ]


def _trial_rows(data: ContourData, panel: ContourPanel) -> list[dict[str, Any]]:
    unit = quantity(data.metric)
    return [
        {
            "condition": panel.condition,
            "x": rounded(trial.x),
            "y": rounded(trial.y),
            "trial": trial.place,
            "state": trial.state,
            "best": trial.best,
            "value": unit.shown(trial.objective),
        }
        for trial in panel.trials
    ]
