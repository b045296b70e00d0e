"""The command line: each command parses, calls one function and prints. Here it starts, and is ended by signals."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from benchkit.sweep.stopping import ORDERS

CODE = 143
"""The exit code of a command that a signal ended, as a shell tells it of SIGTERM."""

LATEST = 9.0
"""Seconds after which the process ends, whatever does not answer: a claim that it holds then runs out by itself."""

SHELLS = ("sh", "dash", "ash", "bash", "busybox", "zsh")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for errors that a user can mend, 130 for Ctrl-C, 143
    for a command that another signal ended.
    """
    if os.getpid() == 1:
        # The kernel keeps every signal without a handler from the first process of a container. Imports take seconds.
        for one in ORDERS:
            signal.signal(one, _end)
    from benchkit.cli.app import main as run

    return run(arguments)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(CODE)


class Stopped(KeyboardInterrupt):
    """A command was told to stop by `name`, a signal."""

    exit_code = CODE

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def orders(environment: Mapping[str, str] = os.environ) -> tuple[signal.Signals, ...]:
    """Return the signals that end a command.

    SIGHUP is none where it was ignored when the process began (`nohup`), unless Slurm or Kubernetes runs it.
    """
    ignored = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    managed = "SLURM_JOB_ID" in environment or "KUBERNETES_SERVICE_HOST" in environment
    return tuple(one for one in ORDERS if one.name != "SIGHUP" or managed or not ignored)


def deaf_shell(parent: int, first: str) -> str:
    """Return the name of the shell that keeps signals from this process, nothing where there is none.

    `parent` is the id of the process that started this one, and `first` the name of process 1: where both are the same
    shell, as under `sh -c` in a container, it hears of no signal to stop and passes none on.
    """
    return first.strip() if parent == 1 and first.strip() in SHELLS else ""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in this thread at the first signal to stop; end the process at once at the second one.

    It ends at the latest `LATEST` seconds after the first one: also where this thread waits for something that never
    answers, and so hears of no signal. Outside the main thread nothing is heard.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, ended = threading.Event(), threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if heard.is_set():
            os._exit(CODE)
        heard.set()
        raise Stopped(signal.Signals(number).name)

    def again(ignored: sys.UnraisableHookArgs) -> None:
        """Send a signal once more of which Python dropped the error, as it does in `__del__` and weak references."""
        if not isinstance(ignored.exc_value, Stopped):
            unraisable(ignored)
            return
        heard.clear()
        threading.Timer(0.01, os.kill, (os.getpid(), signal.Signals[ignored.exc_value.name])).start()

    unraisable, sys.unraisablehook = sys.unraisablehook, again
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    known = orders()
    before = {one: signal.signal(one, stop) for one in known}
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    numbers = bytes(known)
    threading.Thread(target=_end_in_time, args=(reader, numbers, ended), daemon=True).start()
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        signal.set_wakeup_fd(woken)
        for one, handler in before.items():
            signal.signal(one, handler)
        ended.set()
        os.close(writer)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hear no signal to stop in the body, and nothing that it starts does; Ctrl-C ends it."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {one: signal.signal(one, signal.SIG_IGN) for one in orders()}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _end_in_time(reader: int, numbers: bytes, ended: threading.Event) -> None:
    """Wait for the first of the signals, then end the process unless the command has ended by itself."""
    with os.fdopen(reader, "rb", buffering=0) as stream:
        while (heard := stream.read(1)) and heard not in numbers:
            pass
        if heard and not ended.wait(LATEST):
            os._exit(CODE)


__all__ = ["main"]
