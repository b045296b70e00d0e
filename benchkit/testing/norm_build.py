"""Norm modules for the checks: new ones, and ones with a few training batches behind them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchkit.testing.check import attempt, require
from benchkit.testing.subject import Subject
from benchkit.testing.tensors import maps


def build(subject: Subject, channels: int, **more: Any) -> nn.Module:
    """Return a new module for a number of channels, with the subject's options and `more`."""
    given = f"{channels} channels{''.join(f', {name} = {value!r}' for name, value in more.items())}"
    with attempt(given, expected="an nn.Module", likely="the first parameter is the number of channels"):
        module = subject.plugin(channels, **{**subject.options, **more})
    require(isinstance(module, nn.Module), given=given, expected="an nn.Module", got=type(module).__name__)
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
