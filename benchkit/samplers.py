"""Optuna's samplers and pruners by the names that studies use."""

from __future__ import annotations

import warnings
from typing import Any

import optuna

from benchkit.seeds import derive_seed
from benchkit.study import Search, SearchRange

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def make_sampler(search: Search, seed: int, *parts: str | int) -> optuna.samplers.BaseSampler:
    """Return a study's sampler, seeded for one trial: the same trials before it give the same choice again.

    tpe: Tree-structured Parzen Estimator, pending trials counted as bad (Watanabe 2023). gp: Gaussian process. cma-es:
    Hansen 2016. nsga-ii: Deb et al. 2002. random, and grid (whose points are queued, so nothing is left to sample).
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


def suggest(trial: optuna.Trial, one: SearchRange) -> Any:
    """Return what the trial's sampler chooses from a range of the study, or chose before."""
    if one.choices:
        return trial.suggest_categorical(one.path, one.choices)
    assert one.low is not None and one.high is not None
    if one.integer:
        return trial.suggest_int(one.path, int(one.low), int(one.high), step=int(one.step or 1), log=one.log)
    return trial.suggest_float(one.path, one.low, one.high, step=one.step, log=one.log)
