"""How a sweep ends before its time: by a signal, Ctrl-C, a moment that was set, or a Slurm job's. Imports no torch.

Slurm, Kubernetes and spot machines send SIGTERM, SIGUSR1 or SIGUSR2 to one process or to all of them, and kill what is
left some seconds later. The sweep asks its workers to end; each saves the epoch it is at, if that ends in time. No exit
code brings a Slurm job back; `scontrol requeue` does, while it still runs. A job that was cancelled stays so.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
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


MARGIN = 60.0
"""Seconds before the end of a Slurm job at which a sweep in it stops by itself, or a tenth of what is left."""

SLURM_PATIENCE = 10.0
"""Seconds that one of Slurm's programs may take to answer."""

LEFT = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")


def job_here(environment: Mapping[str, str] = os.environ) -> str:
    """Return the Slurm job that this process is part of, `7`, or `7_2` for a task of an array; nothing outside one.

    The number of an array's last task is that of the whole array, so that `7` would mean all of its tasks.
    """
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID", "")


def seconds_of_job(now: datetime, environment: Mapping[str, str] = os.environ) -> float | None:
    """Return the seconds until a sweep in a Slurm job should stop, which is some time before the job's end.

    None outside one, where it has no end, and where Slurm does not tell.
    """
    end = environment.get("SLURM_JOB_END_TIME", "")
    if end.isdigit() and int(end):
        return _but_the_last(float(end) - now.timestamp())
    told = (
        _told("squeue", "--noheader", "--format=%L", f"--jobs={job_here(environment)}") if job_here(environment) else ""
    )
    left = LEFT.fullmatch(told.strip())
    if left is None:
        return None
    parts = {unit: int(number or 0) for unit, number in left.groupdict().items()}
    seconds = ((parts["days"] * 24 + parts["hours"]) * 60 + parts["minutes"]) * 60 + parts["seconds"]
    return _but_the_last(seconds)


def _but_the_last(left: float) -> float:
    return max(0.0, left - min(MARGIN, left / 10))


def _told(program: str, *arguments: str) -> str:
    """Return what one of Slurm's programs prints, nothing where it is absent or fails."""
    try:
        done = _run(program, *arguments)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SLURM_PATIENCE, check=False, stdin=subprocess.DEVNULL
    )


def refuse_no_requeue(environment: Mapping[str, str] = os.environ) -> None:
    """Raise `TrainingError` where a sweep could not give its job back: outside a Slurm job, or without `scontrol`."""
    if not job_here(environment):
        raise TrainingError("--requeue: this is no Slurm job", hint="SLURM_JOB_ID is not set; leave --requeue out")
    if shutil.which("scontrol") is None:
        raise TrainingError(
            "--requeue: there is no scontrol here, which gives a job back to the queue",
            hint="containers lack it: leave --requeue out and call scontrol in the batch script, as "
            "`benchkit templates copy slurm DIR` writes it",
        )


def refuse_in_vain(seconds: float, environment: Mapping[str, str] = os.environ) -> None:
    """Raise `TrainingError` where the job was given back before: this time, too, no epoch ended in so many seconds.

    The first time may have gone into preparing data. Else it would be given back for ever.
    """
    if int(environment.get("SLURM_RESTART_COUNT") or 0):
        from benchkit.analysis.wording import duration

        raise TrainingError(
            f"--requeue: job {job_here(environment)} was given back before, and again no epoch of any trial ended in "
            f"{duration(seconds, whole=True)}: it is not given back any more",
            hint="ask Slurm for more time (sbatch --time), or make epochs shorter, as by a smaller data.train_size",
        )


def requeue(say: Callable[[str], None], environment: Mapping[str, str] = os.environ) -> str:
    """Give this process's job back to Slurm's queue; return why it does not come back, nothing where it does.

    Slurm ends this process as soon as it has accepted that, so that `say` is told before.
    """
    job = job_here(environment)
    facts = _facts(job)
    if int(facts.get("Restarts", "0")) > int(environment.get("SLURM_RESTART_COUNT") or 0):
        say("the job is in Slurm's queue again")  # preempted: Slurm itself has put it there
        return ""
    if _is_cancelled(facts):
        return f"job {job} was cancelled"
    say(f"the job goes into Slurm's queue again: scontrol requeue {job}")
    try:
        done = _run("scontrol", "requeue", job)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"scontrol requeue {job}: {error}"
    words = " ".join((done.stdout + done.stderr).split())
    if done.returncode and "pending execution" not in words.lower():
        return f"scontrol requeue {job} ended with exit status {done.returncode}: {words}"
    return ""


def _facts(job: str) -> dict[str, str]:
    """Return what Slurm tells of a job, nothing where it does not answer."""
    told = _told("scontrol", "--oneliner", "show", "job", job)
    after_its_name = told.partition(" UserId=")[2]  # the name is the user's, whatever it holds
    return dict(word.split("=", 1) for word in after_its_name.split() if "=" in word)


def _is_cancelled(facts: Mapping[str, str]) -> bool:
    """Return whether somebody ended the job, and not its time limit or a job of higher priority."""
    if facts.get("JobState") == "CANCELLED":
        return True
    ended_by_slurm = facts.get("Reason") == "TimeLimit" or facts.get("PreemptTime", "None") != "None"
    return facts.get("JobState") == "COMPLETING" and not ended_by_slurm
