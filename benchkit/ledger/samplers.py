"""Optuna's samplers and pruners by the names that studies use, and a search's ranges as Optuna has them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from benchkit.ledger.tables import stored
from benchkit.study import Search, SearchRange
from benchkit.study.seeds import derive_seed

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def make_sampler(search: Search, seed: int, *parts: str | int) -> optuna.samplers.BaseSampler:
    """Return a study's sampler, seeded for one trial: the same trials before it give the same choice again.

    tpe: Tree-structured Parzen Estimator (Bergstra et al. 2011), running trials counted as bad. gp: Gaussian process.
    cma-es: Hansen 2016. nsga-ii: Deb et al. 2002. random, and grid (whose points are queued, so that nothing is left
    to sample).
    """
    number = derive_seed(seed, "sampler", *parts) % 2**32
    startup = max(1, min(10, search.trials // 3))
    if search.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=number, n_startup_trials=startup, constant_liar=True)
    if search.sampler == "gp":
        return optuna.samplers.GPSampler(seed=number, n_startup_trials=startup)
    if search.sampler == "cma-es":
        return optuna.samplers.CmaEsSampler(seed=number, warn_independent_sampling=False)
    if search.sampler == "nsga-ii":
        return optuna.samplers.NSGAIISampler(seed=number, population_size=max(4, min(50, search.trials // 4)))
    return optuna.samplers.RandomSampler(seed=number)


def make_pruner(search: Search, epochs: int) -> optuna.pruners.BasePruner:
    """Return a study's pruner.

    median (after a quarter of the trials and of the epochs), hyperband (Li et al. 2018) or none.
    """
    if search.pruner == "median" and len(search.goals) == 1:
        return optuna.pruners.MedianPruner(
            n_startup_trials=max(2, min(5, search.trials // 4)), n_warmup_steps=max(1, epochs // 4)
        )
    if search.pruner == "hyperband" and len(search.goals) == 1:
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    return optuna.pruners.NopPruner()


def sample(
    sampler: optuna.samplers.BaseSampler,
    search: Search,
    handle: optuna.Study,
    trial: FrozenTrial,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what a sampler chooses for a trial, in Optuna's values; what is `given` stays."""
    open_ = [one for one in search.space if one.path not in given]
    relative: Mapping[str, Any] = {}
    if open_:
        relative = sampler.sample_relative(handle, trial, sampler.infer_relative_search_space(handle, trial))
    chosen = dict(given)
    for one in open_:
        found = relative.get(one.path)
        if found is None or not _contains(distribution(one), found):
            found = sampler.sample_independent(handle, trial, one.path, distribution(one))
        chosen[one.path] = found
    return chosen


def record(storage: optuna.storages.BaseStorage, trial: FrozenTrial, search: Search, chosen: Mapping[str, Any]) -> None:
    """Write down what was chosen for a trial, but for what is recorded of it already."""
    for one in search.space:
        if one.path not in trial.params:
            known = distribution(one)
            storage.set_trial_param(trial._trial_id, one.path, known.to_internal_repr(chosen[one.path]), known)


def distribution(one: SearchRange) -> BaseDistribution:
    """Return a range of the study as Optuna has it."""
    if one.choices:
        return CategoricalDistribution(tuple(stored(one, choice) for choice in one.choices))
    assert one.low is not None and one.high is not None
    if one.integer:
        return IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    return FloatDistribution(one.low, one.high, log=one.log, step=one.step)


def _contains(found: BaseDistribution, value: Any) -> bool:
    if isinstance(found, CategoricalDistribution):
        return value in found.choices
    return found._contains(found.to_internal_repr(value))
