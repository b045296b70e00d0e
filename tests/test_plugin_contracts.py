"""What a plugin cannot be, told where it is put to use: no hook, state in itself, lost groups, rates that are none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_study
import torch
from engine_runs import make_settings, make_splits, small_net
from torch import nn

from benchkit.errors import TrainingError
from benchkit.protocols import HOOKS, Regularizer, misfit
from benchkit.study.seeds import trial_seeds
from benchkit.train.fit import fit
from benchkit.train.run import Plugins, Run, build_run

PLUGIN = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Misspelt:
    p: float = 0.1

    def augmnt(self, batch, generator):
        return batch


@dataclass
class Mutable:
    p: float = 0.1

    def clip(self, parameters):
        self.p *= 0.5


class Plain:
    def __init__(self, p=0.1):
        self.p = p

    def penalty(self, model):
        return self.p


@dataclass
class MutableLoss:
    def __call__(self, logits, targets):
        return logits.square().mean()


PLUGINS = {
    "benchkit.regularizers": {"misspelt": Misspelt, "mutable": Mutable, "plain": Plain},
    "benchkit.losses": {"mutable-loss": MutableLoss},
}
"""
NO_STATE = "is no frozen dataclass, and what it changes in itself is lost where a trial goes on"


def test_the_hooks_are_those_of_the_protocol() -> None:
    named = {name for name in vars(Regularizer) if not name.startswith("_")}
    assert set(HOOKS) == named


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[regularizers]]\nname = "misspelt"\n',
         "the regularizer 'misspelt' has none of the methods that training calls, but augmnt (did you mean "),
        ('[[regularizers]]\nname = "mutable"\n', f"the regularizer 'mutable' {NO_STATE}"),
        ('[[regularizers]]\nname = "plain"\n', f"the regularizer 'plain' {NO_STATE}"),
        ('[train.loss]\nname = "mutable-loss"\n', f"the loss 'mutable-loss' {NO_STATE}"),
    ],
)  # fmt: skip
def test_a_plugin_that_would_not_act_as_meant_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    path = tmp_path / "odd.py"
    path.write_text(PLUGIN, encoding="utf-8")
    with pytest.raises(TrainingError) as caught:
        study = tiny_study.study_of(text, epochs=1, repeats=1)
        tiny_study.sweep_here(monkeypatch, tmp_path / "runs", study, plugins=(path,))
    assert len(caught.value.problems) == 1 and told in caught.value.problems[0]


def test_an_instance_without_methods_says_so() -> None:
    @dataclass(frozen=True)
    class Empty:
        pass

    assert misfit("regularizers", Empty()).endswith("but no method at all") and not misfit("norms", object())


def frozen_net(num_classes: int, image_shape: tuple[int, int, int], norm: Callable[[int], nn.Module], /) -> nn.Module:
    """Return the small network, whose last layer is not to be trained."""
    made = small_net(num_classes, image_shape, norm)
    for parameter in made[-1].parameters():
        vars(parameter)["rate_factor"] = 0.0
    return made


