"""Checks of optimizers: parameters, rates, steps, state to the bit, training, resuming, search range."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from benchkit.study.settings import OptimizerSettings
from benchkit.testing.check import attempt, require, rule
from benchkit.testing.resuming import difference, hold_to_resuming
from benchkit.testing.specimens import SHAPE, SmallNetwork, losses, run_with, settings, small_plugins, trained
from benchkit.testing.subject import Subject
from benchkit.testing.trained_options import hold_to_choices, hold_to_ranges
from benchkit.train import optimizers
from benchkit.train.run import Run
from benchkit.train.step import set_rate, take_step

RATE = 1e-3

Maker = Callable[..., torch.optim.Optimizer]
"""Groups of parameters and a rate to an optimizer: a plugin with its options bound."""


@rule("parameters", likely="parameters are filtered, or given to another optimizer that is not a group of this one")
def parameters(subject: Subject) -> None:
    """It is a `torch.optim.Optimizer` that holds every parameter once, in groups that have a rate."""
    network = _network(subject)
    made = _made(subject)(list(network.parameters()))
    require(
        isinstance(made, torch.optim.Optimizer), given="the plugin", expected="an optimizer", got=type(made).__name__
    )
    held = [id(parameter) for group in made.param_groups for parameter in group["params"]]
    right = sorted(held) == sorted(map(id, network.parameters())) and all("lr" in group for group in made.param_groups)
    given = f"{len(list(network.parameters()))} parameters"
    require(right, given=given, expected="each once, and lr in each group", got=f"{len(held)} parameters")


@rule("rates", likely="the rate is read when the optimizer is made and not in each step")
def rates(subject: Subject) -> None:
    """The rate of its groups is the rate of the next step: at 0 nothing moves, at more all parameters do."""
    network, given = _network(subject), "a step at rate 0, then one at 0.001"
    made = _made(subject)(list(network.parameters()))
    moved = []
    for rate in (RATE, 0.0, RATE):
        before = [parameter.detach().clone() for parameter in network.parameters()]
        _step(network, made, rate)
        pairs = zip(before, network.parameters(), strict=True)
        moved.append(sum(not torch.equal(was, now) for was, now in pairs))
    require(moved[1] == 0, given=given, expected="no parameter moved at rate 0", got=f"{moved[1]} moved")
    right = max(moved[0], moved[2]) == len(list(network.parameters()))
    require(right, given=given, expected="every parameter moved at rate 0.001", got=f"{moved[2]} moved")


@rule("steps", likely="step() wants a closure or second derivatives, which benchkit does not give")
def steps(subject: Subject) -> None:
    """Six steps without a closure leave finite weights."""
    fault = short_form(_made(subject), _network(subject))
    require("no step" not in fault and "finite" not in fault, given="six steps", expected="finite weights", got=fault)


@rule("state", likely="something that counts is kept outside of state_dict(), or loading casts it")
def state(subject: Subject) -> None:
    """Saved after three steps and loaded into a new one, it goes on to the bit, with types as they were."""
    fault = short_form(_made(subject), _network(subject))
    require(not fault, given="three steps, saved, loaded and three more", expected="six steps to the bit", got=fault)


@rule("trains", likely="it draws random numbers from its own generator, or steps uphill")
def trains(subject: Subject) -> None:
    """A small network learns by it, and two runs under one seed are equal bit for bit."""
    first, second = (_trained(subject, _bound(subject), 6) for _ in range(2))
    apart = difference(second, first)
    require(not apart, given="two runs under one seed", expected="equal weights and losses", got=apart)
    history = list(losses(first.history))
    given = "training losses of six epochs at rate 0.001"
    require(min(history[2::2]) < history[0], given=given, expected="a loss below the first", got=str(history[::2]))


@rule("resume", likely="something that counts is kept outside of state_dict(), or loading casts it")
def resume(subject: Subject) -> None:
    """A run that is saved after two epochs and continued by a new instance ends as one that was not."""
    hold_to_resuming(lambda: _run(subject, _bound(subject), 4), subject.scratch("resume") / "checkpoint.pt")


@rule("search-range", likely="the card's range allows values that the constructor refuses, or at which training breaks")
def search_range(subject: Subject) -> None:
    """The card gives a range for what a search would vary, and both ends of every range can be trained with."""
    shown = [option for option in subject.known_options if option.name != "weight_decay"]  # a regularizer's to vary
    hold_to_ranges(_as_factory(subject, shown), lambda made: _trained(subject, made, 1))


@rule("choices", likely="the code for this value is seldom run: the card or the annotation allows what it cannot do")
def choices(subject: Subject) -> None:
    """Every choice of an option, and both values of a bool, can be trained with."""
    hold_to_choices(_as_factory(subject, list(subject.known_options)), lambda made: _trained(subject, made, 1))


def short_form(make: Callable[..., torch.optim.Optimizer], network: nn.Module) -> str:
    """Return why an optimizer cannot be trained with, a clause, or an empty string: six steps, and six with a break.

    `make` gets a list of parameters. Held to the bit, with dtype, device and type of all that it keeps.
    """
    whole, broken = copy.deepcopy(network), copy.deepcopy(network)
    try:
        made, first = make(list(whole.parameters())), make(list(broken.parameters()))
        for _ in range(6):
            _step(whole, made, RATE)
        for _ in range(3):
            _step(broken, first, RATE)
        second = make(list(broken.parameters()))
        saved = copy.deepcopy(optimizers.state(first))
        optimizers.restore(second, copy.deepcopy(saved))
        if types := _types_apart(saved["state"], optimizers.state(second)["state"]):
            return f"keeps {types} of another type after it was loaded"
        for _ in range(3):
            _step(broken, second, RATE)
    except Exception as error:  # noqa: BLE001 - whatever a library raises is the reason why it is not offered
        return f"can take no step here: {type(error).__name__}: {' '.join(str(error).split())[:100]}"
    if not all(bool(parameter.isfinite().all()) for parameter in whole.parameters()):
        return "leaves weights that are not finite"
    pairs = zip(whole.parameters(), broken.parameters(), strict=True)
    return (
        "" if all(torch.equal(*pair) for pair in pairs) else "does not go on to the bit after it was saved and loaded"
    )


def _types_apart(saved: Any, loaded: Any) -> str:
    for number, kept in saved.items():
        for name, value in kept.items():
            now = loaded[number][name]
            same = type(value) is type(now) and getattr(value, "dtype", None) == getattr(now, "dtype", None)
            if not same:
                return str(name)
    return ""


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group.setdefault("rate_factor", 1.0)
    optimizer.zero_grad()
    images = torch.linspace(-1, 1, 4 * 3 * 8 * 8).reshape(4, *SHAPE)
    torch.nn.functional.cross_entropy(network(images), torch.arange(4) % 3).backward()  # type: ignore[no-untyped-call]
    set_rate(optimizer, rate)
    take_step(optimizer)


def _network(subject: Subject) -> nn.Module:
    torch.manual_seed(subject.seed_for("network"))
    return SmallNetwork(3, SHAPE, nn.BatchNorm2d)


def _bound(subject: Subject) -> Maker:
    return functools.partial(subject.plugin, **subject.options)


def _made(subject: Subject) -> Callable[..., torch.optim.Optimizer]:
    """Return the plugin with its options bound, for a list of parameters."""

    def make(given: list[nn.Parameter]) -> torch.optim.Optimizer:
        with attempt(f"the options {dict(subject.given) or 'by default'}"):
            made: torch.optim.Optimizer = subject.plugin(
                [{"params": given, "rate_factor": 1.0}], RATE, **subject.options
            )
        return made

    return make


def _as_factory(subject: Subject, shown: list[Any]) -> Subject:
    """Return the subject as one whose plugin is called with its options alone and gives what makes an optimizer."""
    return Subject(
        kind=subject.kind,
        name=subject.name,
        plugin=lambda **options: functools.partial(subject.plugin, **options),
        given=subject.given,
        options=subject.options,
        known_options=tuple(shown),
        seed=subject.seed,
        entry=subject.entry,
    )


def _run(subject: Subject, made: Maker, epochs: int) -> Run:
    given = settings(subject.seed_for("run"), epochs=epochs)
    optimizer = OptimizerSettings(name="plugin", lr=RATE)
    return run_with(small_plugins(optimizer=made), replace(given, train=replace(given.train, optimizer=optimizer)))


def _trained(subject: Subject, made: Maker, epochs: int) -> Run:
    return trained(_run(subject, made, epochs))


RULES = (parameters, rates, steps, state, trains, resume, search_range, choices)
