"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state.

Benchkit's own schedules are plugins as others are, that studies know the options of by heart. What one makes of the
epochs so far follows from the history, which a resumed run shows it again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from benchkit.errors import PluginError, TrainingError, first_line, shortened, where_raised
from benchkit.metrics import as_float
from benchkit.protocols import Course, Range, card
from benchkit.study.settings import ScheduleSettings

INITIAL = 1 / 25
"""Share of the largest learning rate at which one-cycle starts."""
FINAL = 1e-4
"""Share of the initial learning rate at which one-cycle ends."""


TRIED = 200
"""Steps, evenly spread over the training, in which a plugin's course is asked for its rate beforehand."""
ROUNDING = 1e-9
"""By how much a rate may be below 0, relative to the optimizer's own: a cosine's last one may be so."""


@card(title="Constant", summary="The learning rate stays as it is.")
@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """The rate lr in every step."""

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Course:
        """Return the rate by step."""
        return lambda step: lr


@card(
    title="Steps",
    summary="The learning rate falls by a factor after every so many epochs.",
    ranges={"every": Range(low=1, high=100), "gamma": Range(low=0.01, high=1.0, log=True)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Stepwise:
    """lr * gamma^floor(step / (`every` epochs of steps)): a fall by `gamma` after every `every` epochs."""

    every: int = 30
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 <= self.gamma < math.inf:
            raise PluginError(f"step: every = {self.every} and gamma = {self.gamma}: expected 1 and 0 at least")

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Course:
        """Return the rate by step."""
        return lambda step: lr * self.gamma ** (step // (self.every * steps_per_epoch))


@card(
    title="Cosine",
    summary="The learning rate falls along half a cosine to 0, step by step.",
    reference="I. Loshchilov and F. Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017",
    url="https://arxiv.org/abs/1608.03983",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine:
    """lr * (1 + cos(pi * step / total)) / 2, without restarts."""

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Course:
        """Return the rate by step."""
        total = steps_per_epoch * epochs
        return lambda step: lr * (1 + math.cos(math.pi * step / total)) / 2


@card(
    title="One cycle",
    summary="The learning rate rises and falls once over training, along cosines; the momentum stays.",
    reference="L. N. Smith and N. Topin, Super-Convergence: Very Fast Training of Neural Networks Using Large Learning "
    "Rates, 2017",
    url="https://arxiv.org/abs/1708.07120",
    ranges={"max_lr": Range(low=0.0, high=1.0), "warmup": Range(low=0.0, high=0.9)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class OneCycle:
    """From `max_lr` / 25 up to it over the first `warmup` share, then down to `max_lr` / 250000, both along a cosine.

    A `max_lr` of 0 is the optimizer's own rate.
    """

    max_lr: float = 0.0
    warmup: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.max_lr < math.inf or not 0 <= self.warmup <= 1:
            raise PluginError(
                f"one-cycle: max_lr = {self.max_lr} and warmup = {self.warmup}: expected 0 at least, and 0 to 1"
            )

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Course:
        """Return the rate by step."""
        peak, total = self.max_lr or lr, steps_per_epoch * epochs
        top, end = self.warmup * total - 1, total - 1
        low, last = peak * INITIAL, peak * INITIAL * FINAL

        def rate(step: int) -> float:
            if step <= top:
                return _between(low, peak, step / top if top > 0 else 1.0)
            return _between(peak, last, (step - top) / (end - top))

        return rate


def _between(start: float, end: float, share: float) -> float:
    """Return the value `share` of the way along half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def schedule(settings: ScheduleSettings, *, lr: float, steps_per_epoch: int, epochs: int, plugin: Any = None) -> Course:
    """Return the course of the schedule that `settings` name, or of a plugin's, for an optimizer of the rate `lr`.

    Its names and numbers were checked where the study was read (`study.settings`).
    """
    own: dict[str, Any] = {
        "constant": Constant(),
        "step": Stepwise(every=settings.every, gamma=settings.gamma),
        "cosine": Cosine(),
        "one-cycle": OneCycle(max_lr=settings.max_lr, warmup=settings.warmup),
    }
    course: Course = (plugin or own[settings.name]).start(lr, steps_per_epoch, epochs)
    if plugin is not None:
        check_course(course, settings.name, lr, steps_per_epoch, steps_per_epoch * epochs)
    return course


def check_course(course: Any, name: str, lr: float, steps_per_epoch: int, total: int) -> None:
    """Raise `TrainingError` where a plugin's course gives no rate in some of the steps to come, `TRIED` at the most.

    What it gives after the first epoch is not asked where it is to see the epochs before.
    """
    last = (steps_per_epoch if hasattr(course, "observe") else total) - 1
    if not callable(course):
        raise TrainingError(
            f"the schedule {name!r}: start returns a {type(course).__name__}, expected a function of the step",
            hint=_hint(name),
        )
    for step in sorted({round(last * part / (TRIED - 1)) for part in range(TRIED)}):
        check_rate(course, name, lr, step, total)


def check_rate(course: Course, name: str, lr: float, step: int, total: int) -> None:
    """Raise `TrainingError` where a plugin's course gives no rate in a step; `lr` is the optimizer's own."""
    where = f"the schedule {name!r} in step {step + 1} of {total}"
    try:
        rate = course(step)
    except Exception as error:
        told = f"{type(error).__name__}: {first_line(error)}{where_raised(error, plugins_only=True)}"
        raise TrainingError(f"{where}: {told}", hint=_hint(name)) from error
    number = as_float(rate)
    if number is None or not -ROUNDING * abs(lr) <= number < math.inf:
        raise TrainingError(
            f"{where} gives {shortened(repr(rate))}: expected a finite rate, 0 at least", hint=_hint(name)
        )


def _hint(name: str) -> str:
    return f"mend the plugin; `benchkit plugins check {name}` tries it"
