"""Checks of regularizers: hooks, strength zero, evaluation, determinism, resuming, targets, search range."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from benchkit.errors import BenchkitError, nearest
from benchkit.protocols import HOOKS, Batch
from benchkit.registry.options import Option
from benchkit.testing.check import RAISED, CheckFailure, NotApplicable, attempt, require, rule
from benchkit.testing.specimens import CLASSES, SHAPE, SmallNetwork, run_of, settings, trained
from benchkit.testing.subject import Subject
from benchkit.testing.tensors import described, maps, require_equal, require_finite
from benchkit.testing.trained_rules import difference, instance_of, require_frozen, trained_rules
from benchkit.train.hooks import started
from benchkit.train.run import Run

STRENGTHS = ("strength", "rate", "alpha", "smoothing", "probability", "amount", "sigma", "std", "weight", "scale")
"""Names of options whose 0 must switch a regularizer off."""

HUGE = 1_000_000_000


def require_neutral(subject: Subject, difference: Callable[[Any], str]) -> None:
    """Fail unless some setting makes no difference; `difference` tells how training with an instance differs.

    An option whose name means a strength must do so at 0. Without one, other values are tried: everything 0 or false,
    then each number alone at 0, at a billion and at 1, or at the ends of its card's range, if it has one. Raises
    `NotApplicable` when there is no number and no bool.
    """
    tried: list[str] = []
    got = ""
    for given, options in dict(_settings(subject)).items():
        try:
            made = subject.plugin(**{**subject.options, **options})
        except (BenchkitError, ValueError):
            continue
        with attempt(f"training with {given}", likely=RAISED):
            got = difference(made)
        if not got:
            return
        if given in {f"{name} = 0" for name in STRENGTHS}:
            raise CheckFailure(given=given, expected="training without it, bit for bit", got=got)
        tried.append(given)
    if not list(_settings(subject)):
        raise NotApplicable("it has no option by which it could be switched off; a study leaves it out instead")
    raise CheckFailure(
        given=" or ".join(tried) or "0 for its options",
        expected="a setting that trains as without it, bit for bit",
        got=got or "no such setting is accepted",
        likely="an option such as strength is missing, or the constructor refuses 0",
    )


def _settings(subject: Subject) -> Iterator[tuple[str, dict[str, Any]]]:
    numbers = [option for option in subject.known_options if option.type in ("int", "float")]
    flags = [option for option in subject.known_options if option.type == "bool"]
    strengths = sorted(
        (option for option in numbers if option.name in STRENGTHS), key=lambda option: STRENGTHS.index(option.name)
    )
    for option in strengths:
        yield f"{option.name} = 0", {option.name: _number(option, 0)}
    if numbers or flags:
        nothing = {option.name: _number(option, _values(option)[0]) for option in numbers}
        nothing |= {option.name: False for option in flags}
        yield ", ".join(f"{name} = {value}" for name, value in nothing.items()), nothing
    for option in numbers:
        for value in _values(option):
            yield f"{option.name} = {value:,}", {option.name: _number(option, value)}


def _values(option: Option) -> list[float]:
    """Return the values to try of a number: 0, a huge one and 1, those outside its range replaced by the range's ends.

    A study can give no others; an algorithm may take as many steps as an option says.
    """
    if option.low is None or option.high is None:
        return [0, HUGE, 1]
    low = 0 if option.log else option.low  # 0 is off, which a logarithmic range cannot hold
    inside = [min(max(value, low), option.high) for value in (0, HUGE, 1)]
    return list(dict.fromkeys(int(value) if value == int(value) else value for value in inside))


def _number(option: Option, value: float) -> int | float:
    return int(value) if option.type == "int" else float(value)


@rule(
    "hooks", likely="a hook has no `return`, or returns something else: `benchkit.Regularizer` says what each returns"
)
def hooks(subject: Subject) -> None:
    """It is a frozen dataclass with at least one of the hooks, and each returns what the loop expects."""
    require_frozen(subject, "a frozen dataclass: changed state would be lost on resume")
    there = [name for name in HOOKS if callable(getattr(subject.plugin, name, None))]
    own = [name for name, value in vars(subject.plugin).items() if callable(value) and not name.startswith("_")]
    close = [f"{name}{nearest(name, HOOKS)}" for name in own if nearest(name, HOOKS)]
    got = f"none; it has {', '.join(close or own) or 'no method'}"
    likely, expected = "a method's name is misspelt", f"at least one of {', '.join(HOOKS)}"
    require(there, given="the plugin's methods", expected=expected, got=got, likely=likely)
    _results_fit(subject, instance_of(subject), there)


def _results_fit(subject: Subject, made: Any, there: list[str]) -> None:
    plain = run_of(settings(subject.seed_for("hooks")))
    if "optimizer_options" in there:
        answer = made.optimizer_options()
        right = isinstance(answer, dict) and all(isinstance(name, str) for name in answer)
        require(right, given="optimizer_options()", expected="a dict of keyword arguments", got=repr(answer))
    if "prepare" in there:
        answer = made.prepare(copy.deepcopy(plain.model))
        require(
            isinstance(answer, nn.Module), given="prepare(model)", expected="an nn.Module", got=type(answer).__name__
        )
    if "start" in there:
        _state_fits(made.start(plain.model, 4, 2))
    if "batch_sampling" in there:
        _sampling_fits(made)
    with attempt("a run with it"):
        run = _run_under(subject.seed_for("hooks"), made)
    for penalty in run.hooks.penalties:
        _is_scalar(penalty(run.model), "penalty(model)")
    for change in run.hooks.losses:
        targets = torch.eye(len(CLASSES))
        _is_scalar(change(torch.tensor(1.1), torch.zeros_like(targets), targets), "loss(loss, logits, targets)")
    for clip in run.hooks.clips:
        _gradients(run.model)
        answer = clip(run.parameters)
        require(answer is None, given="clip(parameters)", expected="None: it works in place", got=repr(answer))
        for parameter in run.parameters:
            if parameter.grad is not None:
                require_finite(parameter.grad, given="clip(parameters)", what="gradients")
    if run.hooks.averaged is not None:
        _average_fits(run.hooks.averaged(run.model), run.model.state_dict())
    for stop in run.hooks.stops:
        history = tuple(trained(run_of(settings(subject.seed_for("hooks")))).history)
        answer = [stop(history[:count]) for count in (1, 2, 1)]
        right = all(isinstance(decision, bool) for decision in answer) and answer[0] == answer[2]
        require(
            right,
            given="stop(history) after 1, 2 and 1 epochs",
            expected="bools, equal for equal histories",
            got=repr(answer),
        )


def _state_fits(state: Any) -> None:
    methods = [name for name in ("state_dict", "load_state_dict") if not callable(getattr(state, name, None))]
    expected, got = "an object with state_dict and load_state_dict", f"a {type(state).__name__}"
    require(not methods, given="start(model, 4, 2)", expected=expected, got=f"{got} without {' and '.join(methods)}")
    kept = io.BytesIO()
    with attempt("state_dict() of what start(...) returns, saved and read as a checkpoint is"):
        torch.save(state.state_dict(), kept)
        kept.seek(0)
        state.load_state_dict(torch.load(kept, weights_only=True))


def _sampling_fits(made: Any) -> None:
    labels = torch.tensor([0] * 20 + [1] * 9 + [2] * 3)
    given = "batch_sampling of 32 images of 3 classes, for an epoch of 31"
    with attempt(given):
        chosen, again = (made.batch_sampling(labels, 3, 31, torch.Generator().manual_seed(1)) for _ in range(2))
    right = isinstance(chosen, torch.Tensor) and chosen.shape == (31,) and chosen.dtype == torch.int64
    got = described(chosen) if isinstance(chosen, torch.Tensor) else type(chosen).__name__
    require(right, given=given, expected="positions (31,) int64", got=got)
    inside = bool(((chosen >= 0) & (chosen < 32)).all())
    require(inside, given=given, expected="positions in 0..31", got=f"{int(chosen.min())}..{int(chosen.max())}")
    require_equal(again, chosen, given=given, expected="the same images for the same generator")


def _average_fits(averaged: Any, wanted: Mapping[str, torch.Tensor]) -> None:
    given = "averaged(model, state) before the first step"
    lacking = [name for name in wanted if name not in averaged]
    expected = "a tensor for each name in the model's state dict"
    require(not lacking, given=given, expected=expected, got=f"none for {', '.join(lacking)}")
    for name, tensor in wanted.items():
        require_equal(averaged[name], tensor, given=given, expected=f"the model's own {name}")


def _is_scalar(answer: Any, given: str) -> None:
    scalar = isinstance(answer, torch.Tensor) and answer.ndim == 0 and bool(answer.detach().isfinite())
    require(scalar, given=given, expected="a finite scalar tensor", got=repr(answer))


@rule("strength-zero", likely="the hook computes with the strength instead of returning early, which rounds or draws")
def strength_zero(subject: Subject) -> None:
    """Some setting of its options (strength zero) trains bit for bit as without it, on the CPU."""
    seed = subject.seed_for("zero")
    baseline = trained(run_of(settings(seed)))
    require_neutral(subject, lambda made: difference(trained(_run_under(seed, made)), baseline))


@rule("evaluation", likely="it acts whether or not the module is in training: look at module.training")
def evaluation(subject: Subject) -> None:
    """In evaluation the prepared model gives what the plain one gives, each time."""
    made = instance_of(subject)
    if not hasattr(made, "prepare"):
        return
    torch.manual_seed(subject.seed_for("evaluation"))
    plain = SmallNetwork(len(CLASSES), SHAPE, nn.BatchNorm2d)
    prepared = made.prepare(copy.deepcopy(plain)).eval()
    images = maps(subject, (8, *SHAPE), purpose="evaluation")
    given = f"a network in evaluation after prepare(), images {described(images)}"
    with torch.no_grad():
        first, second, reference = prepared(images), prepared(images), plain.eval()(images)
    require_equal(second, first, given=given, expected="the same logits a second time")
    require_equal(first, reference, given=given, expected="the logits of the network without it")


@rule("deterministic", likely="random numbers come from random, numpy or torch.rand without generator=generator")
def deterministic(subject: Subject) -> None:
    """Two runs under one seed are equal bit for bit, and augmentation draws from its generator alone."""
    seed = subject.seed_for("deterministic")
    made = []
    for state in (1, 2):
        torch.manual_seed(state)
        np.random.seed(state)
        random.seed(state)
        made.append(trained(_run_under(seed, instance_of(subject))))
    apart = difference(made[1], made[0])
    given = "two runs of two epochs under one seed, global generators seeded differently before"
    require(not apart, given=given, expected="equal weights and losses", got=apart)
    if hasattr(subject.plugin, "augment"):
        augment, batch = _augment(subject), _batch(subject, 8)
        before = torch.get_rng_state()
        augment(batch, torch.Generator().manual_seed(1))
        untouched = torch.equal(before, torch.get_rng_state())
        expected = "random numbers from the generator alone"
        require(
            untouched, given="augment(batch, generator)", expected=expected, got="PyTorch's global generator was used"
        )


@rule("targets", likely="targets are mixed with weights that do not sum to 1, or images leave the range 0..1")
def targets(subject: Subject) -> None:
    """Augmented images keep shape, dtype and the range 0..1, and targets stay probabilities."""
    if not hasattr(subject.plugin, "augment"):
        return
    augment = _augment(subject)
    for count, channels in ((1, 1), (2, 3), (7, 3), (16, 1)):
        for seed in range(3):
            batch = _batch(subject, count, channels)
            given = (
                f"images {described(batch.images)} in 0..1, targets {described(batch.targets, 'rows that sum to 1')}"
            )
            with attempt(f"augment of {given}", likely=RAISED):
                augmented = augment(batch, torch.Generator().manual_seed(seed))
            _is_batch(augmented, (count, channels, *SHAPE[1:]), given)


def _is_batch(batch: Any, shape: tuple[int, ...], given: str) -> None:
    got, likely = (
        type(batch).__name__,
        "augment returns a Batch of as many images and targets as it gets, of their shapes",
    )
    require(isinstance(batch, Batch), given=given, expected="a benchkit.Batch", got=got, likely=likely)
    wanted = {"images": shape, "targets": (shape[0], len(CLASSES))}
    for name, size in wanted.items():
        tensor = getattr(batch, name)
        right = tensor.shape == size and tensor.dtype == torch.float32
        require(right, given=given, expected=f"{name} {size} float32", got=described(tensor), likely=likely)
        low, high = float(tensor.min()), float(tensor.max())
        require(
            low >= -1e-6 and high <= 1 + 1e-6, given=given, expected=f"{name} in 0..1", got=f"{low:.4g}..{high:.4g}"
        )
    off = float((batch.targets.double().sum(1) - 1).abs().max())
    require(off < 1e-5, given=given, expected="targets whose rows sum to 1", got=f"a sum that is off by {off:.3g}")


@rule(
    "cuda", likely="a tensor is made on the CPU: use device=batch.images.device and the generator it is given", gpu=True
)
def cuda(subject: Subject) -> None:
    """On a GPU augmentation stays there, drawing from a generator there."""
    if not hasattr(subject.plugin, "augment"):
        return
    batch = _batch(subject, 8)
    moved = Batch(images=batch.images.cuda(), targets=batch.targets.cuda())
    with attempt("a batch on cuda"):
        augmented = _augment(subject, "cuda")(moved, torch.Generator("cuda").manual_seed(1))
    there = augmented.images.is_cuda and augmented.targets.is_cuda
    require(there, given="a batch on cuda", expected="a batch on cuda", got=str(augmented.images.device))


def _augment(subject: Subject, device: str = "cpu") -> Any:
    """Return the plugin's `augment`, with a state where it has one."""
    model = SmallNetwork(len(CLASSES), SHAPE, nn.BatchNorm2d).to(device)
    return started([("it", instance_of(subject))], model, 4, 2).augments[0]


def _batch(subject: Subject, count: int, channels: int = SHAPE[0]) -> Batch:
    images = torch.rand(
        (count, channels, *SHAPE[1:]), generator=torch.Generator().manual_seed(subject.seed_for("batch"))
    )
    labels = torch.arange(count) % len(CLASSES)
    return Batch(images=images, targets=torch.eye(len(CLASSES))[labels])


def _gradients(model: nn.Module) -> None:
    model(torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))).square().sum().backward()


def _run_under(seed: int, made: Any, epochs: int = 2) -> Run:
    return run_of(settings(seed, epochs=epochs), regularizers=(("it", made),))


def _run(subject: Subject, made: Any, epochs: int) -> Run:
    return _run_under(subject.seed_for("run"), made, epochs)


RESUME, *TRAINED = trained_rules(
    _run, forgets="it counts steps or keeps a cache in itself; what it keeps is the state that `start` returns"
)
RULES = (hooks, strength_zero, evaluation, deterministic, RESUME, targets, *TRAINED, cuda)
