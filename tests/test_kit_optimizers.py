"""The kit tells what is wrong with an optimizer: parameters left out, rates, steps, state, precision."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from engine_runs import plain_net
from kit_failures import failure_of
from torch import nn

from benchkit.testing.optimizers import short_form


class Forgets(torch.optim.SGD):
    """Keeps a count that no state has."""

    taken = 0

    def step(self, closure: Any = None) -> Any:
        self.taken += 1
        for group in self.param_groups:
            group["lr"] /= self.taken
        return inspect.unwrap(torch.optim.SGD.step)(self, closure)


class Casts(torch.optim.SGD):
    """Keeps what it loads in double."""

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        for kept in self.state.values():
            kept["momentum_buffer"] = kept["momentum_buffer"].double()


def keeping(kind: Any, **fixed: Any) -> Any:
    """Return a plugin that makes optimizers of a class."""

    def plugin(parameters: Any, lr: float, /) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer = kind(parameters, lr=lr, **fixed)
        return made

    return plugin


class OwnRate(torch.optim.SGD):
    """Steps by the rate that it was made with."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] = self.defaults["lr"]
        return inspect.unwrap(torch.optim.SGD.step)(self, closure)


class Narrow(torch.optim.SGD):
    """Rounds float32's gradients to seven bits."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.dtype == torch.float32:
                    parameter.grad = parameter.grad.bfloat16().float()
        return inspect.unwrap(torch.optim.SGD.step)(self, closure)


def half_of_them(parameters: Any, lr: float, /) -> torch.optim.Optimizer:
    """Leave out all biases."""
    kept = [parameter for group in parameters for parameter in group["params"] if parameter.ndim > 1]
    return torch.optim.SGD(kept, lr=lr)


def flattened(parameters: Any, lr: float, /) -> torch.optim.Optimizer:
    """Make one group of all."""
    return torch.optim.SGD([parameter for group in parameters for parameter in group["params"]], lr=lr)


class FirstRate(torch.optim.SGD):
    """Steps by the rate of the first group alone."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] = self.param_groups[0]["lr"]
        return inspect.unwrap(torch.optim.SGD.step)(self, closure)


@pytest.mark.parametrize(
    ("check", "plugin", "expected"),
    [
        ("parameters", half_of_them, "each once"), ("rates", keeping(OwnRate), "no parameter moved"),
        ("groups", flattened, "with its rate_factor"), ("groups", keeping(FirstRate), "0 and 4 that moved"),
        ("steps", keeping(torch.optim.LBFGS), "finite weights"), ("state", keeping(Casts, momentum=0.9), "to the bit"),
        ("precision", keeping(Narrow), "of float64's"), ("resume", keeping(Forgets, momentum=0.9), "in one go"),
    ],
)  # fmt: skip
def test_a_broken_optimizer_is_caught(check: str, plugin: Any, expected: str) -> None:
    assert expected in failure_of("optimizers", plugin, check).expected


def test_what_is_loaded_keeps_its_type() -> None:
    network = plain_net(3, (3, 8, 8), nn.BatchNorm2d)
    fault = short_form(lambda given: Casts(given, lr=0.001, momentum=0.9), network)
    assert fault == "keeps momentum_buffer of another type after it was loaded"


def test_the_short_form_finds_what_does_not_go_on() -> None:
    network = plain_net(3, (3, 8, 8), nn.BatchNorm2d)
    assert short_form(lambda given: torch.optim.AdamW(given, lr=0.001), network) == ""
    assert "to the bit" in short_form(lambda given: Forgets(given, lr=0.001, momentum=0.9), network)
    assert "can take no step here: TypeError" in short_form(lambda given: torch.optim.LBFGS(given), network)
