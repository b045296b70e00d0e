"""The command line: each command parses, calls one function and prints."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from types import FrameType

TOLD_TO_STOP = 143
"""The exit code of a command that SIGTERM ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for errors that a user can mend, 130 for Ctrl-C, 143
    for a command that another signal ended.
    """
    if os.getpid() == 1:
        # The kernel keeps every signal without a handler from the first process of a container. Imports take seconds.
        for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
            signal.signal(getattr(signal, name), _end)
    from benchkit.cli.app import main as run

    return run(arguments)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(TOLD_TO_STOP)


__all__ = ["main"]
