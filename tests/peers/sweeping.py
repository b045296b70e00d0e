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
LOOK = 0.05
"""Seconds between two looks at a sweep."""


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

    Ends the program with what the sweep said when it fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "benchmark.toml").write_text(study, encoding="utf-8")
        line = [sys.executable, "-m", "benchkit", "sweep", str(folder / "benchmark.toml"), "--plugin", str(IMAGES)]
        line += ["--workspace", str(folder / "runs"), *options]
        began = time.time()
        ours, theirs = pty.openpty() if shown else os.pipe()
        child = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=theirs, text=True, env=_environment())
        os.close(theirs)
        drained = threading.Thread(target=_drain, args=(ours, told := bytearray()))
        drained.start()
        first_epoch, watching = _watch(child, folder / "runs")
        printed, _ = child.communicate()
        drained.join()
        if child.returncode:
            sys.exit(f"{' '.join(line)}\n{printed}{told.decode(errors='replace')}")
        return Swept(
            seconds=time.time() - began,
            first_epoch=first_epoch - began,
            watching=watching,
            trials=read_results(folder / "runs").trials,
            printed=printed,
        )


def _environment() -> dict[str, str]:
    return {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}


def _drain(file: int, told: bytearray) -> None:
    """Add to `told` what comes until its writers are gone; a terminal says so with an error."""
    try:
        while some := os.read(file, 65536):
            told += some
    except OSError:
        pass
    os.close(file)


def _watch(child: subprocess.Popen[str], workspace: Path) -> tuple[float, float]:
    """Wait for the end; return when the first epoch of any trial was on disk and the processor time from then on."""
    process, first, before, after = psutil.Process(child.pid), 0.0, 0.0, 0.0
    while child.poll() is None:
        after = _processor_seconds(process, after)
        if not first and any(path.stat().st_size for path in workspace.glob("trials/*/*/*/history.jsonl")):
            first, before = time.time(), after
        time.sleep(LOOK)
    return first or time.time(), after - before if first else 0.0


def _processor_seconds(process: psutil.Process, known: float) -> float:
    """Return the seconds that a process has computed, not counting its children; what is `known` once it is gone."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return known
    return float(max(known, times.user + times.system))
