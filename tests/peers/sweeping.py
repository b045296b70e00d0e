"""benchkit's public command, run on a study and watched from outside."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchkit.ledger import read_results
from benchkit.results import Trial

IMAGES = Path(__file__).with_name("benchmark_images.py")
LOOK, SELDOM = 0.05, 1.0
"""Seconds between two looks at a sweep, before and after its first epoch.

Each look may take a core from one of the threads that train, for which the others wait. The loops beside benchkit are
not looked at, so what is measured of it is as good as not looked at either.
"""


@dataclass(slots=True)
class Seen:
    """What looking at a sweep has shown: when the first epoch was on disk, the processor time then and at the end."""

    first_epoch: float = 0.0
    before: float = 0.0
    after: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """A sweep by the public command: its seconds, those to the end of the first epoch, its trials, what it printed.

    `watching` is the processor time, in seconds, that the sweep's own process took after the first epoch: following
    the ledger, and drawing the live view where it was shown.
    """

    seconds: float
    first_epoch: float
    watching: float
    trials: Sequence[Trial]
    printed: str


def swept(study: str, options: Sequence[str], *, shown: bool) -> Swept:
    """Sweep the text of a study file in a new workspace; with `shown` there is a terminal for the live view.

    Steps that are compiled are compiled anew, so that the first one tells what that takes. Ends the program with what
    the sweep said when it fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "benchmark.toml").write_text(study, encoding="utf-8")
        line = [sys.executable, "-m", "benchkit", "sweep", str(folder / "benchmark.toml"), "--plugin", str(IMAGES)]
        line += ["--workspace", str(folder / "runs"), *options]
        began = time.time()
        ours, theirs = pty.openpty() if shown else os.pipe()
        child = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=theirs, text=True, env=_environment(folder))
        os.close(theirs)
        drained = threading.Thread(target=_drain, args=(ours, told := bytearray()))
        drained.start()
        ended, seen = threading.Event(), Seen()
        watch = threading.Thread(target=_watch, args=(psutil.Process(child.pid), folder / "runs", ended, seen))
        watch.start()
        try:
            printed, _ = child.communicate()
            finished = time.time()
        finally:
            ended.set()
        watch.join()
        drained.join()
        if child.returncode:
            sys.exit(f"{' '.join(line)}\n{printed}{told.decode(errors='replace')}")
        return Swept(
            seconds=finished - began,
            first_epoch=(seen.first_epoch or finished) - began,
            watching=seen.after - seen.before if seen.first_epoch else 0.0,
            trials=read_results(folder / "runs").trials,
            printed=printed,
        )


def _environment(folder: Path) -> dict[str, str]:
    terminal = {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    return {**os.environ, **terminal, "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled-models")}


def _drain(file: int, told: bytearray) -> None:
    """Add to `told` what comes until its writers are gone; a terminal says so with an error."""
    try:
        while some := os.read(file, 65536):
            told += some
    except OSError:
        pass
    os.close(file)


def _watch(process: psutil.Process, workspace: Path, ended: threading.Event, seen: Seen) -> None:
    """Fill in what is `seen` of a sweep's process until it has `ended`: its first epoch is that of any trial."""
    while not ended.wait(SELDOM if seen.first_epoch else LOOK):
        seen.after = _processor_seconds(process, seen.after)
        if not seen.first_epoch and any(path.stat().st_size for path in workspace.glob("trials/*/*/*/history.jsonl")):
            seen.first_epoch, seen.before = time.time(), seen.after


def _processor_seconds(process: psutil.Process, known: float) -> float:
    """Return the seconds that a process has computed, not counting its children; what is `known` once it is gone."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return known
    return float(max(known, times.user + times.system))
