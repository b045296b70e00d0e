"""One thing that the doctor looked at: how it stands, and what to do about it; and what other processes tell of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchkit.analysis.wording import prefix
from benchkit.child import run_python

State = Literal["good", "note", "bad"]
"""good: nothing to do; note: benchkit works, and could do better; bad: something of benchkit does not work here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was looked at, its state, what was found, what to do about it if anything, and plain `numbers` of it.

    Rates are in operations or bytes per second, sizes in bytes, times in seconds.
    """

    name: str
    state: State = "good"
    value: str
    advice: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


def scaled(value: float, unit: str) -> str:
    """Return a number of at least a thousandth with a decimal prefix: 1.2e12 of FLOP/s is `1.2 TFLOP/s`."""
    factor, letter = prefix(value)
    return f"{value / factor:.3g} {letter}{unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The JSON lines that a child process printed before it ended, by name, and why it ended early if it did."""

    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def ask(arguments: Sequence[str], seconds: float) -> Answer:
    """Return what `python ARGUMENTS` prints, one JSON object a line, within `seconds`."""
    ended = run_python(arguments, seconds)
    whole = [line for line in ended.out.splitlines() if line.startswith("{") and line.endswith("}")]
    values = {key: value for line in whole for key, value in json.loads(line).items()}
    return Answer(values=values, problem=ended.problem)
