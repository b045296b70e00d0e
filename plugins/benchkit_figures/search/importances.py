"""Which searched settings mattered: fANOVA importances with their spread over resampled trials."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import optuna

from benchkit import NothingToDraw, card
from benchkit.results import StudyResults
from benchkit_figures.encodings import (
    WIDTH,
    Layers,
    label_width,
    left_out,
    panels_in_columns,
    quantity,
    rounded,
    tooltips,
)
from benchkit_figures.search.trials import SearchData, SearchedCondition, SearchPoint, search_data

RESAMPLES = 6

MOST_IN_ALL = 1200
"""Trials over all searches of a study: with the resamples they keep the figure to some seconds, whatever the study."""

FEWEST = 8
"""Fewer completed trials than this say nothing about importance."""

TREES, DEPTH = 24, 32
"""Of the random forest: with the trials they bound the time, about 0.1 s for 120 trials of five settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """A setting's share of the objective's variance, 0 to 1, and the least and greatest share over resamples."""

    name: str
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionImportances:
    """A searched condition's importances, most important first, from its last `trials` completed trials."""

    condition: str
    trials: int
    importances: tuple[Importance, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportancesData:
    """The importances for `metric` of every searched condition with enough trials, and the names of the others."""

    metric: str
    resamples: int
    conditions: tuple[ConditionImportances, ...]
    too_few: tuple[str, ...]


@card(
    title="Importance of settings",
    summary="The share of the objective's variance that each searched setting explains (fANOVA).",
    reference="Hutter, Hoos, Leyton-Brown. An Efficient Approach for Assessing Hyperparameter Importance. ICML 2014.",
    url="https://proceedings.mlr.press/v32/hutter14.html",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchImportances:
    """fANOVA importances by Optuna from the last `most_trials` completed trials of each searched condition."""

    most_trials: int = 120

    def data(self, results: StudyResults) -> ImportancesData:
        """Return the importances of every searched condition with at least eight completed, differing trials."""
        search = search_data(results)
        if len(search.paths) < 2:
            raise NothingToDraw("the search has one setting only, which has all the importance")
        resamples = max(0, min(RESAMPLES, 3 * RESAMPLES // len(search.conditions)))
        most = min(self.most_trials, max(4 * FEWEST, MOST_IN_ALL // len(search.conditions)))
        conditions, too_few = [], []
        for searched in search.conditions:
            points = scored(searched)[-most:]
            if len(points) < FEWEST or len({point.objective for point in points}) < 2:
                too_few.append(searched.condition)
            else:
                conditions.append(_importances(search, searched, points, resamples))
        if not conditions:
            raise NothingToDraw(f"no search has {FEWEST} completed trials with differing {search.metric}")
        return ImportancesData(
            metric=search.metric, resamples=resamples, conditions=tuple(conditions), too_few=tuple(too_few)
        )

    def draw(self, data: ImportancesData) -> Any:
        """Return bars with their spread, a panel for each searched condition."""
        columns = min(2, len(data.conditions))
        names = [importance.name for searched in data.conditions for importance in searched.importances]
        width = (WIDTH - columns * (label_width(names) + 40)) // columns
        panels = [_panel(searched).properties(width=width, height=alt.Step(22)) for searched in data.conditions]
        return panels_in_columns(panels, [searched.condition for searched in data.conditions], columns, width)

    def caption(self, data: ImportancesData) -> str:
        """Return what the bars are, by which method, from how many trials."""
        counts = sorted({searched.trials for searched in data.conditions})
        n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        name = quantity(data.metric).name
        parts = [
            f"Importance of the searched settings for {name}: share of its variance by fANOVA over {n} completed "
            "trials of each search (the last ones, where it has more), every value of a range, on its scale, as likely."
        ]
        if data.resamples:
            parts.append(f"Lines: least to greatest share over {data.resamples} bootstrap resamples of the trials.")
        parts += left_out("Too few completed trials", data.too_few)
        return " ".join(parts)

    def alt_text(self, data: ImportancesData) -> str:
        """Return one sentence with the most important setting of each search, up to three."""
        parts = [
            f"{searched.importances[0].name} ({100 * searched.importances[0].share:.0f} %"
            + (f", {searched.condition})" if len(data.conditions) > 1 else ")")
            for searched in data.conditions[:3]
        ]
        return f"The most important setting for {quantity(data.metric).name} is {'; '.join(parts)}."


def _importances(
    search: SearchData, searched: SearchedCondition, points: Sequence[SearchPoint], resamples: int
) -> ConditionImportances:
    random_ = random.Random(len(points))
    shares = shares_of(search, points)
    again = [shares_of(search, random_.choices(points, k=len(points))) for _ in range(resamples)]
    importances = [
        Importance(
            name=name,
            share=shares[path],
            low=min([shares[path], *(sample[path] for sample in again)]),
            high=max([shares[path], *(sample[path] for sample in again)]),
        )
        for path, name in zip(search.paths, search.names, strict=True)
    ]
    importances.sort(key=lambda importance: -importance.share)
    return ConditionImportances(condition=searched.condition, trials=len(points), importances=tuple(importances))


def _panel(searched: ConditionImportances) -> Layers:
    order = [importance.name for importance in searched.importances]
    values = [
        {"name": one.name} | {field: rounded(100 * getattr(one, field)) for field in ("share", "low", "high")}
        for one in searched.importances
    ]
    title = "Share of variance (%)"
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(domain=False, ticks=False))
    x = alt.X("share:Q", title=title, scale=alt.Scale(domain=[0, 100]))
    base = alt.Chart(alt.InlineData(values=values)).encode(y=y)
    tooltip = tooltips({"name:N": "Setting", "share:Q": title})
    bars = base.mark_bar(color="#1E78B4", size=13).encode(x=x, tooltip=tooltip)
    spread = base.mark_rule(strokeWidth=1.2).encode(x=alt.X("low:Q", title=title), x2=alt.X2("high:Q"))
    return alt.layer(bars, spread)


def scored(searched: SearchedCondition) -> list[SearchPoint]:
    """Return the done trials of a search that have an objective and all settings, in their order."""
    done = (point for point in searched.points if point.state == "done" and point.objective is not None)
    return [point for point in done if "" not in point.values]


def shares_of(search: SearchData, points: Sequence[SearchPoint]) -> dict[str, float]:
    """Return the share of each path by Optuna's fANOVA over a study in memory, 0 for paths that never changed."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # every study in memory would be announced
    try:
        return _fanova(search, points)
    finally:
        optuna.logging.set_verbosity(before)


def _fanova(search: SearchData, points: Sequence[SearchPoint]) -> dict[str, float]:
    distributions = _distributions(search)
    study = optuna.create_study(
        storage=optuna.storages.InMemoryStorage(), direction="minimize" if search.lower else "maximize"
    )
    for point in points:
        values = [math.log(float(value)) if log else value for value, log in zip(point.values, search.log, strict=True)]
        params = dict(zip(search.paths, values, strict=True))
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=point.objective))
    shares = dict.fromkeys(search.paths, 0.0)
    if len({point.objective for point in points}) > 1:
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=0)
        evaluated = optuna.importance.get_param_importances(study, evaluator=evaluator)
        shares |= {path: float(share) for path, share in evaluated.items()}
    return shares


def _distributions(search: SearchData) -> dict[str, optuna.distributions.BaseDistribution]:
    """Return ranges as the search draws from them: Optuna's fANOVA weighs a log scale as if it were a linear one."""
    ranges = zip(search.paths, search.low, search.high, search.log, search.choices, strict=True)
    return {
        path: optuna.distributions.CategoricalDistribution(choices)
        if choices
        else optuna.distributions.FloatDistribution(*((math.log(low), math.log(high)) if log else (low, high)))
        for path, low, high, log, choices in ranges
    }
