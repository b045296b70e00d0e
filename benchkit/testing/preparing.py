"""A data set prepared in another process, and killed on the way.

The process (`python -m benchkit.testing.preparing`) reads {entry, options, folder} as JSON from stdin, imports the
plugin once, and prepares the data set in fresh folders: undisturbed, a second time from what is there, and in forked
children that are killed at a write. It prints one line of JSON for what it saw. The network is out of reach throughout.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from benchkit.child import run_python
from benchkit.preparation import fingerprint_of
from benchkit.protocols import Splits
from benchkit.registry.options import bind_options, options_of
from benchkit.registry.registry import Entry, load_plugin
from benchkit.storage import decode, encode
from benchkit.testing.check import CheckFailure, NotApplicable
from benchkit.testing.subject import Subject

TIMEOUT = 600.0
"""Seconds that the other process may take."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = frozenset({"os.rename", "os.mkdir", "os.link", "os.symlink", "os.truncate"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """A preparation that was killed before its `at`-th write of `writes`, and what the next call then returned.

    `content` is the sha256 over content of the next call, or empty when it raised `error`.
    """

    at: int
    writes: int
    content: str
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What the other process saw: fingerprint and content of its own preparation, and the writes of a second call."""

    fingerprint: str
    content: str
    writes: int
    writes_again: int
    killed: tuple[Killed, ...]


def prepared_elsewhere(subject: Subject) -> Prepared:
    """Return what another process sees that prepares the subject's data set from scratch.

    Raises `NotApplicable` when the plugin cannot be imported there, and `CheckFailure` when the process fails.
    """
    return subject.once("elsewhere", lambda: _ask(subject))


def _ask(subject: Subject) -> Prepared:
    if subject.entry is None:
        raise NotApplicable("another process cannot import this object: give the plugin by name, or at module level")
    request = {
        "entry": encode(subject.entry),
        "options": subject.given,
        "folder": str(subject.scratch("elsewhere")),
    }
    ended = run_python(
        ["-W", "ignore", "-m", "benchkit.testing.preparing"],
        TIMEOUT,
        text=json.dumps(request, default=str),
        environment={"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},
    )
    if not ended.problem:
        return msgspec.json.decode(ended.out, type=Prepared)
    raise CheckFailure(given="preparation in another process", expected="the data set", got=ended.problem)


class Writes:
    """Counts what this process writes below a folder, and can kill the process just before one of these writes."""

    def __init__(self) -> None:
        self.below = ""
        self.count = 0
        self.kill_at = 0
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.below or (event != "open" and event not in _CHANGES):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return
        path = arguments[0]
        if event == "os.mkdir" and isinstance(path, str | os.PathLike) and os.path.isdir(path):
            return
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.below):
            self.count += 1
            if self.count == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def watching(self, folder: Path, *, kill_at: int = 0) -> Iterator[None]:
        """Count writes below `folder` while the context lasts, and kill the process before number `kill_at`."""
        self.below, self.count, self.kill_at = str(folder), 0, kill_at
        try:
            yield
        finally:
            self.below = ""


def prepared(call: Callable[[Path], Splits], folder: Path) -> Prepared:
    """Return what preparing below `folder` does, undisturbed and killed before its first, a middle and last write."""
    writes = Writes()
    with writes.watching(folder / "whole"):
        splits = call(folder / "whole")
    first = writes.count
    with writes.watching(folder / "whole"):
        call(folder / "whole")
    points = sorted({point for point in (1, first // 2, first - 1, first) if point >= 1})
    return Prepared(
        fingerprint=splits.fingerprint,
        content=fingerprint_of(splits),
        writes=first,
        writes_again=writes.count,
        killed=tuple(_killed(call, folder / f"killed-{at}", writes, at, first) for at in points),
    )


def _killed(call: Callable[[Path], Splits], folder: Path, writes: Writes, at: int, total: int) -> Killed:
    child = os.fork()
    if child == 0:
        with writes.watching(folder, kill_at=at):
            call(folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        return Killed(at=at, writes=total, content="", error="it made fewer writes the second time")
    try:
        return Killed(at=at, writes=total, content=fingerprint_of(call(folder)))
    except Exception as error:  # noqa: BLE001 - whatever the plugin raises is what the check reports
        return Killed(at=at, writes=total, content="", error=f"{type(error).__name__}: {error}")


@contextmanager
def no_network() -> Iterator[None]:
    """Let every connection fail at once while the context lasts, as on a machine without a network."""
    import socket

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("Network is unreachable (the conformance kit lets nothing through)")

    with (
        mock.patch.multiple(socket, create_connection=refuse, getaddrinfo=refuse),
        mock.patch.object(socket.socket, "connect", refuse),
    ):
        yield


def main() -> None:
    """Answer the request on stdin; whatever the plugin prints goes to stderr."""
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    random.seed(os.getpid())
    plugin = load_plugin(decode(Entry, request["entry"]))
    options = bind_options(options_of(plugin, "datasets"), request["options"])
    with no_network():
        outcome = prepared(lambda root: plugin(root, **options), Path(request["folder"]))
    answers.write(msgspec.json.encode(outcome).decode() + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
