"""A sweep that is told to stop: by signals to it or to all of its processes, at a moment, or while nothing answers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psutil
import pytest
from test_sweep_kill import end, gone, start, wait_for_line, workers_of
from tiny_study import PATIENCE, environment, waiting_command, write

from benchkit.cli import Stopped, deaf_shell, orders, stoppable
from benchkit.errors import TrainingError
from benchkit.ledger import read_results
from benchkit.sweep.stopping import seconds_until

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("name", "to_all"),
    [
        ("SIGTERM", True),
        pytest.param("SIGTERM", False, marks=pytest.mark.slow),
        pytest.param("SIGUSR1", True, marks=pytest.mark.slow),
        pytest.param("SIGUSR2", False, marks=pytest.mark.slow),
        pytest.param("SIGHUP", True, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_the_sweep_and_loses_no_finished_epoch(tmp_path: Path, name: str, to_all: bool) -> None:
    study = write(tmp_path / "tiny.toml", epochs=100000, repeats=1)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the tests, and so the sweep, would ignore it
    try:
        sweep = start(tmp_path, "sweep", study, "--jobs", 1)
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for_line(sweep, r"repeat 0: epoch \d")
    workers = workers_of(sweep)
    (os.killpg if to_all else os.kill)(sweep.pid, getattr(signal, name))
    assert f"stopped by {name}; nothing is lost, the same command goes on" in wait_for_line(sweep, "stopped")
    assert sweep.wait(timeout=PATIENCE) == 143
    end(sweep)
    assert gone(workers)
    (trial,) = read_results(tmp_path / "benchkit-runs").trials
    assert trial.state == "stale" and len(trial.history) > 0

    again = start(tmp_path, "sweep", study, "--jobs", 1)
    told = wait_for_line(again, r"repeat 0: goes on")
    os.kill(again.pid, signal.SIGTERM)
    assert again.wait(timeout=PATIENCE) == 143
    end(again)
    saved = int(re.findall(r"epoch (\d+)", told)[0])
    # A signal may come between an epoch's record and its checkpoint, which holds the records of all before it.
    assert saved in (len(trial.history), len(trial.history) + 1), "each epoch that had ended was saved"


def test_the_second_signal_ends_at_once() -> None:
    script = (
        "import os, signal, time\n"
        "from benchkit.cli import Stopped, stoppable\n"
        "with stoppable():\n"
        "    try:\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "    except Stopped as stopped:\n"
        "        print(stopped.name, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment()
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGUSR1)
        assert child.stdout.readline() == "SIGUSR1\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=PATIENCE) == 143


def test_a_worker_that_is_asked_to_end_does_so_after_its_epoch() -> None:
    script = (
        "import os, signal\n"
        "from benchkit.sweep.stopping import WorkerStop\n"
        "stop = WorkerStop()\n"
        "stop.training = True\n"
        "for one in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):\n"
        "    os.kill(os.getpid(), one)\n"
        "print('goes on', flush=True)\n"
        "stop.over()\n"
        "print('is still there', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), check=False
    )
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="locks a mutex of the C library")
def test_what_never_answers_does_not_keep_the_process() -> None:
    """The main thread waits in C, where no signal is heard by Python: a lock that it holds itself."""
    script = (
        "import ctypes, threading, time\n"
        "from benchkit import cli\n"
        "cli.LATEST = 0.2\n"
        "lock, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)\n"
        "word = ctypes.c_int.from_buffer(lock)  # the C library writes 2 there before it waits\n"
        "def tell():\n"
        "    while word.value != 2: time.sleep(0.01)\n"
        "    print('ready', flush=True)\n"
        "with cli.stoppable():\n"
        "    threading.Thread(target=tell, daemon=True).start()\n"
        "    library.pthread_mutex_lock(lock); library.pthread_mutex_lock(lock)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment()
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGTERM)
        try:
            assert child.wait(timeout=PATIENCE) == 143
        finally:
            child.kill()


def first_process(folder: Path, *words: object) -> subprocess.Popen[str]:
    """Start a command as the first process of a namespace, as containers have one; skip where none can be made."""
    apart = ["unshare", "--pid", "--fork", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespace of processes can be made here")
    return subprocess.Popen(
        [*apart, *(str(word) for word in words)],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("shell", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["exec form", "sh -c exec"])
def test_the_first_process_of_a_container_hears_the_signal(tmp_path: Path, shell: bool) -> None:
    study = write(tmp_path / "tiny.toml", epochs=100000, repeats=1)
    words = waiting_command("sweep", study, "--jobs", 1)
    sweep = first_process(tmp_path, *(["sh", "-c", f"exec {shlex.join(words)}"] if shell else words))
    wait_for_line(sweep, r"repeat 0: epoch \d")
    (first,) = psutil.Process(sweep.pid).children()
    first.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM; nothing is lost" in wait_for_line(sweep, "stopped")
    assert sweep.wait(timeout=PATIENCE) == 143
    end(sweep)
    (trial,) = read_results(tmp_path / "benchkit-runs").trials
    assert trial.state == "stale" and len(trial.history) > 0


def test_a_shell_that_keeps_signals_from_a_sweep_is_named() -> None:
    assert deaf_shell(1, "sh\n") == "sh"
    assert deaf_shell(1, "systemd\n") == "", "what starts other processes of a machine passes on what it must"
    assert deaf_shell(77, "sh\n") == ""


def test_the_first_process_hears_it_while_it_imports(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'benchkit.cli.app':\n"
        "            print('importing', flush=True); time.sleep(60)\n"
        "from benchkit.cli import main\n"
        "sys.meta_path.insert(0, Slow())\n"
        "main(['--version'])\n"
    )
    with first_process(tmp_path, sys.executable, "-c", script) as child:
        assert child.stdout is not None and child.stdout.readline() == "importing\n"
        psutil.Process(child.pid).children()[0].send_signal(signal.SIGTERM)
        assert child.wait(timeout=PATIENCE) == 143


def test_a_signal_whose_error_python_drops_is_heard_again() -> None:
    class Freed:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)  # the handler runs here, where no error gets out

    went_on, hook = False, sys.unraisablehook
    with pytest.raises(Stopped, match="SIGTERM"), stoppable():
        Freed()
        went_on = True
        time.sleep(5)
    assert went_on and sys.unraisablehook is hook


def test_a_sweep_under_nohup_hears_no_hangup_unless_slurm_or_kubernetes_runs_it() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in orders({}) and signal.SIGTERM in orders({})
        assert signal.SIGHUP in orders({"SLURM_JOB_ID": "7"})
        assert signal.SIGHUP in orders({"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert signal.SIGHUP in orders({})
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("90min", 5400),
        ("90 m", 5400),
        ("8h", 28800),
        ("1.5h", 5400),
        ("2d", 172800),
        ("2026-11-29T12:30:00+02:00", 1800),
        ("2026-11-29T11:00:00Z", 3600),
    ],
)
def test_a_limit_is_a_length_or_a_moment(text: str, seconds: float) -> None:
    assert seconds_until("--stop-by", text, NOW) == seconds


@pytest.mark.parametrize(
    "text", ["", "8", "eight", "8 hours", "-3h", "2026-13-01", "2026-11-29T11:00:00+02:00", "1e9h"]
)
def test_a_limit_that_is_none_or_past_is_one_error(text: str) -> None:
    with pytest.raises(TrainingError, match=re.escape(f"--stop-by {text}: ")):
        seconds_until("--stop-by", text, NOW)
