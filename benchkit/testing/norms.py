"""Checks of norms: shapes, evaluation, parameters, copies and state. `norm_numbers` and `norm_fit` hold the others."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchkit.errors import BenchkitError
from benchkit.testing import norm_fit, norm_numbers
from benchkit.testing.check import attempt, error_text, require, rule
from benchkit.testing.norm_numbers import build, trained
from benchkit.testing.subject import Subject
from benchkit.testing.tensors import MODES, NOT_FINITE, described, maps, require_close, require_equal, require_finite

BATCHES = 300
"""Batches after which averages at half the usual momentum of 0.1 have moved all but 2e-7 of their way."""

_SHAPES = ((2, 1, 5, 7), (3, 3, 4, 4), (2, 30, 3, 5), (2, 64, 2, 2))


@rule("shapes", likely="the output is built from a fixed size, or reduced over the wrong dimensions")
def shapes(subject: Subject) -> None:
    """Maps (N, C, H, W) keep shape, dtype and device, whatever the number of channels and pixels."""
    for shape in _SHAPES:
        module, x = build(subject, shape[1]), maps(subject, shape)
        for mode, words in MODES:
            given = described(x, words)
            with attempt(given):
                y = module.train(mode)(x)
            require(isinstance(y, Tensor), given=given, expected="a tensor", got=type(y).__name__)
            same = y.shape == x.shape and y.dtype == x.dtype and y.device == x.device
            likely = "it computes in a wider type and does not go back: .to(x.dtype)" if y.shape == x.shape else ""
            require(same, given=given, expected=described(x), got=described(y), likely=likely)
            require_finite(y, given=given, likely=NOT_FINITE)


@rule("batch-of-one", likely="a statistic over images has nothing to average; take it over pixels too, or guard it")
def batch_of_one(subject: Subject) -> None:
    """One image of several pixels is normalised to finite values, in training and in evaluation."""
    module, x = build(subject, 8), maps(subject, (1, 8, 5, 5))
    for mode, words in MODES:
        given = described(x, words)
        with attempt(given):
            y = module.train(mode)(x)
        require_finite(y, given=given)


@rule("one-pixel", likely="the variance of a single value is 0 (or 0/0 when unbiased); eps must be inside the root")
def one_pixel(subject: Subject) -> None:
    """Maps of one pixel give finite values and gradients, or an error (ValueError, BenchkitError) that says why not."""
    for shape in ((4, 8, 1, 1), (1, 8, 1, 1)):
        for mode, words in MODES:
            module, x = build(subject, 8).train(mode), maps(subject, shape).requires_grad_()
            given = described(x, words)
            try:
                y = module(x)
            except (ValueError, BenchkitError) as error:
                require(str(error).strip(), given=given, expected="an error that says why", got=error_text(error))
                continue
            require_finite(y, given=given)
            y.sum().backward()
            if x.grad is not None:
                require_finite(x.grad, given=given, what="gradients")


@rule("evaluation", likely="evaluation uses statistics of the batch; use running ones, or those of each image alone")
def evaluation(subject: Subject) -> None:
    """In evaluation each image's result depends on that image alone, and nothing changes the module."""
    module = trained(subject, 8).eval()
    x = maps(subject, (6, 8, 5, 5), mean=0.5, std=2.0, purpose="evaluation")
    before = copy.deepcopy(module.state_dict())
    together = module(x)
    given = described(x, "in evaluation")
    require_equal(module(x), together, given=given, expected="the same result a second time")
    alone = torch.cat([module(image[None]) for image in x])
    require_close(alone, together, 1e-5, given=given, expected="what each image gives when it is alone in the batch")
    for name, tensor in module.state_dict().items():
        require_equal(tensor, before[name], given=given, expected=f"{name} as it was before")


@rule("running-statistics", likely="running statistics do not move, or momentum weighs the old ones, not the new ones")
def running_statistics(subject: Subject) -> None:
    """After many batches of the same maps evaluation gives what training does; `momentum` weighs the new batch."""
    x = maps(subject, (8, 6, 5, 5), mean=3.0, std=2.0, purpose="running statistics")
    takes_momentum = any(option.name == "momentum" for option in subject.known_options)
    module = build(subject, 6, **({"momentum": 0.5} if takes_momentum else {})).train()
    for _ in range(BATCHES):
        in_training = module(x)
    given = described(x, f"in evaluation after {BATCHES} batches of the same")
    with torch.no_grad():
        require_close(module.eval()(x), in_training, 0.02, given=given, expected="the result in training")
    if takes_momentum:
        _moves_by_momentum(subject, x, dict(module.named_buffers()))


def _moves_by_momentum(subject: Subject, x: Tensor, last: dict[str, Tensor]) -> None:
    """Fail unless one batch at momentum 0.1 moves each average a tenth of the way to where many batches took it."""
    module = build(subject, 6, momentum=0.1).train()
    before = {name: buffer.clone() for name, buffer in module.named_buffers() if buffer.is_floating_point()}
    module(x)
    for name, buffer in module.named_buffers():
        if name in before:
            expected = before[name] + 0.1 * (last[name] - before[name])
            given = described(x, "one batch in training at momentum 0.1")
            require_close(buffer, expected, 1e-3, given=given, expected=f"{name} a tenth of its way further")


