"""An ablation ladder: steps that each add one change to all before, and what each of them brought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt

from benchkit import NothingToDraw, card
from benchkit.analysis import paired_t
from benchkit.results import StudyResults
from benchkit.study import Level
from benchkit_figures.encodings import (
    LEADING,
    OTHERS,
    WIDTH,
    comparable_metric,
    label_width,
    left_out,
    numbers_beside,
    quantity,
    repeats_words,
    t_interval,
    values_of,
)

FEWEST = 3
"""Fewer steps than this are no ladder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A step: mean and 95 % t interval over `n` repeats, and the change from the step below it.

    `change` is the mean difference over the repeats that both steps have, with its 95 % t interval; None for the first
    step, and `change_low` and `change_high` None with fewer than two such repeats.
    """

    condition: str
    n: int
    mean: float
    low: float
    high: float
    change: float | None
    change_low: float | None
    change_high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderData:
    """The finished steps from the lowest on; `beside` are levels of the factor that are no step of the ladder."""

    metric: str
    rungs: tuple[Rung, ...]
    beside: tuple[str, ...]
    without: tuple[str, ...]


@card(
    title="Ablation ladder",
    summary="Steps that each add one change to all before: the metric of each, and what it changed.",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The ladder of a study's only factor, of whose levels each one keeps what the one before set and adds to it."""

    metric: str = ""

    def data(self, results: StudyResults) -> LadderData:
        """Return the steps; raise `NothingToDraw` for a study whose levels do not build on each other."""
        metric = comparable_metric(results, self.metric or results.study.report.metric)
        factors = results.study.factors
        steps = ladder_of(factors[0].levels) if len(factors) == 1 else ()
        if len(steps) < FEWEST:
            raise NothingToDraw("the levels of the study do not build on each other: there is no ladder")
        by_label = {condition.label: condition for condition in results.conditions if condition.kind == "grid"}
        values = {label: values_of(results, by_label[label], metric) for label in steps if label in by_label}
        found = {label: one for label, one in values.items() if one}
        if len(found) < FEWEST:
            raise NothingToDraw(f"fewer than {FEWEST} steps of the ladder have finished with a value of {metric}")
        below: Mapping[int, float] = {}
        rungs = []
        for label, one in found.items():
            rungs.append(_rung(label, metric, one, below, results.resampled))
            below = one
        levels = [level.label for level in factors[0].levels]
        return LadderData(
            metric=metric,
            rungs=tuple(rungs),
            beside=tuple(label for label in levels if label not in steps),
            without=tuple(label for label in steps if label not in found),
        )

    def draw(self, data: LadderData) -> Any:
        """Return a row for each step, lowest on top: mean, interval, the step from the one above, and its change."""
        unit, order = quantity(data.metric), [rung.condition for rung in data.rungs]
        rows, above = [], None
        for rung in data.rungs:
            ends = {name: unit.shown(getattr(rung, name)) for name in ("mean", "low", "high")}
            rows.append({"condition": rung.condition, **ends, "from": above, "text": _words(data, rung)}
                        | {"better": _better(data, rung)})  # fmt: skip
            above = ends["mean"]
        step = alt.Step(24)
        axis = alt.Axis(domain=False, ticks=False, grid=True)
        base = alt.Chart(alt.InlineData(values=rows)).encode(y=alt.Y("condition:N", sort=order, title=None, axis=axis))
        x = alt.X("mean:Q", title=unit.title, scale=alt.Scale(zero=False, padding=8))
        told = alt.condition("datum.better", alt.value(LEADING), alt.value(OTHERS))
        layers = [
            base.transform_filter("isValid(datum.from)").mark_bar(height=9, fillOpacity=0.35).encode(
                x=alt.X("from:Q", title=unit.title), x2=alt.X2("mean:Q"), color=told
            ),
            base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=unit.title), x2=alt.X2("high:Q"), color=told),
            base.mark_point(filled=True, size=52, fillOpacity=1).encode(
                x=x, color=told, tooltip=[alt.Tooltip("condition:N"), alt.Tooltip("mean:Q", title=unit.title)]
            ),
        ]  # fmt: skip
        plot = alt.layer(*layers).properties(width=WIDTH - label_width(order) - 170, height=step)
        return alt.hconcat(plot, numbers_beside(rows, order, width=140, height=step), spacing=8)

    def caption(self, data: LadderData) -> str:
        """Return what points, bars and numbers are, and what is no step."""
        unit = quantity(data.metric)
        n = repeats_words(rung.n for rung in data.rungs)
        kind = "percentage points" if unit.unit == "%" else unit.unit
        parts = [
            f"{unit.capital} of each step of the ladder, which keeps all changes of the steps "
            f"above it. Points: mean of {n}; lines: 95 % t interval; bars: from the step above. At the right: the "
            f"change in {kind}, paired by repeat, with its 95 % t interval. Blue: better than the step above beyond "
            "its interval. Many steps were looked at: one in twenty intervals misses by chance."
        ]
        parts += left_out("No steps of the ladder", data.beside)
        parts += left_out("Without a finished repeat", data.without)
        return " ".join(parts)

    def alt_text(self, data: LadderData) -> str:
        """Return one sentence with the step that brought most."""
        unit, first, last = quantity(data.metric), data.rungs[0], data.rungs[-1]
        most = min(data.rungs[1:], key=lambda rung: unit.rank(rung.change or 0.0))
        return (
            f"From {first.condition} to {last.condition} the {unit.name} goes from {unit.text(first.mean)} to "
            f"{unit.text(last.mean)}; the step {most.condition} brought most ({_signed(data, most.change or 0.0)})."
        )


def ladder_of(levels: tuple[Level, ...]) -> tuple[str, ...]:
    """Return the labels of the levels that build on each other, none where they are no ladder.

    A step sets all that the one before did, at least half of it to the same values, and something more or else; the
    last one sets at least two settings more than the first.
    """
    steps: list[Level] = []
    for level in levels:
        before = steps[-1].settings if steps else {}
        same = sum(path in level.settings and level.settings[path] == value for path, value in before.items())
        builds = before.keys() <= level.settings.keys() and 2 * same >= len(before) and level.settings != before
        if not steps or builds:
            steps.append(level)
    grown = len(steps[-1].settings) - len(steps[0].settings) if steps else 0
    return tuple(level.label for level in steps) if grown >= 2 else ()


def _rung(label: str, metric: str, values: Mapping[int, float], below: Mapping[int, float], resampled: float) -> Rung:
    shared = sorted(values.keys() & below.keys())
    found = paired_t([values[i] for i in shared], [below[i] for i in shared], resampled).difference if shared else None
    own = t_interval(list(values.values()), metric, resampled=resampled)
    return Rung(
        condition=label,
        n=own.n,
        mean=own.mean,
        low=own.low,
        high=own.high,
        change=found.mean if found else None,
        change_low=found.low if found else None,
        change_high=found.high if found else None,
    )


def _better(data: LadderData, rung: Rung) -> bool:
    if rung.change_low is None or rung.change_high is None:
        return False
    return rung.change_high < 0 if quantity(data.metric).lower else rung.change_low > 0


def _words(data: LadderData, rung: Rung) -> str:
    if rung.change is None:
        return ""
    if rung.change_low is None or rung.change_high is None:
        return _signed(data, rung.change)
    ends = ", ".join(_signed(data, end) for end in (rung.change_low, rung.change_high))
    return f"{_signed(data, rung.change)} [{ends}]"


def _signed(data: LadderData, value: float) -> str:
    unit = quantity(data.metric)
    return f"{unit.factor * value:+.{2 if unit.unit == '%' else 4}f}"
