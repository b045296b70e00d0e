"""What a sweep asks of Slurm, and how its job is given back: squeue and scontrol are scripts here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_sweep_kill import end, start, wait_for_line
from tiny_study import FACTOR, PATIENCE, run_here, write

from benchkit.cli import undisturbed
from benchkit.errors import TrainingError
from benchkit.sweep.stopping import job_here, refuse_no_requeue, requeue, seconds_of_job

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
JOB = {"SLURM_JOB_ID": "7"}
TASK = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
SHOWN = (
    "JobId=7 JobName=a JobState=CANCELLED UserId=x(1) "
    "JobState={state} Reason={reason} Restarts={restarts} PreemptTime={at}"
)


class Programs:
    """Slurm's programs as scripts in a folder on the PATH, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, *lines: str) -> None:
        path = self._folder / name
        path.write_text("\n".join(("#!/bin/sh", f'echo "{name} $*" >> {self._folder}/asked', *lines)) + "\n")
        path.chmod(0o755)

    def scontrol(self, shown: str, answer: str = "", code: int = 0) -> None:
        self.write("scontrol", f"case $1 in requeue) echo '{answer}' >&2; exit {code};; esac", f"echo '{shown}'")

    def asked(self) -> list[str]:
        path = self._folder / "asked"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))  # alone: a Slurm that is installed here is not asked
    return Programs(folder)


def shown(state: str = "RUNNING", reason: str = "None", restarts: int = 0, at: str = "None") -> str:
    return SHOWN.format(state=state, reason=reason, restarts=restarts, at=at)


def test_a_task_of_an_array_is_called_by_the_arrays_number() -> None:
    assert job_here({}) == ""
    assert job_here(JOB) == "7"
    assert job_here(TASK) == "7_3"


def test_a_jobs_own_end_is_a_limit() -> None:
    assert seconds_of_job(NOW, {}) is None
    ends = str(int(NOW.timestamp()) + 3600)
    assert seconds_of_job(NOW, {**JOB, "SLURM_JOB_END_TIME": ends}) == 3540
    assert seconds_of_job(NOW, {**JOB, "SLURM_JOB_END_TIME": str(int(NOW.timestamp()) + 20)}) == 18
    assert seconds_of_job(NOW, {**JOB, "SLURM_JOB_END_TIME": str(int(NOW.timestamp()) - 20)}) == 0


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        ("8:00:00", 8 * 3600 - 60),
        ("08:00:00", 8 * 3600 - 60),
        ("1-00:00:00", 86400 - 60),
        ("364-23:59:59", 365 * 86400 - 1 - 60),
        ("45:30", 45 * 60 + 30 - 60),
        ("0:40", 36),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_older_versions_are_asked_for_the_time_that_is_left(programs: Programs, left: str, seconds: float) -> None:
    programs.write("squeue", f"echo '{left}'")
    for end_time in ({}, {"SLURM_JOB_END_TIME": "0"}):
        assert seconds_of_job(NOW, {**TASK, **end_time}) == seconds
    assert programs.asked() == ["squeue --noheader --format=%L --jobs=7_3"] * 2


def test_without_squeue_no_end_is_known(programs: Programs) -> None:
    assert seconds_of_job(NOW, JOB) is None
    programs.write("squeue", "echo 'slurm_load_jobs error: Invalid job id specified'; exit 1")
    assert seconds_of_job(NOW, JOB) is None


@pytest.mark.parametrize("environment", [JOB, TASK], ids=["a job", "a task of an array"])
def test_a_job_that_runs_is_given_back_under_its_own_name(programs: Programs, environment: dict[str, str]) -> None:
    programs.scontrol(shown())
    said: list[str] = []
    assert requeue(said.append, environment) == ""
    job = job_here(environment)
    assert said == [f"the job goes into Slurm's queue again: scontrol requeue {job}"]
    assert programs.asked() == [f"scontrol --oneliner show job {job}", f"scontrol requeue {job}"]


def test_a_job_that_was_cancelled_stays_so(programs: Programs) -> None:
    for state in ("COMPLETING", "CANCELLED"):
        programs.scontrol(shown(state))
        assert requeue(print, JOB) == "job 7 was cancelled"
    assert not [one for one in programs.asked() if "requeue" in one]


def test_at_the_time_limit_and_when_preempted_it_comes_back(programs: Programs) -> None:
    programs.scontrol(shown("COMPLETING", reason="TimeLimit"))
    assert requeue(print, JOB) == ""
    programs.scontrol(shown("COMPLETING", at="2026-11-29T17:55:20"))
    assert requeue(print, JOB) == ""
    assert [one for one in programs.asked() if "requeue" in one] == ["scontrol requeue 7"] * 2


