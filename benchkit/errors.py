"""The errors that benchkit raises for its users.

BenchkitError              anything a user can cause or mend; printed without traceback, exit code 2
├── StudyError             a study file, an override or a factor is wrong
├── PluginError            a plugin is unknown, ambiguous, broken or was given wrong options
├── DataError              a data set cannot be found, read or trusted
│   └── UnfitDataError     it is here, and is not what its contract or the study asks for
├── LedgerError            the workspace or its storage cannot be used
├── TrainingError          a trial cannot be trained as asked
│   └── DivergedError      the loss became non-finite
└── ReportError            a report cannot be made
"""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path


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


class UnfitDataError(DataError):
    """A data set is here, and is not what its contract or the study asks for; none that is still to be fetched."""


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


def listed(names: Sequence[str], most: int = 40) -> str:
    """Return names parted by commas; beyond `most` the rest is counted, since nobody reads thousands."""
    return ", ".join(first_of(names, most))


def first_of(lines: Sequence[str], limit: int = 20) -> list[str]:
    """Return the first `limit` lines, and one with the number of the others."""
    more = len(lines) - limit
    return [*lines[:limit], *([f"and {more:,} more"] if more > 0 else [])]


def shortened(text: str, most: int = 200) -> str:
    """Return a text of at most about `most` characters: a longer one loses its end, and says how long it was."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def where_raised(error: BaseException, *, plugins_only: bool = False) -> str:
    """Return where an error arose, as ` (package/file.py:12, in Class.method)`, without the package's folders.

    That is the innermost line of a plugin or of what it calls, as far as it passed any, rather than a line of
    benchkit's, PyTorch's or Python's own, which says nothing of whose error it is: with `plugins_only` never.
    """
    instead = getattr(sys.exit, "__code__", None)  # a library's, such as W&B's, that has put its own in its place
    passed = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code is not instead]
    own = [
        (frame, line) for frame, line in passed if frame.f_globals.get("__name__", "").partition(".")[0] not in _OTHERS
    ]
    if not own and (plugins_only or not passed):
        return ""
    frame, line = (own or passed)[-1]
    package = str(frame.f_globals.get("__package__") or "").replace(".", "/")
    file = "/".join(filter(None, (package, Path(frame.f_code.co_filename).name)))
    inside = (
        "" if frame.f_code.co_name.startswith("<") else f", in {frame.f_code.co_qualname.rpartition('<locals>.')[2]}"
    )
    return f" ({file}:{line}{inside})"


_OTHERS = frozenset(("benchkit", "torch", "numpy", *sys.stdlib_module_names)) - {"__main__"}
"""Modules whose lines are not those of plugins."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {shortened(close[0])!r}?)" if close else ""
