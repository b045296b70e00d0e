"""The benchmark's figure: each contender's ratio to the script on every workload, and the goals."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import altair as alt
from comparison import SCRIPT
from measurements import Part, is_default
from workloads import WORKLOADS

from benchkit.report.figures.drawing import FIGURE_WIDTH


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioRow:
    """A contender on a workload: its ratio to the script, the median over rounds, the least and the greatest.

    `default` says that it is benchkit as it is.
    """

    workload: str
    contender: str
    ratio: float
    low: float
    high: float
    n: int
    default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalRow:
    """benchkit's goal on a workload."""

    workload: str
    goal: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioData:
    """All rows, workloads in their order."""

    rows: tuple[RatioRow, ...]
    goals: tuple[GoalRow, ...]
    contenders: tuple[str, ...]


def ratio_data(part: Part) -> RatioData:
    """Return the ratios of all contenders but the script: of images/s, of trials an hour where there are several."""
    rows = []
    for one in part.comparisons:
        for row in one.rows:
            ratio = row.hourly_ratio if one.trials > 1 else row.ratio
            if ratio is not None and row.contender != SCRIPT:
                rows.append(
                    RatioRow(
                        workload=one.title,
                        contender=row.contender,
                        ratio=ratio.middle,
                        low=ratio.low,
                        high=ratio.high,
                        n=row.n,
                        default=is_default(row.contender, part.device),
                    )
                )
    shown = {row.workload for row in rows}
    goals = tuple(GoalRow(workload=w.title, goal=w.goals[part.device]) for w in WORKLOADS if w.title in shown)
    return RatioData(rows=tuple(rows), goals=goals, contenders=tuple(dict.fromkeys(row.contender for row in rows)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioChart:
    """A panel for each workload on a logarithmic axis of ratios."""

    def draw(self, data: RatioData) -> Any:
        """Return the panels, one below the other, with a line at the script's speed and a tick at the goal."""
        goals = {row.workload: row.goal for row in data.goals}
        ends = [1.0, *goals.values(), *(row.low for row in data.rows), *(row.high for row in data.rows)]
        scale = alt.Scale(type="log", domain=[0.9 * min(ends), 1.1 * max(ends)], nice=False)
        titles = [None] * (len(goals) - 1) + ["Speed, as a multiple of the script's (log scale)"]
        panels = [_panel(data, row, scale, title) for row, title in zip(data.goals, titles, strict=True)]
        return alt.vconcat(*panels, spacing=8)

    def caption(self, data: RatioData) -> str:
        """Return what the points, bars and lines are."""
        counts = " or ".join(map(str, sorted({row.n for row in data.rows})))
        return (
            "Speed as a multiple of the script's, on a logarithmic axis: images/s, and trials an hour for the sweep. "
            f"Points: median over {counts} rounds; bars: least and greatest. Solid line: the script; dashed line: "
            "benchkit's goal. Blue: benchkit; grey: the others."
        )

    def alt_text(self, data: RatioData) -> str:
        """Return one sentence with benchkit's ratio on every workload."""
        return fastest_words(data)


def fastest_words(data: RatioData) -> str:
    """Return one sentence with the greatest ratio of benchkit's defaults on every workload."""
    best: dict[str, float] = {}
    for row in data.rows:
        if row.default:
            best[row.workload] = max(row.ratio, best.get(row.workload, 0.0))
    if not best:
        return "benchkit was not measured."
    words = ["times as fast as the script on", *["times on"] * (len(best) - 1)]
    told = [f"{ratio:.1f} {how} {name}" for how, (name, ratio) in zip(words, best.items(), strict=True)]
    return f"benchkit as it is by default is {'; '.join(told)}."


def _panel(data: RatioData, goal: GoalRow, scale: alt.Scale, title: str | None) -> alt.LayerChart:
    rows = [asdict(row) for row in data.rows if row.workload == goal.workload]
    x = alt.X("ratio:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5, format="~g"))
    y = alt.Y("contender:N", sort=list(data.contenders), title=None)
    shades = ["#1E78B4" if name.startswith("benchkit") else "#808080" for name in data.contenders]
    colour = alt.Color("contender:N", scale=alt.Scale(domain=list(data.contenders), range=shades), legend=None)
    made = alt.Chart(alt.InlineData(values=rows)).encode(y=y, color=colour)
    hints = [alt.Tooltip("contender:N"), *(alt.Tooltip(f"{name}:Q") for name in ("ratio", "low", "high", "n"))]
    lines = alt.InlineData(values=[{"at": 1.0, "what": "script"}, {"at": goal.goal, "what": "goal"}])
    dashes = alt.Scale(domain=["script", "goal"], range=[[1, 0], [5, 3]])
    marks = alt.Chart(lines).mark_rule(color="currentColor", opacity=0.7)
    return alt.layer(
        marks.encode(x=alt.X("at:Q", title=title), strokeDash=alt.StrokeDash("what:N", scale=dashes, legend=None)),
        made.mark_rule(strokeWidth=2.2).encode(x=alt.X("low:Q", title=title), x2="high:Q"),
        made.mark_point(filled=True, size=60).encode(x=x, tooltip=hints),
    ).properties(title=goal.workload, width=FIGURE_WIDTH - 150, height=alt.Step(20))
