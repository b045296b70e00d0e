"""Samplers and pruners: seeded, independent of interruptions, silent."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from tiny_study import study_of

from benchkit.ledger.samplers import make_pruner, make_sampler, record, sample
from benchkit.ledger.tables import chosen_params, stored, stored_params
from benchkit.study import Search, SearchRange

SPACE = """
space."train.optimizer.lr" = { low = 0.01, high = 1.0, log = true }
space."train.optimizer.momentum" = { low = 0.0, high = 0.9, step = 0.1 }
space."train.batch_size" = { low = 5, high = 20 }
"""
CHOICES = 'space."model.norm" = ["bn", { name = "gn", groups = 4 }, "none"]\nspace."train.epochs" = [1, 2]\n'


def search_of(sampler: str, space: str = SPACE, goal: str = '"val.loss"') -> Search:
    search = study_of(f'[search]\ntrials = 12\nsampler = "{sampler}"\ngoal = {goal}\n{space}').search
    assert search is not None
    return search


def optimise(search: Search, trials: int, seed: int = 0) -> list[dict[str, Any]]:
    """Run a search as claims do, on a bowl around lr 0.1; return what was chosen."""
    handle = optuna.create_study(directions=[goal.direction for goal in search.goals])
    for number in range(trials):
        trial = handle.ask()
        sampler = make_sampler(search, seed, "key", number)
        chosen = sample(sampler, search, handle, handle.get_trials()[number], {})
        record(trial.storage, handle.get_trials()[number], search, chosen)
        assert handle.get_trials()[number].params == chosen
        score = (chosen.get("train.optimizer.lr", 0.0) - 0.1) ** 2
        handle.tell(trial, [score + at for at, _ in enumerate(search.goals)])
    return [dict(trial.params) for trial in handle.get_trials()]


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "cma-es", "nsga-ii"])
def test_the_same_seed_chooses_the_same_and_values_stay_inside(sampler: str) -> None:
    first, again, other = (optimise(search_of(sampler), 8, seed) for seed in (0, 0, 1))
    assert first == again != other
    for params in first:
        assert 0.01 <= params["train.optimizer.lr"] <= 1.0
        assert params["train.optimizer.momentum"] * 10 == pytest.approx(round(params["train.optimizer.momentum"] * 10))
        assert isinstance(params["train.batch_size"], int) and 5 <= params["train.batch_size"] <= 20


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cma-es"])
def test_samplers_that_learn_choose_otherwise_than_chance_does(sampler: str) -> None:
    learnt, chance = optimise(search_of(sampler), 12), optimise(search_of("random"), 12)
    assert learnt[-1] != chance[-1]


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "nsga-ii"])
def test_several_goals_can_be_searched(sampler: str) -> None:
    chosen = optimise(search_of(sampler, goal='["val.loss", "cost.seconds"]'), 7)
    assert len({tuple(sorted(params.items())) for params in chosen}) == 7


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "nsga-ii"])
def test_choices_may_be_tables_and_come_back_as_they_were(sampler: str) -> None:
    search = search_of(sampler, CHOICES)
    for params in optimise(search, 6):
        back = chosen_params(search, params)
        assert back["model.norm"] in ["bn", {"name": "gn", "groups": 4}, "none"] and back["train.epochs"] in (1, 2)
        assert stored_params(search, back) == params


def test_what_is_given_is_kept_and_the_rest_is_sampled() -> None:
    search = search_of("tpe")
    handle = optuna.create_study()
    handle.ask()
    chosen = sample(make_sampler(search, 0), search, handle, handle.get_trials()[0], {"train.batch_size": 7})
    assert chosen["train.batch_size"] == 7 and set(chosen) == {one.path for one in search.space}


def test_choosing_depends_on_nothing_recorded_of_the_trial_itself() -> None:
    search = search_of("tpe")
    handle = optuna.create_study()
    for number in range(6):
        handle.add_trial(
            optuna.trial.create_trial(
                params={"train.optimizer.lr": 0.1 + number / 10},
                distributions={"train.optimizer.lr": optuna.distributions.FloatDistribution(0.01, 1.0, log=True)},
                value=float(number),
            )
        )
    trial = handle.ask()
    before = sample(make_sampler(search, 0, 6), search, handle, handle.get_trials()[6], {})
    record(trial.storage, handle.get_trials()[6], search, before)
    assert sample(make_sampler(search, 0, 6), search, handle, handle.get_trials()[6], {}) == before


@pytest.mark.parametrize(
    ("pruner", "kind"),
    [
        ("median", optuna.pruners.MedianPruner),
        ("hyperband", optuna.pruners.HyperbandPruner),
        ("none", optuna.pruners.NopPruner),
    ],
)
def test_pruners_go_by_name(pruner: str, kind: type) -> None:
    search = study_of(f'[search]\ntrials = 8\npruner = "{pruner}"\n{SPACE}').search
    assert search is not None
    assert type(make_pruner(search, epochs=4)) is kind


def test_choices_are_stored_as_they_are_unless_one_is_a_table() -> None:
    plain = SearchRange(path="a", choices=(None, "sgd", 3))
    tables = SearchRange(path="a", choices=({"name": "sgd"}, None))
    assert [stored(plain, choice) for choice in plain.choices] == [None, "sgd", 3]
    assert [stored(tables, choice) for choice in tables.choices] == ['{"name": "sgd"}', "null"]