def flat(groups: Sequence[dict[str, Any]], lr: float, /, *, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Return SGD of one group alone."""
    return torch.optim.SGD([p for group in groups for p in group["params"]], lr=lr, weight_decay=weight_decay)


def swapped(groups: Sequence[dict[str, Any]], lr: float, /) -> torch.optim.Optimizer:
    """Return SGD whose groups have each other's parameters."""
    members = [group["params"] for group in groups]
    return torch.optim.SGD(
        [{**group, "params": other} for group, other in zip(groups, members[::-1], strict=True)], lr=lr
    )


def run_of(
    optimizer: Any = None, model: Any = small_net, schedule: Any = None, decayed: str = "all", decay: float = 0.0
) -> Run:
    options: dict[str, Any] = {"optimizer": {"lr": 0.05, "decayed": decayed}}
    if optimizer is not None:
        options["optimizer"] |= {"name": "own", "options": {"weight_decay": decay} if decay else {}}
    if schedule is not None:
        options["schedule"] = {"name": "own"}
    if optimizer is not None and decay:
        plain, optimizer = optimizer, lambda groups, lr: plain(groups, lr, weight_decay=decay)
    plugins = Plugins(model=model, norm=nn.BatchNorm2d, optimizer=optimizer, schedule=schedule)
    return build_run(make_settings(**options), make_splits(), plugins, seeds=trial_seeds(5, "grid", 0), device="cpu")


@pytest.mark.parametrize("optimizer", [flat, swapped])
def test_an_optimizer_that_trains_what_is_frozen_is_refused(optimizer: Any) -> None:
    with pytest.raises(TrainingError, match="groups that lack the rate_factor"):
        run_of(optimizer, frozen_net)


def test_an_optimizer_that_decays_what_shall_not_is_refused() -> None:
    with pytest.raises(TrainingError, match="groups that lack the weight_decay"):
        run_of(flat, decayed="matrices", decay=0.1)


def test_one_group_will_do_where_all_are_alike() -> None:
    own, theirs = run_of(flat), run_of(lambda groups, lr: torch.optim.SGD(groups, lr=lr))
    assert [record.train_loss for record in fit(own)] == [record.train_loss for record in fit(theirs)]
    kept = run_of(lambda groups, lr: torch.optim.SGD(groups, lr=lr), frozen_net)
    assert {group["rate_factor"] for group in kept.optimizer.param_groups} == {0.0, 1.0}


def test_what_is_no_optimizer_is_told() -> None:
    with pytest.raises(TrainingError, match=r"the optimizer .own. is made as a object, expected"):
        run_of(lambda groups, lr: object())


@dataclass(frozen=True)
class Course:
    """A schedule that gives what a function makes of rate and step; it looks at epochs where it `watches`."""

    made: Any

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Any:
        """Return the course."""
        return self.made(lr, steps_per_epoch * epochs)


class Watching:
    """A course that knows nothing of later epochs."""

    def __call__(self, step: int) -> float:
        return 0.1 if step < 5 else math.nan

    def observe(self, record: Any) -> None:
        """Look."""


def test_a_schedule_that_gives_no_rate_after_what_it_saw_is_told_before_the_step() -> None:
    run = run_of(schedule=Course(lambda lr, total: Watching()))
    with pytest.raises(TrainingError, match="the schedule 'own' in step 6 of 15 gives nan: expected a finite rate"):
        list(fit(run))
    assert len(run.history) == 1


FAULTS: Mapping[str, tuple[Any, str]] = {
    "negative": (lambda lr, total: lambda step: -lr, "in step 1 of 15 gives -0.05: expected a finite rate, 0 at least"),
    "nan": (lambda lr, total: lambda step: math.nan, "in step 1 of 15 gives nan: expected a finite rate"),
    "infinite": (lambda lr, total: lambda step: math.inf if step == 14 else lr, "in step 15 of 15 gives inf"),
    "none": (lambda lr, total: lambda step: None, "in step 1 of 15 gives None"),
    "no argument": (lambda lr, total: lambda: lr, "in step 1 of 15: TypeError"),
    "index": (
        lambda lr, total: lambda step: [lr, lr][step],
        "in step 3 of 15: IndexError: list index out of range (tests/test_plugin_contracts.py:",
    ),
    "no function": (lambda lr, total: lr, "start returns a float, expected a function of the step"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_schedule_that_gives_no_rate_is_told_at_the_start(fault: str) -> None:
    made, told = FAULTS[fault]
    with pytest.raises(TrainingError) as caught:
        run_of(schedule=Course(made))
    assert caught.value.what.startswith("the schedule 'own'") and told in caught.value.what


@pytest.mark.parametrize(
    "made",
    [
        lambda lr, total: lambda step: lr * (1 + math.cos(math.pi * step / (total - 1))) / 2 - 1e-18,
        lambda lr, total: lambda step: torch.tensor(lr),
        lambda lr, total: Watching(),
        lambda lr, total: lambda step: 0,
    ],
)
def test_a_schedule_that_gives_rates_is_taken(made: Any) -> None:
    assert run_of(schedule=Course(made)).schedule(0) is not None
