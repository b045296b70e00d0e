"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state.

What a plugin's schedule makes of the epochs so far follows from the history, which a resumed run shows it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from benchkit.study.settings import ScheduleSettings

Schedule = Callable[[int], float]
"""The learning rate of a step; steps count from 0 over the whole of training."""

INITIAL = 1 / 25
"""Share of the largest learning rate at which one-cycle starts."""
FINAL = 1e-4
"""Share of the initial learning rate at which one-cycle ends."""


def schedule(
    settings: ScheduleSettings, *, lr: float, steps_per_epoch: int, epochs: int, plugin: Any = None
) -> Schedule:
    """Return the schedule that `settings` name, or the course of a plugin's, for an optimizer of the rate `lr`.

    Its names and numbers were checked where the study was read (`study.settings`).
    """
    total = steps_per_epoch * epochs
    peak = settings.max_lr or lr
    if plugin is not None:
        course: Schedule = plugin.start(lr, steps_per_epoch, epochs)
        return course
    makers: dict[str, Callable[[], Schedule]] = {
        "constant": lambda: constant(lr),
        "step": lambda: stepwise(lr, gamma=settings.gamma, every=settings.every * steps_per_epoch),
        "cosine": lambda: cosine(lr, total=total),
        "one-cycle": lambda: one_cycle(peak, total=total, warmup=settings.warmup),
    }
    return makers[settings.name]()


def constant(lr: float) -> Schedule:
    """Return a learning rate that stays `lr`."""
    return lambda step: lr


def stepwise(lr: float, *, gamma: float, every: int) -> Schedule:
    """Return lr * gamma^floor(step / every): a fall by `gamma` after every `every` steps."""
    return lambda step: lr * gamma ** (step // every)


def cosine(lr: float, *, total: int) -> Schedule:
    """Return lr * (1 + cos(pi * step / total)) / 2 (Loshchilov and Hutter, SGDR, ICLR 2017, without restarts)."""
    return lambda step: lr * (1 + math.cos(math.pi * step / total)) / 2


def one_cycle(peak: float, *, total: int, warmup: float) -> Schedule:
    """Return the one-cycle rate: peak/25 up to `peak` over the first `warmup` share, then down to peak/250000.

    Both ways follow a cosine; the momentum stays (Smith and Topin, Super-Convergence, 2017).
    """
    top, end = warmup * total - 1, total - 1
    low, last = peak * INITIAL, peak * INITIAL * FINAL

    def rate(step: int) -> float:
        if step <= top:
            return _between(low, peak, step / top if top > 0 else 1.0)
        return _between(peak, last, (step - top) / (end - top))

    return rate


def _between(start: float, end: float, share: float) -> float:
    """Return the value `share` of the way along half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
