"""What a search had found by when: the best so far against trials, epochs and training time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from benchkit import card
from benchkit.results import StudyResults, Trial
from benchkit_figures.encodings import LEADING, WIDTH, Layers, colour, dash, planned_labels, quantity, rounded, tooltips
from benchkit_figures.search.trials import RESULTS, SearchData, objective_of, search_data
from benchkit_figures.training.curves import whole_ticks

BUDGETS = (("trials", "Trials"), ("epochs", "Epochs, all trials"), ("seconds", "Training time, all trials (s)"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStep:
    """What a search had spent after a trial: trials, epochs, seconds of training; the best objective so far if any."""

    trials: int
    epochs: int
    seconds: float
    best: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine:
    """One search: its condition, and a step after each of its finished trials in the order of start.

    Where the study compares samplers, `sampler` is whose search it is and `levels` are those that it searched within.
    """

    condition: str
    steps: tuple[BudgetStep, ...]
    sampler: str = ""
    levels: str = ""

    def best_within(self, epochs: int) -> float | None:
        """Return the best objective that the search had found within a number of epochs, or None."""
        within = [step.best for step in self.steps if step.epochs <= epochs and step.best is not None]
        return within[-1] if within else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetData:
    """All searches of the study; `samplers` are those they use, `labels` are all planned conditions.

    `timed` is false where several models of devices trained them, whose times do not add up.
    """

    search: SearchData
    labels: tuple[str, ...]
    samplers: tuple[str, ...]
    lines: tuple[BudgetLine, ...]
    timed: bool = True

    @property
    def shared(self) -> int:
        """Return the number of epochs that every search has spent."""
        return min(line.steps[-1].epochs for line in self.lines)

    def ahead(self, lines: Sequence[BudgetLine]) -> tuple[BudgetLine, ...]:
        """Return those of some searches that had the best objective at the shared budget, several where level."""
        bests = [(best, line) for line in lines if (best := line.best_within(self.shared)) is not None]
        top = (min if self.search.lower else max)((best for best, _ in bests), default=None)
        return tuple(line for best, line in bests if best == top)


@card(
    title="Best so far against budget",
    summary="The best objective a search had found after so many trials, epochs and seconds of training.",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchBudget:
    """A line for each searched condition in three panels: against trials, epochs and training time."""

    def data(self, results: StudyResults) -> BudgetData:
        """Return the steps of every search; pruned, diverged and failed trials spend budget too."""
        search = search_data(results)
        names = {searched.condition for searched in search.conditions}
        lines = [
            BudgetLine(
                condition=condition.label,
                steps=_steps(search, results.searched(condition)),
                sampler=condition.sampler,
                levels=", ".join(condition.levels.values()),
            )
            for condition in results.conditions
            if condition.label in names and results.searched(condition)
        ]
        assert results.study.search is not None
        devices = {one.device for trial in results.trials for one in trial.devices}
        samplers = results.study.search.samplers or (results.study.search.sampler,)
        return BudgetData(
            search=search, labels=planned_labels(results), samplers=samplers, lines=tuple(lines), timed=len(devices) < 2
        )

    def draw(self, data: BudgetData) -> alt.ConcatChart:
        """Return the three panels side by side with one objective axis."""
        rows = [row for line in data.lines for row in _rows(data, line)]
        budgets = BUDGETS if data.timed else BUDGETS[:-1]
        width = (WIDTH - 100) // len(budgets)
        panels = [
            _panel(data, name, title, first=index == 0).properties(width=width, height=190)
            for index, (name, title) in enumerate(budgets)
        ]
        return alt.concat(*panels, columns=len(budgets), data=alt.InlineData(values=rows), spacing=14)

    def caption(self, data: BudgetData) -> str:
        """Return what the lines are and what counts as budget."""
        unit = quantity(data.search.metric)
        each = "a line for each search" if len(data.lines) > 1 else "of the search"
        samplers = f"Sampler{'s' if len(data.samplers) > 1 else ''}: {', '.join(data.samplers)}"
        times = (
            "trials finished, epochs of all its trials, and their training time added up as if run one after the other"
        )
        if not data.timed:
            times = "trials finished and epochs of all its trials; times on several kinds of device do not add up"
        return (
            f"Best {unit.name} so far against budget, {each}: {times}. {samplers}. Pruned, diverged and "
            "failed trials count as spent."
        )

    def alt_text(self, data: BudgetData) -> str:
        """Return one sentence: the best at the budget that all searches had, or when the only one found its best."""
        unit = quantity(data.search.metric)
        if len(data.lines) > 1:
            return _compared(data)
        (line,) = data.lines
        last = line.steps[-1]
        if last.best is None:
            return f"The search has spent {last.epochs:,} epochs without a {unit.name}."
        when = next(step for step in line.steps if step.best == last.best)
        return (
            f"The search had its best {unit.name}, {unit.text(last.best)}, after {when.trials} of {last.trials} trials "
            f"and {when.epochs:,} of {last.epochs:,} epochs."
        )


def _compared(data: BudgetData) -> str:
    """Return one sentence: which search, and which sampler, was ahead at the budget that all searches had."""
    unit = quantity(data.search.metric)
    first = next(iter(data.ahead(data.lines)), None)
    best = first.best_within(data.shared) if first else None
    if first is None or best is None:
        return f"No search had found a {unit.name} within {data.shared:,} epochs."
    races: dict[str, list[BudgetLine]] = {}
    for line in data.lines:
        if line.sampler:
            races.setdefault(line.levels, []).append(line)
    ahead = {levels: data.ahead(lines) for levels, lines in races.items() if len(lines) > 1}
    leaders = [f"{_leader(lines)}{f' for {levels}' if levels else ''}" for levels, lines in ahead.items() if lines]
    if len(races) == 1 and leaders:
        return f"Within {data.shared:,} epochs each, {leaders[0]}, with a {unit.name} of {unit.text(best)}."
    sentence = f"Within {data.shared:,} epochs each, {first.condition} has the best {unit.name}, {unit.text(best)}"
    return f"{sentence}; {'; '.join(leaders)}." if leaders else f"{sentence}."


def _leader(ahead: Sequence[BudgetLine]) -> str:
    """Return which sampler is ahead, or which are level: trials of the same settings may well score the same."""
    if len(ahead) == 1:
        return f"{ahead[0].sampler} is ahead"
    return f"{' and '.join(line.sampler for line in ahead)} are level"


def _steps(search: SearchData, trials: Sequence[Trial]) -> tuple[BudgetStep, ...]:
    steps: list[BudgetStep] = []
    count, epochs, seconds, best = 0, 0, 0.0, None
    for trial in trials:
        if trial.state not in RESULTS:
            continue
        count += 1
        epochs += len(trial.history)
        seconds += sum(record.seconds for record in trial.history)
        value = objective_of(trial, search.metric) if trial.state == "done" else None
        if value is not None:
            best = value if best is None else (min if search.lower else max)(best, value)
        steps.append(BudgetStep(trials=count, epochs=epochs, seconds=float(f"{seconds:.6g}"), best=best))
    return tuple(steps)


def _rows(data: BudgetData, line: BudgetLine) -> list[dict[str, Any]]:
    unit = quantity(data.search.metric)
    return [
        {
            "condition": line.condition,
            "trials": step.trials,
            "epochs": step.epochs,
            "seconds": step.seconds,
            "best": unit.shown(step.best),
        }
        for step in line.steps
        if step.best is not None
    ]


def _panel(data: BudgetData, name: str, title: str, *, first: bool) -> Layers:
    unit = quantity(data.search.metric)
    drawn = tuple(line.condition for line in data.lines)
    last = max(getattr(line.steps[-1], name) for line in data.lines)
    x = alt.X(
        f"{name}:Q",
        title=title,
        axis=alt.Axis(tickCount=4) if name == "seconds" else alt.Axis(values=whole_ticks((0, round(last)), 5)),
        scale=alt.Scale(domain=[0, last or 1], nice=False),
    )
    y_axis = alt.Axis(
        labels=first, ticks=first, tickCount=5, title=f"Best {unit.name} ({unit.unit})" if first else None
    )
    y = alt.Y("best:Q", scale=alt.Scale(domain=_ends(data), nice=False, zero=False), axis=y_axis)
    titles = {"condition:N": "Search", **{f"{key}:Q": words for key, words in BUDGETS}, "best:Q": f"Best {unit.title}"}
    alone = len(drawn) == 1  # one search is blue and solid, whichever place its condition has
    base = alt.Chart().encode(x=x, y=y, color=alt.value(LEADING) if alone else colour(data.labels, drawn, "stroke"))
    line = base.mark_line(interpolate="step-after")
    line = line if alone else line.encode(strokeDash=dash(data.labels, drawn))
    return alt.layer(line, base.mark_point(size=10, filled=True, opacity=0.9).encode(tooltip=tooltips(titles)))


def _ends(data: BudgetData) -> list[float]:
    """Return the ends of the objective's axis; around the one value of searches whose first trial was their best."""
    unit = quantity(data.search.metric)
    bests = [unit.shown(step.best) for line in data.lines for step in line.steps if step.best is not None]
    low, high = min(bests, default=0.0), max(bests, default=1.0)
    pad = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return [rounded(low - pad), rounded(high + pad)]
