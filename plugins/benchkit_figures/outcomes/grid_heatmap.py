"""The grid of a study: the metric of every combination of levels, two factors on the axes, the others as panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import altair as alt

from benchkit import NothingToDraw, PluginError, card
from benchkit.plan import Condition
from benchkit.results import StudyResults
from benchkit_figures.encodings import (
    DARK,
    LIGHT,
    OTHERS,
    WIDTH,
    Layers,
    Steps,
    colour_steps,
    comparable_metric,
    heading,
    label_width,
    left_out,
    quantity,
    repeats_words,
    t_interval,
    tooltips,
    values_of,
)

MEAN = "mean"
"""The level of an axis at which marginal means stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCell:
    """A combination of levels: the mean of the metric over `n` repeats, None when none has finished.

    `low` and `high` bound the 95 % t interval of the mean, and are the mean itself for a single repeat.
    """

    condition: str
    x: str
    y: str
    panel: str
    n: int
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GridMargin:
    """The mean over all cells of a row (`x` is empty) or a column (`y` is empty) of a panel, each counting the same."""

    panel: str
    x: str
    y: str
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GridData:
    """The cells, the factors on the axes (`y` is empty for a single factor) and their levels in the study's order.

    `panel` names the factors that the panels stand for, and is empty when there is one panel. `margins` are the rows
    and columns whose cells have all finished.
    """

    metric: str
    x: str
    y: str
    panel: str
    x_levels: tuple[str, ...]
    y_levels: tuple[str, ...]
    panels: tuple[str, ...]
    cells: tuple[GridCell, ...]
    margins: tuple[GridMargin, ...]


