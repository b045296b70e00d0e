"""What a search gave up when: epoch and value of each pruned trial, and the median it was held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import altair as alt

from benchkit import NothingToDraw, card
from benchkit.metrics import is_read_each_epoch
from benchkit.results import StudyResults, Trial
from benchkit_figures.encodings import WIDTH, Layers, panels_in_columns, quantity, tooltips
from benchkit_figures.search.axes import usual
from benchkit_figures.search.trials import RESULTS
from benchkit_figures.training.curves import whole_ticks

MOST_PANELS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedTrial:
    """A trial that was given up: its number in the search, the epoch, its best value by then.

    `median` is that of the values, in this epoch, of the trials that were done by then; None where none was.
    """

    place: int
    epoch: int
    best: float
    median: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MedianEpoch:
    """The median over all `n` done trials of a search in one epoch."""

    epoch: int
    value: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPanel:
    """One search: its pruned trials, its median by epoch, how many of its trials have finished, epochs saved."""

    condition: str
    finished: int
    epochs: int
    pruned: tuple[PrunedTrial, ...]
    medians: tuple[MedianEpoch, ...]

    @property
    def saved(self) -> int:
        """Return how many epochs were not trained because of pruning."""
        return sum(self.epochs - trial.epoch for trial in self.pruned)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningData:
    """The searches in which something was pruned."""

    metric: str
    lower: bool
    pruner: str
    panels: tuple[PruningPanel, ...]


@card(
    title="Pruned trials",
    summary="The epoch and the value at which each search trial was given up, beside the median of finished trials.",
    reference="Golovin et al. Google Vizier: A Service for Black-Box Optimization. KDD 2017 (median stopping rule).",
    url="https://doi.org/10.1145/3097983.3098043",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPruning:
    """A panel for each search: pruned trials where they ended, tied to the median of the trials done by then."""

    def data(self, results: StudyResults) -> PruningData:
        """Return every pruned trial; raise `NothingToDraw` when the study's searches pruned none."""
        search = results.study.search
        if search is None:
            raise NothingToDraw("the study has no search")
        goal = search.goals[0]
        if search.pruner == "none" or not is_read_each_epoch(goal.metric):
            raise NothingToDraw("the search prunes nothing")
        lower = goal.direction == "minimize"
        candidates = [_panel_data(results, condition, goal.metric, lower) for condition in results.conditions]
        panels = [panel for panel in candidates if panel is not None and panel.pruned]
        if not panels:
            raise NothingToDraw("no trial of the search was pruned")
        return PruningData(metric=goal.metric, lower=lower, pruner=search.pruner, panels=tuple(panels[:MOST_PANELS]))

    def draw(self, data: PruningData) -> Any:
        """Return objective by epoch: the median as a line, each pruned trial tied to the median it faced."""
        count = len(data.panels)
        columns = 1 if count == 1 else 2 if count <= 4 else 3
        width = (WIDTH - 70 * columns) // columns
        charts = [
            _chart(data, panel).properties(width=width, height=200 if count == 1 else 130) for panel in data.panels
        ]
        return panels_in_columns(charts, [panel.condition for panel in data.panels], columns, width)

    def caption(self, data: PruningData) -> str:
        """Return what is drawn, by which pruner, and what pruning saved."""
        unit = quantity(data.metric)
        pruned = sum(len(panel.pruned) for panel in data.panels)
        finished = sum(panel.finished for panel in data.panels)
        saved = sum(panel.saved for panel in data.panels)
        parts = [
            f"Pruned trials, {pruned} of {finished} finished ones: a triangle stands at the epoch in which a trial was "
            f"given up and at its best {unit.name} by then. Line: median over the done trials of the search at its end."
        ]
        if data.pruner == "median":
            parts.append(
                "Rules lead to the median of the trials done by then, against which the median pruner holds a trial."
            )
        else:
            parts.append(
                f"The {data.pruner} pruner compares within brackets of its own; the median is for orientation."
            )
        return " ".join(
            [*parts, f"Values far worse than the usual ones stand at the edge. Pruning saved {saved:,} epochs."]
        )

    def alt_text(self, data: PruningData) -> str:
        """Return one sentence with how many trials were pruned, when, and what it saved."""
        epochs = [trial.epoch for panel in data.panels for trial in panel.pruned]
        finished = sum(panel.finished for panel in data.panels)
        saved = sum(panel.saved for panel in data.panels)
        were = "was" if len(epochs) == 1 else "were"
        return (
            f"{len(epochs)} of {finished} trials {were} pruned, at epoch {median(epochs):g} by the median, which saved "
            f"{saved:,} epochs."
        )


