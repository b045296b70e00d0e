"""Schedules against torch.optim.lr_scheduler, optimizers against torch.optim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from benchkit import TrainingError
from benchkit.study.settings import OptimizerSettings, ScheduleSettings
from benchkit.train.optimizers import optimizer
from benchkit.train.schedules import schedule

EPOCHS, STEPS = 7, 9
TOTAL = EPOCHS * STEPS


def rates_of_torch(make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], every: int) -> list[float]:
    """Return the learning rate of every step of torch's scheduler, advanced after `every` steps."""
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = make(sgd)
    rates = []
    for step in range(TOTAL):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        if (step + 1) % every == 0 and step + 1 < TOTAL:
            scheduler.step()
    return rates


def ours(**settings: Any) -> list[float]:
    follow = schedule(ScheduleSettings(**settings), lr=0.3, steps_per_epoch=STEPS, epochs=EPOCHS)
    return [follow(step) for step in range(TOTAL)]


def test_constant() -> None:
    assert ours() == [0.3] * TOTAL


def test_step_equals_torch_s_step_lr() -> None:
    expected = rates_of_torch(lambda sgd: lr_scheduler.StepLR(sgd, 2, 0.2), STEPS)
    assert ours(name="step", every=2, gamma=0.2) == pytest.approx(expected, rel=1e-12)


def test_cosine_equals_torch_s_cosine_annealing() -> None:
    expected = rates_of_torch(lambda sgd: lr_scheduler.CosineAnnealingLR(sgd, TOTAL), 1)
    assert ours(name="cosine") == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_one_cycle_equals_torch_s(warmup: float) -> None:
    def make(sgd: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.OneCycleLR(sgd, max_lr=0.06, total_steps=TOTAL, pct_start=warmup, cycle_momentum=False)

    made = ours(name="one-cycle", max_lr=0.06, warmup=warmup)
    assert made == pytest.approx(rates_of_torch(make, 1), rel=1e-9)
    assert made[-1] == pytest.approx(0.06 / 250000 if warmup < 1 else 0.06)


def test_one_cycle_without_a_peak_takes_the_optimizer_s_rate() -> None:
    assert max(ours(name="one-cycle", warmup=1 / 3)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        (OptimizerSettings(lr=0.1, momentum=0.8), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8)),
        (OptimizerSettings(lr=0.1, nesterov=True), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)),
        (OptimizerSettings(name="adam", lr=0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
        (
            OptimizerSettings(name="adamw", lr=0.01, betas=(0.8, 0.9)),
            lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.9), weight_decay=0.0),
        ),
    ],
    ids=["sgd", "nesterov", "adam", "adamw"],
)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_optimizers_equal_torch_s(settings: OptimizerSettings, reference: Any, decay: float) -> None:
    starts = [torch.linspace(-1, 1, 12).reshape(3, 4), torch.linspace(2, 3, 5)]
    left = [nn.Parameter(start.clone()) for start in starts]
    right = [nn.Parameter(start.clone()) for start in starts]
    extra = {"weight_decay": decay} if decay else {}
    pair = optimizer(settings, left, extra), reference(right)
    pair[1].param_groups[0]["weight_decay"] = decay
    for _ in range(5):
        for parameters, stepper in ((left, pair[0]), (right, pair[1])):
            stepper.zero_grad()
            sum((parameter**3).sum() for parameter in parameters).backward()  # type: ignore[union-attr]
            stepper.step()
    for ours_, torchs in zip(left, right, strict=True):
        torch.testing.assert_close(ours_, torchs, rtol=1e-5, atol=1e-6)


def test_options_that_an_optimizer_does_not_have_are_named() -> None:
    weights = [nn.Parameter(torch.zeros(1))]
    with pytest.raises(TrainingError, match="unexpected keyword argument 'wd'"):
        optimizer(OptimizerSettings(), weights, {"wd": 0.1})
    with pytest.raises(TrainingError, match="Invalid learning rate"):
        optimizer(OptimizerSettings(lr=-1.0), weights, {})