def test_one_that_slurm_has_queued_again_is_not_asked_for_twice(programs: Programs) -> None:
    programs.scontrol(shown("COMPLETING", restarts=2))
    assert requeue(print, {**JOB, "SLURM_RESTART_COUNT": "1"}) == ""
    assert not [one for one in programs.asked() if "requeue" in one]
    assert requeue(print, {**JOB, "SLURM_RESTART_COUNT": "2"}) == "job 7 was cancelled"
    programs.scontrol(shown(), "Job is pending execution for job 7", code=1)
    assert requeue(print, JOB) == ""


def test_what_slurm_refuses_is_told_in_its_words(programs: Programs) -> None:
    programs.scontrol(shown(), "Requested operation is presently disabled for job 7", code=1)
    assert requeue(print, JOB) == (
        "scontrol requeue 7 ended with exit status 1: Requested operation is presently disabled for job 7"
    )


def test_where_no_job_could_be_given_back_it_is_refused_at_once(programs: Programs) -> None:
    with pytest.raises(TrainingError, match="this is no Slurm job"):
        refuse_no_requeue({})
    with pytest.raises(TrainingError, match="there is no scontrol here"):
        refuse_no_requeue(JOB)
    programs.scontrol(shown())
    refuse_no_requeue(TASK)


def test_an_unfinished_sweep_ends_with_0_only_where_its_job_comes_back(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(tmp_path / "tiny.toml", FACTOR, repeats=1)
    asked = ("sweep", study, "--jobs", 1, "--hours", 0)
    assert run_here(monkeypatch, tmp_path, *asked) == 143
    assert run_here(monkeypatch, tmp_path, *asked, "--requeue") == 2
    assert "this is no Slurm job" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert run_here(monkeypatch, tmp_path, *asked, "--requeue") == 2
    assert "there is no scontrol here" in capsys.readouterr().err
    programs.scontrol(shown())
    assert run_here(monkeypatch, tmp_path, *asked, "--requeue") == 0
    assert "the job goes into Slurm's queue again" in capsys.readouterr().err
    programs.scontrol(shown(), "slurm_requeue error: Invalid job id specified", code=1)
    assert run_here(monkeypatch, tmp_path, *asked, "--requeue") == 143
    assert "the job does not come back: scontrol requeue 7 ended with" in capsys.readouterr().err
    assert run_here(monkeypatch, tmp_path, "sweep", study, "--jobs", 1, "--requeue") == 0, (
        "a finished one is not queued"
    )
    assert len([one for one in programs.asked() if "requeue" in one]) == 2


def test_a_job_in_which_no_epoch_ever_ends_is_given_back_once(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(tmp_path / "tiny.toml", FACTOR, repeats=1)
    asked = ("sweep", study, "--jobs", 1, "--hours", 0, "--requeue")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    programs.scontrol(shown(restarts=1))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert run_here(monkeypatch, tmp_path, *asked) == 0, "the data may have taken all the time"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run_here(monkeypatch, tmp_path, *asked) == 2
    said = capsys.readouterr().err
    assert (
        "job 7 was given back before, and again no epoch of any trial ended in 0 s" in said and "sbatch --time" in said
    )
    assert run_here(monkeypatch, tmp_path, *asked[:-1]) == 143


def test_no_signal_disturbs_the_giving_back(programs: Programs) -> None:
    """Slurm signals a job that it has taken back at once: the sweep and the scontrol that it waits for."""
    programs.write("scontrol", "kill -TERM $PPID $$", f"echo '{shown()}'")
    with undisturbed():
        assert requeue(print, JOB) == ""
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_is_to_be_said_is_said_before_slurm_ends_the_process(
    programs: Programs, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where the batch script is a shell that does not wait, Slurm kills what it began as soon as the job is taken."""
    programs.write("scontrol", f"[ $1 = requeue ] && kill -KILL $PPID; echo '{shown()}'")
    words = "from benchkit.sweep.stopping import requeue; requeue(lambda text: print(text, flush=True))"
    ended = subprocess.run([sys.executable, "-c", words], env={**os.environ, **JOB}, check=False)
    assert (ended.returncode, capfd.readouterr().out) == (
        -signal.SIGKILL,
        "the job goes into Slurm's queue again: scontrol requeue 7\n",
    )


def test_a_signal_gives_the_job_back_once_all_is_saved(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.scontrol(shown())
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    study = write(tmp_path / "tiny.toml", epochs=100000, repeats=1)
    sweep = start(tmp_path, "sweep", study, "--jobs", 1, "--requeue")
    wait_for_line(sweep, r"repeat 0: epoch \d")
    os.kill(sweep.pid, signal.SIGUSR1)
    assert re.search("stopped by SIGUSR1", wait_for_line(sweep, "stopped"))
    assert wait_for_line(sweep, "queue again")
    assert sweep.wait(timeout=PATIENCE) == 0
    end(sweep)
