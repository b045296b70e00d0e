"""Other Python processes for whatever may crash or hang: a driver, an instruction, a library."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The JSON lines that a child process printed before it ended, by name, and why it ended early if it did."""

    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def ask(arguments: Sequence[str], seconds: float, *, python: str = sys.executable) -> Told:
    """Return what `python ARGUMENTS` prints, one JSON object a line, within `seconds`."""
    try:
        child = subprocess.run([python, *arguments], capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as late:
        out = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        return Told(values=_values(out), problem=f"no answer within {seconds:g} s")
    except OSError as error:
        return Told(problem=str(error))
    return Told(values=_values(child.stdout), problem=_problem(child) if child.returncode else "")


def _values(out: str) -> dict[str, Any]:
    whole = [line for line in out.splitlines() if line.startswith("{") and line.endswith("}")]
    return {key: value for line in whole for key, value in json.loads(line).items()}


def _problem(child: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of a traceback, or the exit status when the process left no word."""
    lines = child.stderr.strip().splitlines()
    if child.returncode < 0:
        return f"the process was ended by signal {-child.returncode}"
    return lines[-1] if lines else f"the process ended with status {child.returncode}"
