"""A search in parallel coordinates: every trial a line through its settings to its objective."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import altair as alt

from benchkit import NothingToDraw, card
from benchkit.results import StudyResults
from benchkit_figures.encodings import WIDTH, quantity, rounded
from benchkit_figures.search.axes import any_beyond, condition_choice, domain, position, round_values, ticks
from benchkit_figures.search.trials import SearchData, SearchedCondition, SearchPoint, search_data

LEVELS = ("best tenth", "to best quarter", "to best half", "other")
SHARES = (0.1, 0.25, 0.5, 1.0)
COLOURS = ("#C34B00", "#5A3C00", "#1E78B4", "#767676")
WIDTHS, STRENGTHS = (0.8, 1.0, 1.3, 2.2), (0.35, 0.6, 0.8, 1.0)
"""Of the lines from the last level to the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelAxis:
    """One axis: its name and its ticks as (position from 0 at the bottom to 1, text)."""

    name: str
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelLine:
    """One trial: its place in the search, which of the four levels its objective is in, its position on each axis."""

    condition: str
    place: int
    level: int
    objective: float
    positions: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelData:
    """The axes, the settings first and the objective last, and the lines of all searched conditions, worst first."""

    search: SearchData
    axes: tuple[ParallelAxis, ...]
    lines: tuple[ParallelLine, ...]


