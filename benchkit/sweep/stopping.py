"""How a sweep ends before its time: told so by a signal, by Ctrl-C, or at a moment that was set. Imports no torch.

Slurm, Kubernetes and spot machines send SIGTERM, SIGUSR1 or SIGUSR2 to one process or to all of them, and kill what is
left some seconds later. The sweep asks its workers to end; each saves the epoch it is at, if that ends in time.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import FrameType

from benchkit.errors import TrainingError

GRACE = 5.0
"""Seconds in which workers may end their epoch and save it."""

LATEST = 9.0
"""Seconds after which the process ends, whatever does not answer: a claim that it holds then runs out by itself."""

CODE = 143
"""The exit code of a sweep that a signal ended, as a shell tells it of SIGTERM."""

ORDERS = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
SHELLS = ("sh", "dash", "ash", "bash", "busybox", "zsh")
UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
LENGTH = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(?P<unit>s|min|m|h|d)")


class Stopped(KeyboardInterrupt):
    """The sweep was told to stop by `name`, a signal."""

    exit_code = CODE

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def orders(environment: Mapping[str, str] = os.environ) -> tuple[signal.Signals, ...]:
    """Return the signals that end a sweep.

    SIGHUP is none where it was ignored when the process began (`nohup`), unless Slurm or Kubernetes runs it.
    """
    known = [getattr(signal, name) for name in ORDERS if hasattr(signal, name)]
    ignored = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    managed = "SLURM_JOB_ID" in environment or "KUBERNETES_SERVICE_HOST" in environment
    return tuple(one for one in known if one.name != "SIGHUP" or managed or not ignored)


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
    """Wait for the first of the signals, then end the process unless the sweep has ended by itself."""
    with os.fdopen(reader, "rb", buffering=0) as stream:
        while (heard := stream.read(1)) and heard not in numbers:
            pass
    if heard and not ended.wait(LATEST):
        os._exit(CODE)


class WorkerStop:
    """A worker's side: signals to the whole group are the sweep's to hear, SIGTERM is its word to end."""

    def __init__(self) -> None:
        """Hear from now on; a worker that is not `training` ends at once, others after their epoch."""
        self.training = False
        self.asked = False
        for name in (*ORDERS, "SIGINT"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._ask if name == "SIGTERM" else signal.SIG_IGN)

    def over(self) -> None:
        """Note that nothing is trained any more; end the process if it was asked to meanwhile."""
        self.training = False
        if self.asked:
            os._exit(0)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if not self.training:
            os._exit(0)


def seconds_until(option: str, text: str, now: datetime) -> float:
    """Return the seconds from `now` that `text` means: a length (8h, 90min, 2d, 45s) or a moment (2026-11-30T08:00).

    A moment without a time zone is one of this machine's. Raises `TrainingError`, which names the `option`, for
    anything else, and for a moment that is past.
    """
    written = LENGTH.fullmatch(text.strip())
    if written:
        return float(written["number"]) * UNITS[written["unit"]]
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise TrainingError(
            f"{option} {text}: expected a length of time or a moment", hint="for example 8h, 90min or 2026-11-30T08:00"
        ) from None
    left = (moment.astimezone() - now).total_seconds()
    if left <= 0:
        raise TrainingError(f"{option} {text}: that moment is past", hint=f"now it is {now:%Y-%m-%dT%H:%M:%S%z}")
    return left