def _panel_data(results: StudyResults, condition: Any, metric: str, lower: bool) -> PruningPanel | None:
    trials = results.searched(condition)
    done = [trial for trial in trials if trial.state == "done"]
    if not trials:
        return None
    pruned = [
        PrunedTrial(
            place=trial.index + 1,
            epoch=trial.history[-1].epoch,
            best=(min if lower else max)(values),
            median=_median(_done_by(trial, done), metric, trial.history[-1].epoch),
        )
        for trial in trials
        if trial.state == "pruned" and (values := _values(trial, metric))
    ]
    last = max((trial.history[-1].epoch for trial in done if trial.history), default=0)
    reached: dict[int, list[float]] = {}
    for record in (record for trial in done for record in trial.history):
        if math.isfinite(value := record.score(metric)):
            reached.setdefault(record.epoch, []).append(value)
    medians = [
        MedianEpoch(epoch=epoch, value=median(reached[epoch]), n=len(reached[epoch])) for epoch in sorted(reached)
    ]
    finished = sum(trial.state in RESULTS for trial in trials)
    return PruningPanel(
        condition=condition.label,
        finished=finished,
        epochs=max([last, *(trial.epoch for trial in pruned)]),
        pruned=tuple(pruned),
        medians=tuple(medians),
    )


def _done_by(trial: Trial, done: Sequence[Trial]) -> list[Trial]:
    """Return the trials that were done when a trial was given up: by the clock, else by their order."""
    if trial.finished:
        return [other for other in done if other.finished <= trial.finished]
    return [other for other in done if other.number < trial.number]


def _values(trial: Trial, metric: str) -> list[float]:
    values = [record.score(metric) for record in trial.history]
    return [value for value in values if math.isfinite(value)]


def _median(trials: Sequence[Trial], metric: str, epoch: int) -> float | None:
    found = [record.score(metric) for trial in trials for record in trial.history if record.epoch == epoch]
    values = [value for value in found if math.isfinite(value)]
    return median(values) if values else None


def _chart(data: PruningData, panel: PruningPanel) -> Layers:
    unit = quantity(data.metric)
    epochs = {one.epoch for one in panel.medians} | {one.epoch for one in panel.pruned}
    axis = alt.Axis(format="d", values=whole_ticks(epochs, 8))
    x = alt.X("epoch:Q", title="Epoch", axis=axis, scale=alt.Scale(zero=False, padding=8))
    values = sorted([unit.shown(one.value) for one in panel.medians] + [unit.shown(one.best) for one in panel.pruned])
    low, high = usual(values, lower=data.lower)
    scale = alt.Scale(domain=[low, high], zero=False, clamp=True, padding=8)
    y = alt.Y("value:Q", title=unit.title, scale=scale)
    line = [{"epoch": one.epoch, "value": unit.shown(one.value), "n": one.n} for one in panel.medians]
    ends = [
        {
            "epoch": one.epoch,
            "value": unit.shown(one.best),
            "median": None if one.median is None else unit.shown(one.median),
            "trial": one.place,
        }
        for one in panel.pruned
    ]
    titles = {"trial:Q": "Trial", "epoch:Q": "Pruned after epoch"}
    tips = tooltips(titles | {"value:Q": f"Best {unit.title}", "median:Q": "Median by then"})
    middle = alt.Chart(alt.InlineData(values=line)).mark_line(color="#1E78B4", point={"color": "#1E78B4", "size": 12})
    given_up = alt.Chart(alt.InlineData(values=ends))
    rules = given_up.transform_filter("isValid(datum.median)").mark_rule(color="#C34B00", strokeOpacity=0.45)
    marks = given_up.mark_point(shape="triangle-down", size=42, color="#C34B00", strokeWidth=1.5)
    return alt.layer(
        rules.encode(x=x, y=y, y2=alt.Y2("median:Q")),
        middle.encode(x=x, y=y),
        marks.encode(x=x, y=y, tooltip=tips),
    )
