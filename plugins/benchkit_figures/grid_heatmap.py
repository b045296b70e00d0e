"""The grid of a study: the metric of every combination of levels, two factors on the axes, the others as panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchkit import NothingToDraw, PluginError, card
from benchkit.plan import Condition
from benchkit.results import StudyResults
from benchkit_figures.epoch_series import listed
from benchkit_figures.grid_panels import panels, short
from benchkit_figures.metrics import done_repeats, lower_is_better, quantity, t_interval, value_of


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
class GridData:
    """The cells, the factors on the axes (`y` is empty for a single factor) and their levels in the study's order.

    `panel` names the factors that the panels stand for, and is empty when there is one panel.
    """

    metric: str
    x: str
    y: str
    panel: str
    x_levels: tuple[str, ...]
    y_levels: tuple[str, ...]
    panels: tuple[str, ...]
    cells: tuple[GridCell, ...]


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
        metric = quantity(self.metric or results.study.report.metric).metric
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
        )

    def draw(self, data: GridData) -> Any:
        """Return a heatmap in steps of colour for each combination of the other factors."""
        return panels(data)

    def caption(self, data: GridData) -> str:
        """Return what a cell is, over how many repeats, and which cells are empty."""
        unit, done = quantity(data.metric), [cell for cell in data.cells if cell.mean is not None]
        counts = sorted({cell.n for cell in done})
        n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        which = "single repeat, so there is no interval" if counts[-1] == 1 else f"mean of {n} repeats"
        across = f"{short(data.x)} across" + (f", {short(data.y)} down" if data.y else "")
        parts = [f"{unit.name[0].upper()}{unit.name[1:]} ({unit.unit}) of every combination of levels: {across}"]
        parts[0] += f", a panel for each {data.panel}." if data.panel else "."
        parts.append(f"Each cell: {which}; n is printed in the cell.")
        if counts[-1] > 1:
            parts.append("95 % t intervals over repeats are in the data of this figure.")
        missing = [cell.condition for cell in data.cells if cell.mean is None]
        if missing:
            parts.append(f"Empty, without a finished repeat: {listed(missing)}.")
        return " ".join(parts)

    def alt_text(self, data: GridData) -> str:
        """Return one sentence with the best and the worst combination."""
        unit, sign = quantity(data.metric), 1 if lower_is_better(data.metric) else -1
        done = sorted((sign * cell.mean, cell.condition) for cell in data.cells if cell.mean is not None)
        best, worst = done[0], done[-1]
        first = f"The best mean {unit.name} of the grid is {unit.text(sign * best[0])}, at {best[1]}"
        return f"{first}; the worst is {unit.text(sign * worst[0])}, at {worst[1]}." if len(done) > 1 else f"{first}."

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
    values = [value for t in done_repeats(results, condition) if (value := value_of(t, metric)) is not None]
    interval = t_interval(values, metric) if values else None
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


def _levels(names: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
