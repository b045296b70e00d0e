"""Schedules against torch.optim.lr_scheduler, optimizers against torch.optim."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import tiny_study
import torch
from benchkit_schedules.cosine_restarts import CosineRestarts
from benchkit_schedules.one_cycle_momentum import OneCycleMomentum
from benchkit_schedules.polynomial import Linear, Polynomial
from benchkit_schedules.reduce_on_plateau import ReduceOnPlateau
from benchkit_schedules.warmup_cosine import WarmupCosine
from engine_runs import learnt, make_settings, make_splits, small_net
from kit_failures import failure_of
from tiny_study import RECORD
from torch import nn
from torch.optim import lr_scheduler

from benchkit import TrainingError
from benchkit.errors import StudyError
from benchkit.plan import Plan, make_plan
from benchkit.registry import Registry
from benchkit.study.checks import check_plan
from benchkit.study.seeds import trial_seeds
from benchkit.study.settings import OptimizerSettings, ScheduleSettings
from benchkit.train.fit import fit
from benchkit.train.optimizers import optimizer
from benchkit.train.run import Plugins, Run, build_run
from benchkit.train.schedules import schedule
from benchkit.train.step import set_momentum, train_step

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


def rates_of(plugin: Any, lr: float = 0.3) -> list[float]:
    course = plugin.start(lr, STEPS, EPOCHS)
    return [course(step) for step in range(TOTAL)]


def test_a_warm_up_begins_at_its_first_part() -> None:
    made = rates_of(WarmupCosine(warmup=1 / 7))
    assert made[:9] == pytest.approx([0.3 * (step + 1) / 9 for step in range(9)])
    falling = rates_of_torch(lambda sgd: lr_scheduler.CosineAnnealingLR(sgd, TOTAL - 9), 1)
    assert made[9:] == pytest.approx(falling[: TOTAL - 9], rel=1e-9)
    assert rates_of(WarmupCosine(warmup=0.0, end=1.0)) == pytest.approx([0.3] * TOTAL)


def test_linear_and_polynomial_equal_torch_s() -> None:
    for power in (0.5, 2.0):
        expected = rates_of_torch(lambda sgd, power=power: lr_scheduler.PolynomialLR(sgd, TOTAL, power), 1)
        assert rates_of(Polynomial(power=power)) == pytest.approx(expected, rel=1e-9)
    expected = rates_of_torch(lambda sgd: lr_scheduler.LinearLR(sgd, 1.0, 0.25, TOTAL), 1)
    assert rates_of(Linear(end=0.25)) == pytest.approx(expected, rel=1e-9)


def test_cosines_restart_at_the_whole_rate() -> None:
    def make(sgd: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.CosineAnnealingWarmRestarts(sgd, STEPS, 2)

    made = rates_of(CosineRestarts(first=1))
    assert made == pytest.approx(rates_of_torch(make, 1), rel=1e-9)
    assert [step for step, rate in enumerate(made) if rate == 0.3] == [0, 9, 27]


@pytest.mark.parametrize("warmup", [0.3, 0.5])
def test_one_cycle_moves_the_momentum_as_torch_does(warmup: float) -> None:
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3, momentum=0.9)
    scheduler = lr_scheduler.OneCycleLR(sgd, max_lr=0.3, total_steps=TOTAL, pct_start=warmup)
    course: Any = OneCycleMomentum(warmup=warmup).start(0.3, STEPS, EPOCHS)
    for step in range(TOTAL):
        group = sgd.param_groups[0]
        assert course(step) == pytest.approx(group["lr"]) and course.momentum(step) == pytest.approx(group["momentum"])
        sgd.step()
        if step + 1 < TOTAL:
            scheduler.step()


def run_by(schedule: Any, **train: Any) -> Run:
    plugins = Plugins(model=small_net, norm=nn.BatchNorm2d, schedule=schedule)
    return build_run(make_settings(**train), make_splits(), plugins, seeds=trial_seeds(5, "grid", 0), device="cpu")


def test_only_the_first_beta_moves() -> None:
    run = run_by(OneCycleMomentum(), optimizer={"name": "adamw", "lr": 0.01})
    batch = next(iter(run.train.epoch(run.randomness.order)))
    train_step(run, batch, 14)
    assert run.optimizer.param_groups[0]["betas"] == (pytest.approx(0.95), 0.999)
    train_step(run, batch, 3)
    assert run.optimizer.param_groups[0]["betas"][0] == pytest.approx(run.schedule.momentum(3))  # type: ignore[attr-defined]
    run = run_by(OneCycleMomentum())
    run.schedule = lambda step: 0.1  # type: ignore[assignment]
    before = [parameter.detach().clone() for parameter in run.parameters]
    set_momentum(run.optimizer, 0.5)
    train_step(run, batch, 0)
    assert run.optimizer.param_groups[0]["momentum"] == 0.5
    moved = [(was - now).norm().item() for was, now in zip(before, run.parameters, strict=True)]
    gradients = [0.1 * parameter.grad.norm().item() for parameter in run.parameters]  # type: ignore[union-attr]
    assert moved == pytest.approx(gradients, rel=1e-3, abs=1e-6)  # the first step has no momentum yet


def test_steps_of_a_moving_momentum_are_eager() -> None:
    run = run_by(OneCycleMomentum(), epochs=1, compile="always")
    assert [record.epoch for record in fit(run)] == [1]
    assert any("not used: its schedule changes the momentum from step to step" in note for note in run.notes)


def observed(plugin: Any, scores: list[float], metric: str = "val_loss") -> list[float]:
    course, rates = plugin.start(1.0, STEPS, len(scores)), []
    for epoch, score in enumerate(scores):
        rates.append(course(epoch * STEPS))
        course.observe(replace(RECORD, epoch=epoch + 1, **{metric: score}))
    return [*rates, course(len(scores) * STEPS)]


def test_a_plateau_reduces_after_more_bad_epochs_than_its_patience() -> None:
    assert observed(ReduceOnPlateau(patience=2), [1.0] * 4) == pytest.approx([1, 1, 1, 1, 0.1])
    generator = random.Random(3)
    scores = [generator.random() / (1 + epoch / 20) for epoch in range(60)]
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = lr_scheduler.ReduceLROnPlateau(
        sgd, factor=0.5, patience=2, threshold=0.01, threshold_mode="abs", cooldown=3
    )
    expected = [1.0]
    for score in scores:
        torchs.step(score)
        expected.append(sgd.param_groups[0]["lr"])
    made = observed(ReduceOnPlateau(factor=0.5, patience=2, threshold=0.01, cooldown=3), scores)
    assert made == pytest.approx(expected) and len(set(made)) > 3


def test_a_plateau_follows_the_metric_s_direction() -> None:
    plugin = ReduceOnPlateau(patience=0, metric="val.accuracy")
    assert observed(plugin, [0.1, 0.2, 0.3], "val_accuracy")[-1] == 1.0
    assert observed(plugin, [0.3, 0.2], "val_accuracy")[-1] == pytest.approx(0.1)


def test_a_plateau_goes_on_after_a_break() -> None:
    """Broken off after the first of two bad epochs: the same epoch reduces."""
    plugin, settings = ReduceOnPlateau(patience=1, threshold=10.0), {"epochs": 6}
    whole = run_by(plugin, **settings)
    expected = [learnt(record) for record in fit(whole)]
    assert [round(record.learning_rate, 6) for record in whole.history] == [0.05, 0.05, 0.05, 0.005, 0.005, 0.0005]
    first, second = run_by(plugin, **settings), run_by(plugin, **settings)
    for record in fit(first):
        if record.epoch == 2:
            break
    second.restore(first.state())
    assert expected[2:] == [learnt(record) for record in fit(second)]


def test_the_rate_recorded_is_the_one_used() -> None:
    run = run_by(ReduceOnPlateau(patience=0, threshold=10.0), epochs=4)
    for record in fit(run):
        assert record.learning_rate == run.optimizer.param_groups[0]["lr"]


def test_a_schedule_is_a_plugin_or_one_of_the_four() -> None:
    def plan(text: str, *parts: str) -> Plan:
        return make_plan(tiny_study.study_of(f"[train.schedule]\n{text}\n", *parts))

    usual = make_plan(tiny_study.study_of()).conditions[0].key
    assert plan('name = "constant"').conditions[0].key == usual
    linear = plan('name = "linear"\nend = 0.5')
    assert linear.settings_of(linear.conditions[0]).train.schedule == ScheduleSettings(
        name="linear", options={"end": 0.5}
    )
    check_plan(linear, Registry.installed())
    for text, told in (
        ('name = "cosin"', "train.schedule: there is no schedule 'cosin' (did you mean 'cosine'?)"),
        ('name = "linear"\nedn = 1', "train.schedule.edn is not an option (did you mean 'end'?)"),
    ):
        with pytest.raises(StudyError) as caught:
            check_plan(plan(text), Registry.installed())
        assert told in "\n".join(caught.value.problems)
    with pytest.raises(StudyError, match="unknown key"):
        plan('name = "cosine"\noptions = { end = 1 }')
    searched = '[search]\ntrials = 2\nspace."train.schedule.name" = ["constant", "liner"]\n'
    with pytest.raises(StudyError) as caught:
        check_plan(make_plan(tiny_study.study_of(searched)), Registry.installed())
    assert "did you mean 'linear'?" in str(caught.value)


def test_a_schedule_trains_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = '[factors]\n"train.schedule" = ["reduce-on-plateau", { name = "one-cycle-momentum", warmup = 0.5 }]\n'
    study = tiny_study.study_of(levels, repeats=1)
    assert tiny_study.sweep_here(monkeypatch, tmp_path, study) == {"done": 2}


@dataclass(frozen=True)
class Counting:
    """The rate counts its calls."""

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Any:
        calls: list[int] = []

        def rate(step: int) -> float:
            calls.append(step)
            return lr / len(calls)

        return rate


@dataclass(frozen=True)
class ByEpoch:
    """Takes a step for an epoch."""

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Any:
        return lambda step: lr * 0.99**step


@dataclass(frozen=True)
class DividesByZero:
    """A cycle over all steps but one."""

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Any:
        return lambda step: lr * (1 - step / (steps_per_epoch * epochs - 1))


@dataclass(frozen=True)
class TooMuchMomentum:
    """A momentum of 1."""

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Any:
        class Course:
            def __call__(self, step: int) -> float:
                return lr

            def momentum(self, step: int) -> float:
                return 1.0

        return Course()


@dataclass(frozen=True)
class Forgetful:
    """Counts epochs in the plugin, not in the course."""

    seen: Any = field(default_factory=list)

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Any:
        seen = self.seen

        class Course:
            def __call__(self, step: int) -> float:
                return lr / (1 + len(seen))

            def observe(self, record: Any) -> None:
                seen.append(record.epoch)

        return Course()


SHARED: list[int] = []


@dataclass(frozen=True)
class Shared:
    """Counts epochs for the whole process."""

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Any:
        return Forgetful(seen=SHARED).start(lr, steps_per_epoch, epochs)


@pytest.mark.parametrize(
    ("check", "plugin", "expected"),
    [
        ("rates", DividesByZero, "no error"), ("pure", Counting, "the same rates"), ("steps", ByEpoch, "a tenth of lr"),
        ("momentum", TooMuchMomentum, "a momentum in 0..1"), ("history", Shared, "the same rates"),
        ("resume", Shared, "four epochs in one go"), ("trains", Shared, "equal weights"),
    ],
)  # fmt: skip
def test_a_broken_schedule_is_caught(check: str, plugin: Any, expected: str) -> None:
    SHARED.clear()
    assert expected in failure_of("schedules", plugin, check).expected
