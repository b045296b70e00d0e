"""What a report must not tell: home folders, user names in paths, passwords in addresses."""

from __future__ import annotations

import dataclasses
import getpass
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from benchkit.report.page_text import printable
from benchkit.results import Outcome, StudyResults

T = TypeVar("T")

HOME = "~"
"""What stands for a home folder; data sets and plugin files expand it again on the reader's machine."""

_HOMES = (
    re.compile(r"(?:/home|/Users|/var/home)/[^/\s\"':;,\\]+"),
    re.compile(r"(?<![\w.~/-])/root(?![\w.-])"),
    re.compile(r"[A-Za-z]:[\\/]+Users[\\/]+[^\\/\"'\n]+"),
)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s\"']+@")


def private_results(results: StudyResults) -> StudyResults:
    """Return the results without home folders and credentials in any text; the trials' own folders stay usable."""
    trials, earlier = (
        tuple(
            dataclasses.replace(
                trial,
                condition=private(trial.condition),
                params=private(trial.params),
                outcome=_private_outcome(trial.outcome),
            )
            for trial in group
        )
        for group in (results.trials, results.earlier)
    )
    return dataclasses.replace(
        results,
        study=private(results.study),
        conditions=private(results.conditions),
        trials=trials,
        earlier=earlier,
        class_names=tuple(map(printable, results.class_names)),
        data=private(results.data),
        left_out=private(results.left_out),
        command=private_command(results.command),
    )


def _private_outcome(outcome: Outcome | None) -> Outcome | None:
    """Return an outcome with its texts made private; its numbers, which are many, are not looked at."""
    if outcome is None:
        return None
    return dataclasses.replace(
        outcome,
        reason=printable(private_text(outcome.reason)),
        notes=private(outcome.notes),
        environment=private(outcome.environment),
    )


def private(value: T) -> T:
    """Return a value with `private_text` applied to every text in it; what holds none stays the same object."""
    return _private(value)  # type: ignore[no-any-return]


def _private(value: Any) -> Any:
    if isinstance(value, str):
        return private_text(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        made_private = {name: _private(item) for name, item in given.items()}
        return (
            dataclasses.replace(value, **made_private) if any(made_private[n] is not given[n] for n in given) else value
        )
    if isinstance(value, Mapping):
        items = {private_text(str(key)): _private(item) for key, item in value.items()}
        same = list(items) == list(value) and all(items[key] is item for key, item in value.items())
        return value if same else items
    if isinstance(value, list | tuple):
        parts = [_private(item) for item in value]
        return value if all(new is old for new, old in zip(parts, value, strict=True)) else type(value)(parts)
    return value


def private_text(text: str) -> str:
    """Return a text in which `~` stands for home folders, and without user names and passwords in web addresses."""
    kept = text
    home = str(Path.home())
    if len(home) > len("/root") and home in kept:
        kept = kept.replace(home, HOME)
    for pattern in _HOMES:
        kept = pattern.sub(HOME, kept)
    user = _user()
    if len(user) > 2 and user != "root":
        kept = re.sub(rf"(?<=[\\/]){re.escape(user)}(?=[\\/]|$)", HOME, kept)
    kept = _CREDENTIALS.sub("", kept)
    return text if kept == text else kept


def private_command(command: str) -> str:
    """Return a command as it was given, absolute paths shortened to their last part and a storage left out.

    So it works on a reader's machine. A text that is no command line loses its home folders alone.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return private_text(command)
    kept = []
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option == "--storage" or (index and words[index - 1] == "--storage"):
            continue
        if equals and option.startswith("--") and value.startswith("/"):
            kept.append(f"{option}={_last(value)}")
        else:
            kept.append(_last(word) if word.startswith(("/", "~")) else private_text(word))
    return shlex.join(kept)


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or path


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
