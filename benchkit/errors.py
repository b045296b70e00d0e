"""The errors that benchkit raises for its users.

BenchkitError              anything a user can cause or mend; printed without traceback, exit code 2
├── StudyError             a study file, an override or a factor is wrong
├── PluginError            a plugin is unknown, ambiguous, broken or was given wrong options
├── DataError              a data set cannot be found, read or trusted
├── LedgerError            the workspace or its storage cannot be used
├── TrainingError          a trial cannot be trained as asked
│   └── DivergedError      the loss became non-finite
└── ReportError            a report cannot be made
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class BenchkitError(Exception):
    """An error with what happened, where, what was got, what was expected, and what to do about it.

    `problems` holds one line for each thing that is wrong, so that all are reported at once.
    """

    exit_code = 2

    def __init__(self, what: str, *, problems: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.problems = tuple(problems)
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what, *(f"  - {problem}" for problem in self.problems)]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class StudyError(BenchkitError):
    """A study file, an override or a factor is wrong."""


class PluginError(BenchkitError):
    """A plugin is unknown, ambiguous, broken or was given wrong options."""


class DataError(BenchkitError):
    """A data set cannot be found, read or trusted."""


class LedgerError(BenchkitError):
    """The workspace or its storage cannot be used."""


class TrainingError(BenchkitError):
    """A trial cannot be trained as asked."""


class PinningRefusedError(TrainingError):
    """The system gives no memory from which a GPU copies by itself; after that, CUDA fails in this process."""


class DivergedError(TrainingError):
    """The loss became non-finite."""


class ReportError(BenchkitError):
    """A report cannot be made."""


def capped(lines: Sequence[str], most: int = 20) -> list[str]:
    """Return the first `most` lines, and one with the number of the others: nobody reads thousands."""
    rest = len(lines) - most
    return [*lines[:most], *([f"and {rest:,} more"] if rest > 0 else [])]


def listed(names: Sequence[str], most: int = 40) -> str:
    """Return names parted by commas; those beyond `most` are counted."""
    return ", ".join(capped(names, most))


def shortened(text: str, most: int = 200) -> str:
    """Return a text of at most about `most` characters: a longer one loses its end, and says how long it was."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {shortened(close[0])!r}?)" if close else ""
