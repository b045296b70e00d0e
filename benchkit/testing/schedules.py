"""Checks of schedules: finite rates by a pure function of the step, momentum, history, training, search range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchkit.results import EpochRecord
from benchkit.testing.check import RAISED, NotApplicable, attempt, require, rule
from benchkit.testing.specimens import run_of, settings, trained
from benchkit.testing.subject import Subject
from benchkit.testing.trained_rules import hold_to_seed, instance_of, require_frozen, trained_rules
from benchkit.train.run import Run

LENGTHS = ((1, 1), (1, 5), (9, 1), (9, 7), (50, 30))
"""Steps of an epoch, and epochs."""


@rule("rates", likely="a division by the number of warm-up steps, or by all steps but one")
def rates(subject: Subject) -> None:
    """It is a frozen dataclass whose course gives a finite rate of at least 0 for every step, and one above 0."""
    require_frozen(subject)
    for steps, epochs in LENGTHS:
        given = f"lr 0.1, {steps} steps an epoch, {epochs} epochs"
        with attempt(given, likely=RAISED):
            course = instance_of(subject).start(0.1, steps, epochs)
            found = [course(step) for step in range(steps * epochs)]
        _are_rates(found, given)


@rule("pure", likely="it counts its calls: the rate is a function of the step that it is given")
def pure(subject: Subject) -> None:
    """Steps in another order, or asked for twice, have the same rates."""
    first, second = (instance_of(subject).start(0.1, 9, 7) for _ in range(2))
    forward = [first(step) for step in range(63)]
    backward = [second(step) for step in reversed(range(63)) for _ in range(2)][::-2]
    _are_rates(forward, "63 steps")
    require(forward == backward, given="63 steps, then backwards and twice each", expected="the same rates",
            got=_first_apart(forward, backward))  # fmt: skip


@rule("steps", likely="epochs and steps are mixed up: steps count optimizer steps over the whole of training")
def steps(subject: Subject) -> None:
    """Epochs of twice as many steps have about the same rates at the same share of training."""
    coarse, fine = instance_of(subject).start(0.1, 50, 8), instance_of(subject).start(0.1, 100, 8)
    _are_rates([coarse(step) for step in range(400)], "8 epochs of 50 steps")
    _are_rates([fine(step) for step in range(800)], "8 epochs of 100 steps")
    apart = max(abs(coarse(step) - fine(2 * step)) for step in range(400))
    given = "8 epochs of 50 and of 100 steps"
    require(apart <= 0.01, given=given, expected="rates that differ by no more than a tenth of lr", got=f"{apart:g}")


@rule("momentum", likely="momentum leaves 0..1, or counts its calls")
def momentum(subject: Subject) -> None:
    """Where there is a momentum it is from 0 up to, not including 1, in every step."""
    course = instance_of(subject).start(0.1, 9, 7)
    if not hasattr(course, "momentum"):
        raise NotApplicable("it leaves the momentum alone")
    for step in range(63):
        value = course.momentum(step)
        right = isinstance(value, float) and 0 <= value < 1
        require(right, given=f"step {step} of 63", expected="a momentum in 0..1", got=repr(value))


@rule("history", likely="state is kept beside what was observed, or the records are changed")
def history(subject: Subject) -> None:
    """A new course that is shown the same epochs has the same rates."""
    records = _records()
    first, second = (instance_of(subject).start(0.1, 9, 7) for _ in range(2))
    if not hasattr(first, "observe"):
        raise NotApplicable("it does not depend on the epochs so far")
    asked: list[float] = []
    for epoch, record in enumerate(records):
        asked += [first(step) for step in range(9 * epoch, 9 * epoch + 9)]
        first.observe(record)
    for record in records[:-1]:
        second.observe(record)
    again = [second(step) for step in range(9 * len(records) - 9, 9 * len(records))]
    require(again == asked[-9:], given="a new course that was shown the history", expected="the same rates",
            got=_first_apart(asked[-9:], again))  # fmt: skip


@rule("trains", likely="rates are drawn at random")
def trains(subject: Subject) -> None:
    """A small network trains by it, and two runs under one seed are equal bit for bit."""
    hold_to_seed(lambda: _run(subject, instance_of(subject), 3))


def _are_rates(found: Sequence[Any], given: str) -> None:
    wrong = [(step, rate) for step, rate in enumerate(found) if not _is_rate(rate)]
    got = f"{wrong[0][1]!r} in step {wrong[0][0]}" if wrong else "0 in every step"
    likely = "" if all(isinstance(rate, float) for rate in found) else "the course has no `return`, or returns no float"
    right = not wrong and max(found) > 0
    require(right, given=given, expected="finite numbers from 0 up, not all 0", got=got, likely=likely)


def _is_rate(rate: Any) -> bool:
    return isinstance(rate, float) and math.isfinite(rate) and rate >= 0


def _first_apart(expected: Sequence[float], found: Sequence[float]) -> str:
    pairs = enumerate(zip(expected, found, strict=True))
    return next(
        (f"{other:g} instead of {one:g} at place {at}" for at, (one, other) in pairs if one != other), "the same"
    )


def _records() -> list[EpochRecord]:
    """Return epochs that get better, then worse."""
    history = trained(run_of(settings(0))).history
    losses = (1.0, 0.9, *[0.9 + 0.01 * epoch for epoch in range(12)])
    return [
        replace(history[0], epoch=epoch, val_loss=loss, val_accuracy=1 - loss / 2)
        for epoch, loss in enumerate(losses, 1)
    ]


def _run(subject: Subject, made: Any, epochs: int) -> Run:
    return run_of(settings(subject.seed_for("run"), epochs=epochs), schedule=made)


TRAINED = trained_rules(_run, forgets="what it has observed is kept beside the history, or counted twice")
RULES = (rates, pure, steps, momentum, history, trains, *TRAINED)