@card(
    title="Grid of factors",
    summary="The mean of a metric for every combination of levels, two factors on the axes and the others as panels.",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class GridHeatmap:
    """A heatmap of `metric` (empty: the study's main metric) over the study's factors.

    `x` and `y` name the factors on the axes (default: the two with the most levels, the longer one across); all
    others make panels.
    """

    metric: str = ""
    x: str = ""
    y: str = ""

    def data(self, results: StudyResults) -> GridData:
        """Return a cell for every grid condition; raise `PluginError` for unknown factors."""
        metric = comparable_metric(results, self.metric or results.study.report.metric)
        grid = [condition for condition in results.conditions if condition.kind == "grid" and condition.levels]
        if not grid:
            raise NothingToDraw("the study has no factors: there is no grid")
        x, y, rest = self._axes(grid)
        cells = tuple(_cell(results, condition, metric, x, y, rest) for condition in grid)
        if all(cell.mean is None for cell in cells):
            raise NothingToDraw(f"no repeat of the grid has finished with a value of {metric}")
        return GridData(
            metric=metric,
            x=x,
            y=y,
            panel=" and ".join(map(short, rest)),
            x_levels=_levels(cell.x for cell in cells),
            y_levels=_levels(cell.y for cell in cells),
            panels=_levels(cell.panel for cell in cells),
            cells=cells,
            margins=_margins(cells) if y else (),
        )

    def draw(self, data: GridData) -> Any:
        """Return a heatmap in steps of colour for each combination of the other factors, with one legend below."""
        across, room = _columns(data)
        steps, size = _steps(data), max(24, min(86, room // len(_with_mean(data, data.x_levels))))
        values = alt.InlineData(values=[*_rows(data, steps), *_margin_rows(data)])
        made = [_panel(data, index, across, steps, size) for index in range(len(data.panels))]
        if len(made) == 1:
            return made[0].properties(data=values)
        return alt.concat(*made, columns=across, data=values, spacing={"row": 14, "column": 16})

    def caption(self, data: GridData) -> str:
        """Return what a cell is, over how many repeats, and which cells are empty."""
        unit, done = quantity(data.metric), [cell for cell in data.cells if cell.mean is not None]
        n = repeats_words(cell.n for cell in done)
        which = "single repeat, so there is no interval" if n == "1 repeat" else f"mean of {n}"
        across = f"{short(data.x)} across" + (f", {short(data.y)} down" if data.y else "")
        parts = [f"{unit.capital} ({unit.unit}) of every combination of levels: {across}"]
        parts[0] += f", a panel for each {data.panel}." if data.panel else "."
        parts.append(f"Each cell: {which}; n is printed in the cell.")
        if n != "1 repeat":
            parts.append("95 % t intervals over repeats are in the data of this figure.")
        if data.margins:
            parts.append("At the right and below: means over the cells of a row or column that has them all.")
        missing = [cell.condition for cell in data.cells if cell.mean is None]
        parts += left_out("Empty, without a finished repeat", missing)
        return " ".join(parts)

    def alt_text(self, data: GridData) -> str:
        """Return one sentence with the best and the worst combination."""
        unit = quantity(data.metric)
        done = [(cell.mean, cell.condition) for cell in data.cells if cell.mean is not None]
        done.sort(key=lambda pair: (unit.rank(pair[0]), pair[1]))
        (best, at_best), (worst, at_worst) = done[0], done[-1]
        first = f"The best mean {unit.name} of the grid is {unit.text(best)}, at {at_best}"
        return f"{first}; the worst is {unit.text(worst)}, at {at_worst}." if len(done) > 1 else f"{first}."

    def _axes(self, grid: Sequence[Condition]) -> tuple[str, str, tuple[str, ...]]:
        """Return the factors across and down, and the others."""
        paths = list(dict.fromkeys(path for condition in grid for path in condition.levels))
        asked = [path for path in (self.x, self.y) if path]
        unknown = [path for path in asked if path not in paths]
        if unknown or len(set(asked)) < len(asked):
            problems = [f"{path!r}: expected one of {', '.join(paths)}" for path in unknown or asked]
            raise PluginError("the figure grid-heatmap was asked for wrong factors", problems=problems)
        counts = {path: len({condition.levels.get(path) for condition in grid}) for path in paths}
        free = sorted((path for path in paths if path not in asked), key=lambda path: -counts[path])
        x = self.x or free.pop(0) if self.x or free else ""
        y = self.y or (free.pop(0) if free else "")
        return x, y, tuple(path for path in paths if path in free)


def _cell(results: StudyResults, condition: Condition, metric: str, x: str, y: str, rest: Sequence[str]) -> GridCell:
    values = list(values_of(results, condition, metric).values())
    interval = t_interval(values, metric, resampled=results.resampled) if values else None
    named = [(path, condition.levels[path]) for path in rest if path in condition.levels]
    return GridCell(
        condition=condition.label,
        x=condition.levels.get(x, "none"),
        y=condition.levels.get(y, "none") if y else "",
        panel=", ".join(f"{short(path)} = {level}" for path, level in named),
        n=len(values),
        mean=interval.mean if interval else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
    )


def _margins(cells: Sequence[GridCell]) -> tuple[GridMargin, ...]:
    margins = []
    for side in ("y", "x"):
        lines: dict[tuple[str, str], list[float | None]] = {}
        for cell in cells:
            lines.setdefault((cell.panel, getattr(cell, side)), []).append(cell.mean)
        for (panel, level), means in lines.items():
            known = [mean for mean in means if mean is not None]
            if len(known) == len(means) > 1:
                ends = {"x": level, "y": ""} if side == "x" else {"x": "", "y": level}
                margins.append(GridMargin(panel=panel, mean=fmean(known), **ends))
    return tuple(margins)


def _levels(names: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _columns(data: GridData) -> tuple[int, int]:
    """Return how many panels stand in a row, and the room of each in pixels."""
    labels = label_width(data.y_levels) + 30
    for across in (4, 3, 2):
        room = (WIDTH - labels - 16 * (across - 1)) // across
        if across <= len(data.panels) and room >= 46 * len(_with_mean(data, data.x_levels)):
            return across, room
    return 1, WIDTH - labels


def short(path: str) -> str:
    """Return the last part of a factor's path in words, such as `batch size`."""
    return path.rpartition(".")[2].replace("_", " ")


def _with_mean(data: GridData, levels: tuple[str, ...]) -> list[str]:
    """Return the levels of an axis, with the one of the marginal means where there are such."""
    return [*levels, MEAN] if data.margins else list(levels)


def _panel(data: GridData, index: int, across: int, steps: Steps, size: int) -> Layers:
    name = data.panels[index]
    left, bottom = index % across == 0, index + across >= len(data.panels)
    columns, lines = _with_mean(data, data.x_levels), _with_mean(data, data.y_levels)
    upright = max(map(len, data.x_levels)) * 6.2 <= size
    x_axis = alt.Axis(
        ticks=False,
        domain=False,
        labelAngle=0 if upright else -45,
        labels=bottom,
        title=short(data.x) if bottom else None,
    )
    down = alt.Axis(ticks=False, domain=False, labels=left, title=short(data.y) if left else None) if data.y else None
    unit = quantity(data.metric)
    base = alt.Chart().transform_filter(alt.FieldEqualPredicate(field="panel", equal=name))
    base = base.encode(
        x=alt.X("x:O", sort=columns, scale=alt.Scale(domain=columns), axis=x_axis),
        y=alt.Y("y:O", sort=lines, scale=alt.Scale(domain=lines), axis=down),
        tooltip=tooltips(
            {
                "condition:N": "Condition",
                "mean:Q": unit.title,
                "low:Q": "Interval from",
                "high:Q": "Interval to",
                "n:Q": "Repeats",
            }
        ),
    )
    ink = alt.condition("datum.dark", alt.value(LIGHT), alt.value(DARK))
    full = base.transform_filter("datum.n > 0")
    layers = [
        full.mark_rect(stroke="#FFFFFF", strokeWidth=1).encode(color=steps.encoding(unit.title)),
        full.mark_text(fontSize=11 if size >= 44 else 9, dy=-5).encode(text=alt.Text("text:N"), color=ink),
        full.mark_text(fontSize=8.5, dy=8).encode(text=alt.Text("repeats:N"), color=ink),
        base.transform_filter("datum.n == 0")
        .mark_text(fontSize=11 if size >= 44 else 9)
        .encode(text=alt.Text("text:N")),
    ]
    chart = alt.layer(*layers).properties(
        width=size * len(columns),
        height=34 * len(lines),
        view=alt.ViewBackground(stroke=OTHERS, strokeOpacity=0.3),
    )
    return chart.properties(title=heading(name)) if name else chart


def _steps(data: GridData) -> Steps:
    unit = quantity(data.metric)
    values = [unit.shown(cell.mean) for cell in data.cells if cell.mean is not None]
    return colour_steps(values, lower_is_better=unit.lower)


def _rows(data: GridData, steps: Steps) -> list[dict[str, Any]]:
    unit = quantity(data.metric)
    return [
        {
            "condition": cell.condition,
            "x": cell.x,
            "y": cell.y,
            "panel": cell.panel,
            "n": cell.n,
            "mean": unit.shown(cell.mean),
            "low": unit.shown(cell.low),
            "high": unit.shown(cell.high),
            "step": steps.name(unit.shown(cell.mean)),
            "dark": steps.dark(unit.shown(cell.mean)),
            "text": unit.plain(cell.mean),
            "repeats": f"n = {cell.n}",
        }
        for cell in data.cells
        if cell.mean is not None and cell.low is not None and cell.high is not None
    ]


def _margin_rows(data: GridData) -> list[dict[str, Any]]:
    """Return the marginal means as rows like those of the cells, of no repeat."""
    unit = quantity(data.metric)
    return [
        {"condition": f"mean of {margin.x or margin.y}", "x": margin.x or MEAN, "y": margin.y or MEAN,
         "panel": margin.panel, "n": 0, "mean": unit.shown(margin.mean), "low": None, "high": None, "step": "",
         "dark": False, "text": unit.plain(margin.mean), "repeats": ""}
        for margin in data.margins
    ]  # fmt: skip
