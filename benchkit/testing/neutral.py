"""The setting of a regularizer that switches it off: the one by which a study has its baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from benchkit.errors import BenchkitError
from benchkit.registry.options import Option
from benchkit.testing.check import RAISED, CheckFailure, NotApplicable, attempt
from benchkit.testing.subject import Subject

STRENGTHS = ("strength", "rate", "alpha", "smoothing", "probability", "amount", "sigma", "std", "weight", "scale")
"""Names of options whose 0 must switch a regularizer off."""

HUGE = 1_000_000_000


def require_neutral(subject: Subject, difference: Callable[[Any], str]) -> None:
    """Fail unless some setting makes no difference; `difference` tells how training with an instance differs.

    An option whose name means a strength must do so at 0. Without one, other values are tried: everything 0 or false,
    then each number alone at 0, at a billion and at 1, or at the ends of its card's range, if it has one. Raises
    `NotApplicable` when there is no number and no bool.
    """
    tried: list[str] = []
    got = ""
    for given, options in dict(_settings(subject)).items():
        try:
            made = subject.plugin(**{**subject.options, **options})
        except (BenchkitError, ValueError):
            continue
        with attempt(f"training with {given}", likely=RAISED):
            got = difference(made)
        if not got:
            return
        if given in {f"{name} = 0" for name in STRENGTHS}:
            raise CheckFailure(given=given, expected="training without it, bit for bit", got=got)
        tried.append(given)
    if not list(_settings(subject)):
        raise NotApplicable("it has no option by which it could be switched off; a study leaves it out instead")
    raise CheckFailure(
        given=" or ".join(tried) or "0 for its options",
        expected="a setting that trains as without it, bit for bit",
        got=got or "no such setting is accepted",
        likely="an option such as strength is missing, or the constructor refuses 0",
    )


def _settings(subject: Subject) -> Iterator[tuple[str, dict[str, Any]]]:
    numbers = [option for option in subject.known_options if option.type in ("int", "float")]
    flags = [option for option in subject.known_options if option.type == "bool"]
    strengths = sorted(
        (option for option in numbers if option.name in STRENGTHS), key=lambda option: STRENGTHS.index(option.name)
    )
    for option in strengths:
        yield f"{option.name} = 0", {option.name: _number(option, 0)}
    if numbers or flags:
        nothing = {option.name: _number(option, _values(option)[0]) for option in numbers}
        nothing |= {option.name: False for option in flags}
        yield ", ".join(f"{name} = {value}" for name, value in nothing.items()), nothing
    for option in numbers:
        for value in _values(option):
            yield f"{option.name} = {value:,}", {option.name: _number(option, value)}


def _values(option: Option) -> list[float]:
    """Return the values to try of a number: 0, a huge one and 1, those outside its range replaced by the range's ends.

    A study can give no others; an algorithm may take as many steps as an option says.
    """
    if option.low is None or option.high is None:
        return [0, HUGE, 1]
    low = 0 if option.log else option.low  # 0 is off, which a logarithmic range cannot hold
    inside = [min(max(value, low), option.high) for value in (0, HUGE, 1)]
    return list(dict.fromkeys(int(value) if value == int(value) else value for value in inside))


def _number(option: Option, value: float) -> int | float:
    return int(value) if option.type == "int" else float(value)
