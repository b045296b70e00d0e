"""The optimizers' updates in plain operations, against PyTorch's own optimizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from benchkit.train.steps.functional_optimizers import SETTINGS, FunctionalOptimizer

STEPS = 4

# Settings are read as float32, which holds these exactly.
CASES: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "plain sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.875}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.75, "nesterov": True, "weight_decay": 0.125}),
    "uphill": (torch.optim.SGD, {"momentum": 0.875, "maximize": True}),
    "adam": (torch.optim.Adam, {"betas": (0.8, 0.99), "eps": 1e-3}),
    "decayed adam": (torch.optim.Adam, {"weight_decay": 0.125, "maximize": True}),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True, "betas": (0.1, 0.2)}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.25}),
}


def parameters() -> list[nn.Parameter]:
    """Return three parameters, of which the last never gets a gradient."""
    torch.manual_seed(3)
    return [nn.Parameter(torch.randn(*shape, dtype=torch.float64)) for shape in ((4, 3), (5,), (2,))]


def give_gradients(given: list[nn.Parameter], step: int) -> None:
    torch.manual_seed(10 + step)
    for parameter in given[:2]:
        parameter.grad = torch.randn_like(parameter) * (3.0 if step == 1 else 0.1)


@pytest.mark.parametrize(("kind", "options"), CASES.values(), ids=CASES.keys())
def test_functional_updates_are_pytorchs(kind: type[torch.optim.Optimizer], options: dict[str, Any]) -> None:
    reference, ours = parameters(), parameters()
    optimizers = []
    for given in (reference, ours):
        groups = [{"params": given[:1], "lr": 0.25}, {"params": given[1:], "lr": 0.125}]
        optimizers.append(kind(groups, **options))  # type: ignore[arg-type]
        give_gradients(given, 0)
        optimizers[-1].step()
    functional = FunctionalOptimizer(optimizers[1])
    for step in range(1, STEPS):
        give_gradients(reference, step)
        optimizers[0].step()
        give_gradients(ours, step)
        functional.step()
    # Adam's corrections for its first steps are rounded to float32, of which weights near 1 lose the same.
    rounding = 1e-12 if kind is torch.optim.SGD else 1e-7
    for expected, found in zip(reference, ours, strict=True):
        torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding)
    for expected, found in zip(reference[:2], ours[:2], strict=True):
        kept, moved = optimizers[0].state[expected], optimizers[1].state[found]
        assert kept.keys() == moved.keys()
        for name, moment in kept.items():
            if isinstance(moment, torch.Tensor):
                torch.testing.assert_close(moved[name], moment, rtol=rounding, atol=rounding)


def test_settings_are_read_from_tensors_at_each_step() -> None:
    (weight,) = given = [nn.Parameter(torch.ones(2))]
    rate = torch.tensor(0.5)
    functional = FunctionalOptimizer(torch.optim.SGD(given, lr=rate, weight_decay=0.25))
    assert functional.settings[0]["lr"] is rate and set(functional.settings[0]) == set(SETTINGS)
    for expected in (1 - 0.5 * (1 + 0.25 * 1), None):
        weight.grad = torch.ones(2)
        if expected is None:
            rate.fill_(0.25)
            functional.settings[0]["weight_decay"].fill_(0.0)
            expected = weight[0].item() - 0.25
        functional.step()
        assert weight.tolist() == [expected, expected]
