"""What other Python processes tell, for whatever may crash or hang: a driver, an instruction, a library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchkit.child import run_python


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The JSON lines that a child process printed before it ended, by name, and why it ended early if it did."""

    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def ask(arguments: Sequence[str], seconds: float) -> Told:
    """Return what `python ARGUMENTS` prints, one JSON object a line, within `seconds`."""
    ended = run_python(arguments, seconds)
    whole = [line for line in ended.out.splitlines() if line.startswith("{") and line.endswith("}")]
    values = {key: value for line in whole for key, value in json.loads(line).items()}
    return Told(values=values, problem=ended.problem)
