"""Checks of optimizers: parameters, rates, groups, steps, state to the bit, training, resuming, search range."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from benchkit.study.settings import OptimizerSettings
from benchkit.testing.check import CheckFailure, attempt, require, rule
from benchkit.testing.specimens import SHAPE, SmallNetwork, losses, run_of, settings, trained
from benchkit.testing.subject import Subject
from benchkit.testing.trained_rules import difference, hold_to_seed, trained_rules
from benchkit.train import optimizers
from benchkit.train.run import Run
from benchkit.train.step import set_rate, take_step

RATE = 1e-3
ROUNDING = 1e-3
"""How far steps in float32 and float64 may be apart, as a share of how far they moved."""

Maker = Callable[..., torch.optim.Optimizer]
"""Groups of parameters and a rate to an optimizer: a plugin with its options bound."""


@rule("parameters", likely="parameters are filtered, or given to another optimizer that is not a group of this one")
def parameters(subject: Subject) -> None:
    """It is a `torch.optim.Optimizer` that holds every parameter once, in groups that have a rate."""
    network = _network(subject)
    made = _made(subject)(list(network.parameters()))
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


@rule("groups", likely="the groups become one list of parameters: hand them on as they are, with all their keys")
def groups(subject: Subject) -> None:
    """Groups keep their `rate_factor`, by which the rate of each is set: where it is 0 nothing moves, else all does."""
    network = _network(subject)
    still, moving = list(network.parameters())[::2], list(network.parameters())[1::2]
    wanted = {**{id(one): 0.0 for one in still}, **{id(one): 1.0 for one in moving}}
    with attempt("two groups, with rate_factor 0 and 1"):
        asked = [{"params": still, "rate_factor": 0.0}, {"params": moving, "rate_factor": 1.0}]
        made = subject.plugin(asked, RATE, **subject.options)
    _is_optimizer(made)
    kept = {id(one): group.get("rate_factor") for group in made.param_groups for one in group["params"]}
    lost = sum(kept.get(one) != factor for one, factor in wanted.items())
    given = f"two groups of {len(still)} and {len(moving)} parameters, with rate_factor 0 and 1"
    got = f"{len(made.param_groups)} groups, in which {lost} parameters have another rate_factor, or none"
    require(not lost, given=given, expected="each parameter in a group with its rate_factor", got=got)
    before = {one: one.detach().clone() for one in (*still, *moving)}
    for _ in range(3):
        _step(network, made, RATE)
    moved = [sum(not torch.equal(one, before[one]) for one in half) for half in (still, moving)]
    expected, got = f"0 and {len(moving)} that moved", f"{moved[0]} and {moved[1]}"
    likely = "a step takes the rate from one group for all of them: read each group's own lr"
    require(moved == [0, len(moving)], given=f"three steps with {given}", expected=expected, got=got, likely=likely)


WANTS = "step() wants a closure or second derivatives, which benchkit does not give"


@rule("steps", likely=WANTS)
def steps(subject: Subject) -> None:
    """Six steps without a closure leave finite weights."""
    _fault_after_steps(subject)


@rule("state", likely="something that counts is kept outside of state_dict(), or loading casts it")
def state(subject: Subject) -> None:
    """Saved after three steps and loaded into a new one, it goes on to the bit, with types as they were."""
    fault = _fault_after_steps(subject)
    require(not fault, given="three steps, saved, loaded and three more", expected="six steps to the bit", got=fault)


@rule("precision", likely="a number is cast or kept in a narrower type than the weights'")
def precision(subject: Subject) -> None:
    """Steps in float32 move the weights as those in float64 do, but for rounding."""
    narrow, wide = _network(subject), _network(subject).double()
    makers = [(network, _made(subject)(list(network.parameters()))) for network in (narrow, wide)]
    before = [parameter.detach().clone() for parameter in wide.parameters()]
    generator = torch.Generator().manual_seed(subject.seed_for("gradients"))
    for _ in range(3):
        slopes = [torch.randn(parameter.shape, generator=generator) for parameter in narrow.parameters()]
        for network, made in makers:
            for parameter, slope in zip(network.parameters(), slopes, strict=True):
                parameter.grad = slope.to(parameter.dtype)
            _set_rate(made, RATE)
            take_step(made)
    with torch.no_grad():
        apart = _farthest(narrow.parameters(), wide.parameters())
        moved = _farthest(wide.parameters(), before)
        largest = max(float(parameter.abs().max()) for parameter in before)
    allowed = ROUNDING * moved + 4 * torch.finfo(torch.float32).eps * largest
    given, expected = "three steps by the same gradients", f"weights within {allowed:.3g} of float64's"
    require(apart <= allowed, given=given, expected=expected, got=f"{apart:.3g}, having moved by {moved:.3g}")


@rule("rehearsed", likely="it is tried and undone before training, and does not come back to where it was")
def rehearsed(subject: Subject) -> None:
    """Where compiled steps are asked for, what is trained is the same to the bit as where they are not."""
    asked, plain = (_run(subject, _bound(subject), 2, compile=way) for way in ("always", "never"))
    apart = difference(trained(asked), trained(plain))
    require(not apart, given='train.compile = "always"', expected='what "never" gives', got=apart)


@rule("trains", likely="it draws random numbers from its own generator, or steps uphill")
def trains(subject: Subject) -> None:
    """A small network learns by it, and two runs under one seed are equal bit for bit."""
    history = list(losses(hold_to_seed(lambda: _run(subject, _bound(subject), 6)).history))
    given = "training losses of six epochs at rate 0.001"
    require(min(history[2::2]) < history[0], given=given, expected="a loss below the first", got=str(history[::2]))


def _fault_after_steps(subject: Subject) -> str:
    """Return what `short_form` finds; fail where it takes no step, or none to finite weights."""
    fault = short_form(_made(subject), _network(subject))
    taken = "no step" not in fault and "finite" not in fault
    require(taken, given="six steps", expected="finite weights", got=fault, likely=WANTS)
    return fault


def optimizer_fault(make: Callable[..., torch.optim.Optimizer]) -> str:
    """Return what `short_form` finds on a small network; no random number of the caller's is drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return short_form(make, SmallNetwork(3, SHAPE, nn.BatchNorm2d))


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
    except CheckFailure:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a library raises is the reason why it is not offered
        return f"can take no step here: {type(error).__name__}: {' '.join(str(error).split())[:100]}"
    if not all(bool(parameter.isfinite().all()) for parameter in whole.parameters()):
        return "leaves weights that are not finite"
    pairs = zip(whole.parameters(), broken.parameters(), strict=True)
    return (
        "" if all(torch.equal(*pair) for pair in pairs) else "does not go on to the bit after it was saved and loaded"
    )


