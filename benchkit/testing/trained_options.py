"""Options tried by training: both ends of every range, every choice, and both values of a bool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchkit.errors import BenchkitError
from benchkit.registry.options import Option, bind_options
from benchkit.testing.check import attempt, require
from benchkit.testing.specimens import losses
from benchkit.testing.subject import Subject
from benchkit.testing.tensors import require_finite
from benchkit.train.run import Run

Train = Callable[[Any], Run]
"""A run of one epoch with an instance of the plugin."""


def instance_of(subject: Subject) -> Any:
    """Return an instance of the plugin, with the options that were given to the kit."""
    with attempt(f"the options {dict(subject.given) or 'by default'}"):
        return subject.plugin(**subject.options)


def hold_to_ranges(subject: Subject, train: Train) -> None:
    """Require a range of an option, where there are numbers, and that both ends of every range can be trained with."""
    numeric = [option for option in subject.known_options if option.type in ("int", "float")]
    ranged = [option for option in numeric if option.low is not None and option.high is not None]
    got = f"none for {', '.join(option.name for option in numeric)}"
    likely = "give the card ranges={'NAME': Range(low=..., high=...)}"
    require(ranged or not numeric, given="the card", expected="the range of an option", got=got, likely=likely)
    for end in ("low", "high"):
        together = {option.name: _end(option, end) for option in ranged}
        for option in ranged:
            given = f"{option.name} = {together[option.name]}, an end of its range"
            _trained(train, _at(subject, {option.name: together[option.name]}, together, given), given)


def hold_to_choices(subject: Subject, train: Train) -> None:
    """Require that every choice of an option, and both values of a bool, can be trained with."""
    for option in subject.known_options:
        for value in option.choices or ((False, True) if option.type == "bool" else ()):
            given = f"{option.name} = {value!r}"
            with attempt(given, expected="a run of one epoch"):
                made = subject.plugin(**bind_options(subject.known_options, {**subject.given, option.name: value}))
            _trained(train, made, given)


def _trained(train: Train, made: Any, given: str) -> None:
    with attempt(given, expected="a run of one epoch"):
        run = train(made)
    require_finite(torch.tensor(list(losses(run.history))), given=given, what="losses")


def _end(option: Option, end: str) -> int | float:
    value: float = getattr(option, end)
    return int(value) if option.type == "int" else value


def _at(subject: Subject, alone: dict[str, Any], together: dict[str, Any], given: str) -> Any:
    """Return an instance at an end of one range, or of all ranges where options bound one another."""
    try:
        return subject.plugin(**{**subject.options, **alone})
    except (BenchkitError, ValueError):
        with attempt(given, expected="an instance, at least when other options are at that end too"):
            return subject.plugin(**{**subject.options, **together})
