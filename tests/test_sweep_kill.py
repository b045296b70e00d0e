"""Sweeps that are killed, wholly or in part, at random moments: what was trained stays, the numbers are the same."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from live_pages import until
from test_sweep import HURT, hurting
from tiny_study import (
    DATA,
    FACTOR,
    PATIENCE,
    SEARCH,
    all_facts,
    command,
    environment,
    run_command,
    run_here,
    sweep_here,
    waiting_command,
    write,
    write_held,
)

from benchkit.analysis.candidates import looks_of
from benchkit.errors import LedgerError
from benchkit.ledger import read_results
from benchkit.study.studyfile import read_study
from benchkit.sweep import worker
from benchkit.sweep.pool import Pool

LEAST_KILLS = 20


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start a benchkit command in a session of its own, so that all of it can be signalled at once."""
    return subprocess.Popen(
        waiting_command(*arguments),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_line(process: subprocess.Popen[str], pattern: str) -> str:
    """Return the first line on standard error that matches."""
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(pattern, line):
            return line
    raise AssertionError(f"no line like {pattern!r}")


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the workers of a process; another child of it may end while they are looked for.

    What a worker itself starts has the worker's command line until it runs a program of its own, and is none.
    """
    workers = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.NoSuchProcess):
            if "benchkit.sweep.worker" in " ".join(child.cmdline()):
                workers.append(child)
    return workers


def end(process: subprocess.Popen[str]) -> None:
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


@pytest.mark.slow
def test_a_sweep_killed_again_and_again_ends_with_the_numbers_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropout = '[[regularizers]]\nname = "dropout"\nrate = 0.2\n'
    study = write(tmp_path / "tiny.toml", dropout, FACTOR, SEARCH, epochs=40, repeats=2)
    killed = tmp_path / "killed"
    harness = [sys.executable, str(Path(__file__).with_name("forked_sweeps.py")), str(study), str(killed), "1"]
    first_seen: dict[tuple[str, int], tuple[float, int]] = {}
    told = []
    with subprocess.Popen(harness, stdout=subprocess.PIPE, env=environment(), text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told.append(json.loads(line))
            for key, ending in endings(killed).items():
                assert first_seen.setdefault(key, ending) == ending, f"{key} was trained again"
    assert process.returncode == 0
    kills = sum(one["killed"] for one in told)
    assert kills >= LEAST_KILLS
    went_on = [epoch for one in told for epoch in one["started"] if epoch > 0]
    assert len(went_on) >= kills // 4, told

    uninterrupted = tmp_path / "uninterrupted"
    sweep_here(monkeypatch, uninterrupted, read_study(study))
    assert all_facts(read_results(killed)) == all_facts(read_results(uninterrupted))
    assert list(killed.rglob("checkpoint.pt")) == []


def endings(workspace: Path) -> dict[tuple[str, int], tuple[float, int]]:
    """Return when each finished trial ended, and how often it was attempted."""
    try:
        results = read_results(workspace)
    except LedgerError:  # killed before anything was registered
        return {}
    finished = [trial for trial in results.trials if trial.state in ("done", "pruned")]
    return {(trial.condition.label, trial.index): (trial.finished, trial.attempt) for trial in finished}


@pytest.mark.slow
def test_the_whole_command_killed_at_any_moment_goes_on_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, plugin = write_held(tmp_path, 0, FACTOR, at=200, epochs=250, repeats=2)
    asked = ("sweep", study, "--jobs", 2, "--plugin", plugin)
    chance = random.Random(7)
    for pattern in ("training: 4 trials", r"repeat 0: epoch \d", r"\[2/4"):
        if "2/4" in pattern:
            (tmp_path / "go").touch()  # none has ended until now
        sweep = start(tmp_path, *asked)
        wait_for_line(sweep, pattern)
        time.sleep(chance.random() * 0.3)
        workers = workers_of(sweep)
        os.killpg(sweep.pid, signal.SIGKILL)
        end(sweep)
        assert gone(workers)
    assert run_here(monkeypatch, tmp_path, *asked, pool=Pool) == 0
    assert capsys.readouterr().out == "tiny: 4 done\n"
    uninterrupted = tmp_path / "uninterrupted"
    sweep_here(monkeypatch, uninterrupted, read_study(study), plugins=(plugin,))
    assert all_facts(read_results(tmp_path / "benchkit-runs")) == all_facts(read_results(uninterrupted))


def test_a_killed_worker_is_replaced_and_a_killed_parent_takes_its_workers_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, plugin = write_held(tmp_path, 0, at=500, epochs=600, repeats=1)
    sweep = start(tmp_path, "sweep", study, "--jobs", 1, "--plugin", plugin)
    wait_for_line(sweep, r"repeat 0: epoch \d")
    (worker,) = workers_of(sweep)
    checkpoint = next((tmp_path / "benchkit-runs" / "trials").rglob("0000")) / "checkpoint.pt"
    until(checkpoint.exists)
    worker.kill()
    assert "goes on after epoch" in wait_for_line(sweep, r"repeat 0: goes on")
    (replacement,) = workers_of(sweep)
    assert replacement.pid != worker.pid
    sweep.kill()  # the parent alone
    end(sweep)
    assert gone([replacement])
    (tmp_path / "go").touch()
    assert run_here(monkeypatch, tmp_path, "sweep", study, "--plugin", plugin) == 0
    uninterrupted = tmp_path / "uninterrupted"
    sweep_here(monkeypatch, uninterrupted, read_study(study), plugins=(plugin,))
    assert all_facts(read_results(tmp_path / "benchkit-runs")) == all_facts(read_results(uninterrupted))


@pytest.mark.slow
def test_a_worker_that_stood_still_goes_on_and_no_epoch_comes_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, plugin = write_held(tmp_path, 0, at=500, epochs=600, repeats=2)
    sweep = start(tmp_path, "sweep", study, "--jobs", 2, "--plugin", plugin)
    wait_for_line(sweep, r"repeat 0: epoch \d")
    worker = workers_of(sweep)[0]
    worker.suspend()
    time.sleep(3)
    worker.resume()
    (tmp_path / "go").touch()
    _, told = sweep.communicate(timeout=PATIENCE)
    assert sweep.returncode == 0, told
    uninterrupted = tmp_path / "uninterrupted"
    sweep_here(monkeypatch, uninterrupted, read_study(study), plugins=(plugin,))
    results = read_results(tmp_path / "benchkit-runs")
    assert all_facts(results) == all_facts(read_results(uninterrupted))
    assert [record.epoch for record in results.trials[0].history] == list(range(1, 601))


def test_ctrl_c_stops_at_once_says_how_to_go_on_and_leaves_no_worker(tmp_path: Path) -> None:
    study = write(tmp_path / "tiny.toml", epochs=100000, repeats=2)
    # A shell's background jobs ignore this signal, and so do their children, unless it is heard when they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sweep = start(tmp_path, "sweep", study, "--jobs", 2)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for_line(sweep, r"repeat 0: epoch \d")
    workers = workers_of(sweep)
    assert len(workers) == 2
    os.killpg(sweep.pid, signal.SIGINT)
    _, told = sweep.communicate(timeout=PATIENCE)
    assert sweep.returncode == 130
    assert f"the same command goes on: benchkit sweep {study} --jobs 2" in told
    assert "Traceback" not in told
    assert gone(workers)
    states = {trial.state for trial in read_results(tmp_path / "benchkit-runs").trials}
    assert states <= {"stale", "waiting"}


@pytest.mark.slow
def test_trials_that_kill_their_worker_become_failed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hurtful.py").write_text(HURT.replace("at: int = 2", "at: int = 1"))
    study = write(tmp_path / "tiny.toml", hurting("die", "segfault", "raise", "not"), epochs=2, repeats=1)
    done = run_command(tmp_path, "sweep", study, "--jobs", 2, "--plugin", "hurtful.py")
    assert done.returncode == 1, done.stderr
    assert "tiny: " in done.stdout and "3 failed" in done.stdout and "1 done" in done.stdout
    trials = {trial.condition.label: trial for trial in read_results(tmp_path / "benchkit-runs").trials}
    begun = "2 starts in a row ended before a further epoch was saved: it ended the process "
    assert trials["die"].reason == begun + "with exit status 7; it ended the process with exit status 7"
    assert trials["segfault"].reason == begun + "by signal SIGSEGV; it ended the process by signal SIGSEGV"
    assert "ValueError: no good" in trials["raise"].reason and trials["not"].state == "done"
    assert "ValueError: no good" in (trials["raise"].folder / "log.txt").read_text()
    assert f"die repeat 0: failed: {begun}with exit status 7" in done.stderr
    assert run_here(monkeypatch, tmp_path, "status") == 0
    assert f"segfault repeat 0: failed: {begun}by signal SIGSEGV" in capsys.readouterr().out


def test_a_worker_with_nothing_to_do_says_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        worker.COMMAND, input="", cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ""


def test_workers_that_cannot_start_end_the_sweep(tmp_path: Path) -> None:
    study = write(tmp_path / "tiny.toml", repeats=1)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, os\nif 'benchkit.sweep.worker' in ' '.join(sys.orig_argv): os._exit(3)\n"
    )
    done = subprocess.run(
        command("sweep", study),
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "workers end before they train anything, the last ended the process with exit status 3" in done.stderr
    assert DATA.exists()


@pytest.mark.slow
def test_killed_twice_and_shared_by_two_it_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = '[factors]\n"train.optimizer.lr" = [0.1, 0.1000001]\n'
    study, plugin = write_held(tmp_path, 0, copies, at=50, epochs=60, repeats=3)
    asked = ("sweep", study, "--jobs", 1, "--until-decided", "--most", 6, "--plugin", plugin)
    for pattern, most in ((r"\] 0.1 repeat 1: val", 5), (r"\] 0.1 repeat 3: val", 10)):
        (tmp_path / "held").write_text(str(most))
        killed = start(tmp_path, *asked)
        wait_for_line(killed, pattern)
        workers = workers_of(killed)
        os.killpg(killed.pid, signal.SIGKILL)
        end(killed)
        assert gone(workers)
    (tmp_path / "go").touch()
    sharing = [start(tmp_path, *asked) for _ in range(2)]
    told = [process.communicate(timeout=PATIENCE) for process in sharing]
    assert [process.returncode for process in sharing] == [0, 0], told
    parts = read_results(tmp_path / "benchkit-runs")
    alone = tmp_path / "alone"
    sweep_here(monkeypatch, alone, read_study(study), until_decided=True, most=6, plugins=(plugin,))
    whole = read_results(alone)
    assert all_facts(parts) == all_facts(whole) and looks_of(parts) == looks_of(whole)
    assert {trial.attempt for trial in parts.trials} == {0}