@card(
    title="Search in parallel coordinates",
    summary="Every search trial as a line through its settings to its objective, coloured by rank.",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchParallel:
    """Parallel coordinates of one searched condition: the best one in print, any of them in HTML."""

    def data(self, results: StudyResults) -> ParallelData:
        """Return a line for every done or pruned trial with an objective and all settings."""
        search = search_data(results)
        lines = [line for searched in search.conditions for line in _lines(search, searched)]
        if not lines:
            raise NothingToDraw("no search trial with an objective has all searched settings")
        axes = [ParallelAxis(name=name, ticks=ticks(search, index)) for index, name in enumerate(search.names)]
        unit, (low, high) = quantity(search.metric), domain(search)
        marks = tuple(((value - low) / (high - low), f"{value:g}") for value in round_values(low, high))
        axes.append(ParallelAxis(name=f"{unit.name} ({unit.unit})", ticks=marks))
        return ParallelData(search=search, axes=tuple(axes), lines=tuple(lines))

    def draw(self, data: ParallelData) -> Any:
        """Return vertical axes with ticks and a line per trial, best on top."""
        count, width = len(data.axes), WIDTH - 90
        keys = [f"p{index}" for index in range(count)]
        axis = alt.Axis(
            orient="top",
            labelAngle=0,
            labelLimit=width // max(1, count - 1) - 6,
            labelExpr=f"{json.dumps([_lines_of(axis.name) for axis in data.axes])}[toNumber(slice(datum.value, 1))]",
            labelFontWeight=600,
            labelPadding=23,
            domain=False,
            ticks=False,
        )
        x = alt.X("axis:N", sort=keys, title=None, axis=axis, scale=alt.Scale(domain=keys, type="point", padding=0.15))
        y = alt.Y("position:Q", axis=None, scale=alt.Scale(domain=[0, 1]))
        marks = [
            {"axis": key, "position": at, "text": text}
            for key, own_axis in zip(keys, data.axes, strict=True)
            for at, text in own_axis.ticks
        ]
        scale = alt.Chart(alt.InlineData(values=marks)).encode(x=x)
        rule = scale.mark_rule(strokeOpacity=0.6).encode(y=alt.YValue(0), y2=alt.Y2Value("height"))
        text = scale.mark_text(align="right", dx=-5, fontSize=10).encode(y=y, text=alt.Text("text:N"))
        return alt.layer(rule, *_level_lines(data, keys, x, y), text).properties(width=width, height=250)

    def caption(self, data: ParallelData) -> str:
        """Return what the lines are, how many, which condition is shown, and how axes are scaled."""
        shown = data.search.best_condition().condition
        count = sum(line.condition == shown for line in data.lines)
        several = len(data.search.conditions) > 1
        unit = quantity(data.search.metric)
        better = "lower" if data.search.lower else "higher"
        log = [name for name, log in zip(data.search.names, data.search.log, strict=True) if log]
        parts = [
            f"Search in parallel coordinates: each line is one of {count} trials"
            f"{f' of {shown}, the condition with the best one' if several else ''}, coloured by the rank of its "
            f"{unit.name} ({better} is better)."
        ]
        if log:
            parts.append(f"On a log scale: {', '.join(log)}.")
        if any_beyond(data.search, [data.search.best_condition()]):
            parts.append(f"Of {unit.name}, what is beyond the axis stands at its end.")
        if several:
            parts.append("In HTML the condition can be chosen.")
        return " ".join(parts)

    def alt_text(self, data: ParallelData) -> str:
        """Return one sentence with the settings of the best trial."""
        searched = data.search.best_condition()
        best = searched.best(data.search.lower)
        if best is None:
            return "Parallel coordinates of the search; no trial was completed."
        value = quantity(data.search.metric).text(best.objective or 0.0)
        return f"The best of the search's trials ({value}) has {data.search.settings_words(best)}."


def _lines_of(name: str) -> list[str]:
    """Return an axis's name in up to two lines: a dotted path or a unit is parted from what stands before it."""
    head, mark, tail = name.partition(" (") if name.endswith(")") else name.partition(".")
    return [head, f"({tail}" if mark == " (" else f".{tail}"] if mark else [name]


def _lines(search: SearchData, searched: SearchedCondition) -> list[ParallelLine]:
    sign = 1 if search.lower else -1
    complete = [point for point in searched.points if point.objective is not None and "" not in point.values]
    ranked = sorted(complete, key=lambda point: sign * (point.objective or 0.0))
    ends = domain(search) if ranked else (0.0, 1.0)
    lines = [_line(search, searched.condition, point, rank / len(ranked), ends) for rank, point in enumerate(ranked)]
    return lines[::-1]


def _line(
    search: SearchData, condition: str, point: SearchPoint, share: float, ends: tuple[float, float]
) -> ParallelLine:
    low, high = ends
    objective = point.objective or 0.0
    last = min(max((quantity(search.metric).shown(objective) - low) / (high - low), 0.0), 1.0)
    return ParallelLine(
        condition=condition,
        place=point.place,
        level=next(level for level, most in enumerate(SHARES) if share < most),
        objective=objective,
        positions=(*(position(search, index, value) for index, value in enumerate(point.values)), last),
    )


def _level_lines(data: ParallelData, keys: list[str], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Return one layer of lines for each level, the best last and strongest."""
    choice = condition_choice(data.search, "parallel_condition")
    lines = alt.Chart(alt.InlineData(values=_line_rows(data)))
    if choice is not None:
        lines = lines.add_params(choice).transform_filter(f"datum.condition == {choice.name}")
    legend = alt.Legend(title=None, orient="bottom", direction="horizontal", symbolType="stroke", symbolSize=350)
    color = alt.Color("level:N", scale=alt.Scale(domain=list(LEVELS), range=list(COLOURS)), legend=legend)
    return [
        lines.transform_filter(f"datum.level == '{level}'")
        .transform_fold([*keys], as_=["axis", "position"])
        .mark_line(strokeWidth=thick, strokeOpacity=strength)
        .encode(x=x, y=y, detail=alt.Detail("place:N"), color=color)
        for level, thick, strength in zip(LEVELS[::-1], WIDTHS, STRENGTHS, strict=True)
    ]


def _line_rows(data: ParallelData) -> list[dict[str, Any]]:
    return [
        {"condition": line.condition, "level": LEVELS[line.level], "place": line.place}
        | {f"p{index}": rounded(position) for index, position in enumerate(line.positions)}
        for line in data.lines
    ]