@rule("parameters", likely="weight and bias should be nn.Parameter of shape (C,), or None where there are none")
def parameters(subject: Subject) -> None:
    """Parameters and buffers are vectors or single numbers, registered, and every parameter gets a gradient."""
    module, x = build(subject, 6), maps(subject, (3, 6, 4, 4))
    for name, tensor in module.state_dict().items():
        require(
            tensor.ndim <= 1,
            given=f"{name} of a norm for 6 channels",
            expected="at most one dimension: weights of pretrained models are told from norms' by that",
            got=described(tensor),
        )
    for name in ("weight", "bias"):
        tensor = getattr(module, name, None)
        fits = tensor is None or (isinstance(tensor, nn.Parameter) and tensor.shape == (6,))
        given = f"{name} of a norm for 6 channels"
        got = described(tensor) if isinstance(tensor, Tensor) else type(tensor).__name__
        require(fits, given=given, expected="a parameter of shape (6,), or None", got=got)
    weighted = module(x) * maps(subject, (3, 6, 4, 4), purpose="cotangent")
    named = dict(module.named_parameters())
    if named:
        gradients = torch.autograd.grad(weighted.sum(), list(named.values()), allow_unused=True)
        for name, gradient in zip(named, gradients, strict=True):
            require(gradient is not None, given=described(x), expected=f"a gradient of {name}", got="none")
    _without_affine(subject)


def _without_affine(subject: Subject) -> None:
    if not any(option.name == "affine" and option.type == "bool" for option in subject.known_options):
        return
    given = "affine = False"
    with attempt(given):
        module = build(subject, 6, affine=False)
        require_finite(module(maps(subject, (3, 6, 4, 4))), given=given)
    names = [name for name in ("weight", "bias") if getattr(module, name, None) is not None]
    require(not names, given=given, expected="no weight and no bias", got=f"there is {' and '.join(names)}")


@rule("deepcopy", likely="a tensor is shared through a closure, a global or a class attribute")
def deepcopy(subject: Subject) -> None:
    """A deep copy gives the same results and shares nothing with the original."""
    module = trained(subject, 5)
    x = maps(subject, (4, 5, 3, 3), purpose="deepcopy")
    twin = copy.deepcopy(module)
    given = described(x)
    require_equal(twin.eval()(x), module.eval()(x), given=given, expected="equal results of module and copy")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    twin.train()(x)
    for name, tensor in module.state_dict().items():
        require_equal(
            tensor, before[name], given="a copy that was changed", expected=f"{name} of the original as before"
        )


@rule("state-dict", likely="a tensor that matters is a plain attribute: register it with register_buffer")
def state_dict(subject: Subject) -> None:
    """The state dict holds all that matters: loaded into a new module it gives equal results."""
    module, fresh = trained(subject, 5), build(subject, 5)
    with attempt("the state dict of a trained module, loaded into a new one", likely="names depend on the use so far"):
        fresh.load_state_dict(module.state_dict())
    x = maps(subject, (4, 5, 3, 3), purpose="state")
    given = f"{described(x, 'in evaluation')}, after loading {', '.join(module.state_dict()) or 'no tensors'}"
    require_equal(fresh.eval()(x), module.eval()(x), given=given, expected="equal results of both modules")


@rule("meta-device", likely="a tensor is a plain attribute (register it), or the code reads a value with item()")
def meta_device(subject: Subject) -> None:
    """Everything moves between devices: built on the meta device, without memory, it works after loading a state."""
    with attempt("built under torch.device('meta')"), torch.device("meta"):
        module = build(subject, 5)
    for name, tensor in module.state_dict().items():
        require(
            tensor.is_meta, given="built under torch.device('meta')", expected=f"{name} there", got=str(tensor.device)
        )
    x = maps(subject, (4, 5, 3, 3), purpose="meta")
    with attempt(described(x, "on the meta device")):
        y = module(x.to("meta"))
    require(y.is_meta and y.shape == x.shape, given=described(x, "on meta"), expected="the same", got=described(y))
    source = trained(subject, 5)
    with attempt("moved to the CPU with to_empty, then a state dict loaded"):
        module.to_empty(device="cpu").load_state_dict(source.state_dict())
        y = module.eval()(x)
    require_equal(y, source.eval()(x), given=described(x), expected="the result of the module whose state it is")


@rule("own-randomness", likely="initial values or noise are drawn from the global generator, which unpairs conditions")
def own_randomness(subject: Subject) -> None:
    """Neither building nor using the norm draws from the global random generators."""
    x = maps(subject, (3, 4, 4, 4), purpose="randomness")
    before = _random_states()
    module = build(subject, 4)
    module(x).sum()
    module.eval()(x)
    names = [name for name, state in _random_states().items() if state != before[name]]
    got = f"{', '.join(names)} drawn from"
    require(not names, given="building and calling", expected="untouched generators", got=got)


def _random_states() -> dict[str, str]:
    states = {"torch": torch.get_rng_state().tolist(), "random": random.getstate()}
    numpy_state: tuple[Any, ...] = np.random.get_state()  # type: ignore[assignment]
    texts = {name: repr(state) for name, state in states.items()}
    return {**texts, "numpy.random": f"{numpy_state[1].tolist()} {numpy_state[2:]}"}


RULES = (
    shapes,
    batch_of_one,
    one_pixel,
    evaluation,
    running_statistics,
    parameters,
    *norm_numbers.RULES,
    deepcopy,
    state_dict,
    meta_device,
    own_randomness,
    *norm_fit.RULES,
)
