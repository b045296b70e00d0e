"""fANOVA importances of searched settings by Optuna, in bounded time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna

from benchkit_figures.search_trials import SearchData, SearchedCondition, SearchPoint

FEWEST = 8
"""Fewer completed trials than this say nothing about importance."""

TREES, DEPTH = 24, 32
"""Of the random forest: with the trials they bound the time, about 0.1 s for 120 trials of five settings."""


def scored(one: SearchedCondition) -> list[SearchPoint]:
    """Return the done trials of a search that have an objective and all settings, in their order."""
    done = (point for point in one.points if point.state == "done" and point.objective is not None)
    return [point for point in done if "" not in point.values]


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna from announcing every study in memory, and restore its verbosity."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def shares_of(search: SearchData, points: Sequence[SearchPoint]) -> dict[str, float]:
    """Return the share of each path by Optuna's fANOVA over a study in memory, 0 for paths that never changed."""
    with _quiet_optuna():
        return _fanova(search, points)


def _fanova(search: SearchData, points: Sequence[SearchPoint]) -> dict[str, float]:
    distributions = _distributions(search)
    study = optuna.create_study(
        storage=optuna.storages.InMemoryStorage(), direction="minimize" if search.lower else "maximize"
    )
    for point in points:
        params = dict(zip(search.paths, point.values, strict=True))
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=point.objective))
    shares = dict.fromkeys(search.paths, 0.0)
    if len({point.objective for point in points}) > 1:
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        shares |= {path: float(share) for path, share in found.items()}
    return shares


def _distributions(search: SearchData) -> dict[str, optuna.distributions.BaseDistribution]:
    ranges = zip(search.paths, search.low, search.high, search.log, search.choices, strict=True)
    return {
        path: optuna.distributions.CategoricalDistribution(choices)
        if choices
        else optuna.distributions.FloatDistribution(low, high, log=log)
        for path, low, high, log, choices in ranges
    }
