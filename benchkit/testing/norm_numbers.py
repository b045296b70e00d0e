"""Checks of norms' arithmetic: gradients against finite differences, number formats, memory layouts."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import gradcheck
from torch.func import functional_call

from benchkit.testing.check import attempt, require, rule
from benchkit.testing.subject import Subject
from benchkit.testing.tensors import (
    MODES,
    NOT_A_MODULE,
    NOT_FINITE,
    described,
    maps,
    require_close,
    require_equal,
    require_finite,
)


def build(subject: Subject, channels: int, **more: Any) -> nn.Module:
    """Return a new module for a number of channels, with the subject's options and `more`."""
    given = f"{channels} channels{''.join(f', {name} = {value!r}' for name, value in more.items())}"
    with attempt(given, expected="an nn.Module", likely="the first parameter is the number of channels"):
        module = subject.plugin(channels, **{**subject.options, **more})
    got = type(module).__name__
    require(isinstance(module, nn.Module), given=given, expected="an nn.Module", got=got, likely=NOT_A_MODULE)
    return module  # type: ignore[no-any-return]


def trained(subject: Subject, channels: int) -> nn.Module:
    """Return a module that has seen three batches in training, its parameters moved off their initial values."""
    module = build(subject, channels).train()
    move_parameters(module)
    for step in range(3):
        module(maps(subject, (4, channels, 5, 5), mean=step, std=2.0, purpose=f"training {step}"))
    return module


def move_parameters(module: nn.Module) -> None:
    """Turn every parameter p into 0.9 p + 0.05: 1, 0 and 0.5 all move, and gates stay inside 0..1."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.9).add_(0.05)


@rule("gradients", likely="a hand-written backward is wrong, or a value was detached or changed in place")
def gradients(subject: Subject) -> None:
    """Gradients of input and parameters equal finite differences in float64, in training and in evaluation."""
    x = maps(subject, (3, 4, 3, 2), std=2.0, purpose="gradients").double().requires_grad_()
    for mode, words in MODES:
        module = trained(subject, 4).double().train(mode)
        given = described(x, words)
        names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        values = [dict(module.named_parameters())[name] for name in names]

        def outputs(image: Tensor, *parameters: Tensor, module: nn.Module = module, names: list[str] = names) -> Tensor:
            # Each evaluation starts from the same buffers: running statistics would drift over the differences.
            buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
            result: Tensor = functional_call(module, {**buffers, **dict(zip(names, parameters, strict=True))}, (image,))
            return result

        with attempt(given, likely="the module does not compute in float64 after double()"):
            first, second = outputs(x, *values), outputs(x, *values)
        require(first.dtype == torch.float64, given=given, expected="float64", got=str(first.dtype))
        random = "it draws random numbers: a norm's result must follow from its input"
        require_equal(second, first, given=f"{given}, twice", expected="the same result", likely=random)
        require_finite(first, given=given, likely=NOT_FINITE)
        with attempt(given, expected="the finite differences"):
            gradcheck(outputs, (x, *values), eps=1e-6, atol=1e-5, rtol=1e-3, check_batched_grad=False)


@rule("large-offset", likely="the variance is E[x^2] - E[x]^2, which cancels; subtract the mean first")
def large_offset(subject: Subject) -> None:
    """Values far from zero (mean 1000, standard deviation 1) lose no more digits than float32 must."""
    module = trained(subject, 6).train()
    x = maps(subject, (4, 6, 6, 6), mean=1000.0, purpose="offset")
    given = described(x, "mean 1000, standard deviation 1, in training")
    with attempt(given):
        y = copy.deepcopy(module)(x)
        reference = copy.deepcopy(module).double()(x.double())
    require_close(y.double(), reference, 1e-2, given=given, expected="the float64 result")


@rule("bf16", likely="statistics are computed in the input's dtype: convert to float32 first, and back at the end")
def bf16(subject: Subject) -> None:
    """Under bfloat16 autocast the dtype stays the input's, and statistics are float32 or wider."""
    _low_precision(subject, torch.bfloat16)


@rule("fp16", likely="squares overflow beyond 65504: convert to float32 before squaring, and back at the end")
def fp16(subject: Subject) -> None:
    """Under float16 autocast the dtype stays the input's, and values of a few hundred do not overflow."""
    _low_precision(subject, torch.float16)


_FAR_MAPS = ((30.0, 1.0), (300.0, 3.0), (300.0, 300.0))
"""Means and standard deviations: sums in half precision lose the small spread, and the square of the large one."""


def _low_precision(subject: Subject, dtype: torch.dtype) -> None:
    for (mean, std), (mode, words) in itertools.product(_FAR_MAPS, MODES):
        module = trained(subject, 6).train(mode)
        wide = maps(subject, (4, 6, 6, 6), mean=mean, std=std, purpose="precision")
        x = wide.to(dtype).requires_grad_()
        given = described(x, f"mean {mean:g}, standard deviation {std:g}, {words}, under autocast")
        with attempt(given), torch.autocast("cpu", dtype):
            y = copy.deepcopy(module)(x)
            kept = copy.deepcopy(module)(wide).dtype
        require(y.dtype == dtype, given=given, expected=str(dtype), got=str(y.dtype))
        require(kept == torch.float32, given=described(wide, "under autocast"), expected="float32", got=str(kept))
        require_finite(y, given=given)
        reference = copy.deepcopy(module).double()(x.detach().double())
        tolerance = 4 * torch.finfo(dtype).eps
        require_close(y.double(), reference, tolerance, given=given, expected="the float64 result, rounded")
        with attempt(f"the gradient for {given}"):
            (y.float() * maps(subject, tuple(y.shape), purpose="cotangent")).sum().backward()
        if x.grad is not None:
            require_finite(x.grad, given=given, what="gradients")


@rule("channels-last", likely="view or reshape assumes contiguous maps; use dim arguments, and empty_like for results")
def channels_last(subject: Subject) -> None:
    """Maps in channels-last memory give the same results and gradients, and stay in that layout."""
    plain = maps(subject, (3, 6, 4, 5), purpose="layout").requires_grad_()
    x = plain.detach().to(memory_format=torch.channels_last).requires_grad_()
    cotangent = maps(subject, (3, 6, 4, 5), purpose="cotangent")
    module = build(subject, 6)
    move_parameters(module)
    given = described(x, "channels-last")
    with attempt(given):
        y, reference = copy.deepcopy(module)(x), copy.deepcopy(module)(plain)
        (y * cotangent).sum().backward()
        (reference * cotangent).sum().backward()
    require_close(y, reference, 1e-5, given=given, expected="the result of contiguous maps")
    if x.grad is not None and plain.grad is not None:
        require_close(x.grad, plain.grad, 1e-5, given=given, expected="the gradient of contiguous maps")
    kept = y.is_contiguous(memory_format=torch.channels_last)
    require(kept, given=given, expected="a result in channels-last memory", got=f"strides {y.stride()}")


RULES = (gradients, large_offset, bf16, fp16, channels_last)
