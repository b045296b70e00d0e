"""How long work tells how far it has come, without knowing who listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Progress = Callable[[int, int, str], None]
"""Receives (done, total, what): how many of how many units of the work named `what` are finished; total 0 = unknown."""

_listener: ContextVar[Progress | None] = ContextVar("benchkit_progress", default=None)


@contextmanager
def listening(progress: Progress) -> Iterator[None]:
    """Send every report made inside the block (in this thread of execution) to `progress`."""
    token = _listener.set(progress)
    try:
        yield
    finally:
        _listener.reset(token)


def report_progress(done: int, total: int, what: str) -> None:
    """Tell whoever listens that `done` of `total` units of `what` are finished; without a listener nothing happens."""
    listener = _listener.get()
    if listener is not None:
        listener(done, total, what)


def progress_lines(
    write: Callable[[str], object], *, every: float = 5.0, clock: Callable[[], float] = time.monotonic
) -> Progress:
    """Return a listener that writes one line when a piece of work starts, ends, and at most every `every` seconds."""
    last_what, last_time = "", 0.0

    def listen(done: int, total: int, what: str) -> None:
        nonlocal last_what, last_time
        now = clock()
        if what == last_what and now - last_time < every and not 0 < total <= done:
            return
        last_what, last_time = what, now
        write(f"{what}: {done:,} of {total:,}" if total else what)

    return listen