def _is_optimizer(made: object) -> None:
    got, likely = type(made).__name__, "derive it from torch.optim.Optimizer, or add a `return`"
    right = isinstance(made, torch.optim.Optimizer)
    require(right, given="the plugin", expected="a torch.optim.Optimizer", got=got, likely=likely)


def _types_apart(saved: Any, loaded: Any) -> str:
    for number, kept in saved.items():
        for name, value in kept.items():
            now = loaded[number][name]
            if type(value) is not type(now) or any(
                getattr(value, fact, None) != getattr(now, fact, None) for fact in ("dtype", "device")
            ):
                return str(name)
    return ""


def _farthest(some: Iterable[torch.Tensor], others: Iterable[torch.Tensor]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(some, others, strict=True))


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group.setdefault("rate_factor", 1.0)
    set_rate(optimizer, rate)


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, rate: float) -> None:
    optimizer.zero_grad()
    images = torch.linspace(-1, 1, 4 * 3 * 8 * 8).reshape(4, *SHAPE)
    torch.nn.functional.cross_entropy(network(images), torch.arange(4) % 3).backward()  # type: ignore[no-untyped-call]
    _set_rate(optimizer, rate)
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
        _is_optimizer(made)
        return made

    return make


def _as_factory(subject: Subject) -> Subject:
    """Return the subject as one whose plugin is called with its options alone and gives what makes an optimizer.

    The weight decay is left out: regularizers vary it.
    """
    return replace(
        subject,
        plugin=lambda **options: functools.partial(subject.plugin, **options),
        known_options=tuple(option for option in subject.known_options if option.name != "weight_decay"),
        memo={},
    )


def _run(subject: Subject, made: Maker, epochs: int, **train: Any) -> Run:
    given = settings(subject.seed_for("run"), epochs=epochs)
    optimizer = OptimizerSettings(name="plugin", lr=RATE)
    changed = replace(given, train=replace(given.train, optimizer=optimizer, **train))
    return run_of(changed, optimizer=made)


RESUME, SEARCH_RANGE, CHOICES, _ = trained_rules(
    _run, forgets="something that counts is kept outside of state_dict(), or loading casts it", seen=_as_factory
)
RULES = (parameters, rates, groups, steps, state, precision, rehearsed, trains, RESUME, SEARCH_RANGE, CHOICES)
