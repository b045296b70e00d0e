"""Sweeps on a real Slurm: preempted, told by signals on every way that there is, cancelled, as an array."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from slurm_cluster import SlurmCluster
from tiny_study import write

from benchkit.ledger import read_results

pytestmark = pytest.mark.slurm

TEMPLATES = Path(__file__).parents[1] / "templates" / "machines" / "slurm"
SMALL = ("--cpus-per-task=1", "--mem=0")

PACED = """
import os
import signal
import time
from dataclasses import dataclass
from benchkit import card

@card(title="Paced", summary="Ends epochs after so many seconds, from `held` on once GATE is there or told to stop.")
@dataclass(frozen=True)
class Paced:
    seconds: float = 0.2
    held: int = 2

    def stop(self, history):
        time.sleep(self.seconds)
        gate, worker = os.environ.get("GATE", ""), getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        while gate and len(history) >= self.held and not os.path.exists(gate) and not getattr(worker, "asked", False):
            time.sleep(0.05)
        return False

PLUGINS = {"benchkit.regularizers": {"paced": Paced}}
"""


def study_in(folder: Path, epochs: int, repeats: int = 1, held: int = 2) -> Path:
    """Write a study whose epochs take 0.2 s, and what lets `benchkit` find its regularizer.

    Where a job's environment names a GATE, no trial gets beyond the epoch `held` before that file is there.
    """
    folder.mkdir(exist_ok=True)
    (folder / "paced.py").write_text(PACED)
    paced = f'[[regularizers]]\nname = "paced"\nheld = {held}\n'
    return write(folder / "tiny.toml", paced, epochs=epochs, repeats=repeats)


def script(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("\n".join(("#!/bin/bash", "#SBATCH --open-mode=append --requeue", *lines)) + "\n")
    return path


def template(folder: Path, name: str, *options: str) -> Path:
    """Return a copy of a template whose sweeps know the plugin, and train one trial at a time without other options."""
    text = (TEMPLATES / name).read_text()
    path = folder / name
    more = " ".join(("--plugin paced.py", *(options or ("--jobs 1",))))
    path.write_text(re.sub(r"benchkit sweep \"(\$\d)\"", rf'benchkit sweep "\1" {more}', text))
    return path


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("", 0)) as server:
        yield server.getsockname()[1]


def log_of(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("*.log")))


def test_a_preempted_job_goes_on_where_it_was_and_ends(slurm: SlurmCluster, tmp_path: Path) -> None:
    study = study_in(tmp_path, epochs=80, held=40)
    options = (*SMALL, "--nodelist=one", f"--export=ALL,GATE={tmp_path / 'read'}")
    job = slurm.submit(tmp_path, template(tmp_path, "job.sh"), study, options=options)
    slurm.wait(lambda: "epoch 1/" in log_of(tmp_path), "an epoch")
    urgent = script(tmp_path, "urgent", "until [ -e read ]; do sleep 0.2; done")
    slurm.submit(tmp_path, urgent, options=("-phigh", "--exclusive", "--nodelist=one"))
    slurm.wait(lambda: "stopped by SIGTERM; nothing is lost" in log_of(tmp_path), "the preempted job's end")
    (trial,) = read_results(tmp_path / "benchkit-runs").trials
    (tmp_path / "read").touch()
    slurm.wait(lambda: "goes on after" in log_of(tmp_path), "the job that goes on")
    saved = int(re.findall(r"goes on after epoch (\d+)", log_of(tmp_path))[0])
    # As in test_stopping: the signal may come between an epoch's record and its checkpoint, which holds it as well.
    assert saved in (len(trial.history), len(trial.history) + 1), "each epoch that had ended"
    slurm.wait(lambda: slurm.fact(job, "JobState") in ("COMPLETED", "FAILED"), "its end")
    assert (slurm.fact(job, "JobState"), slurm.fact(job, "Restarts")) == ("COMPLETED", "1")
    (trial,) = read_results(tmp_path / "benchkit-runs").trials
    assert trial.state == "done" and len(trial.history) == 80


WAYS = {
    "exec": (("exec benchkit {sweep} --requeue",), ("--signal=TERM", "--batch")),
    "all of it": (("exec benchkit {sweep} --requeue",), ("--signal=TERM", "--full")),
    "srun": (('srun --cpus-per-task="$SLURM_CPUS_PER_TASK" benchkit {sweep} --requeue',), ("--signal=USR2",)),
    "trap": (
        ("benchkit {sweep} --requeue & sweep=$!", "trap 'kill -USR1 \"$sweep\"' USR1", 'wait "$sweep"; wait "$sweep"'),
        ("--signal=USR1", "--batch"),
    ),
}


def _signal(slurm: SlurmCluster, folder: Path, *words: str) -> None:
    """Let Slurm signal a job, once more where that was lost: a sweep that heard it has ended after ten seconds."""
    for _ in range(3):
        slurm.run("scancel", *words, check=True)
        with contextlib.suppress(AssertionError):
            slurm.wait(lambda: "stopped by" in log_of(folder), "the word", 20)
            return


def test_every_way_of_a_signal_saves_the_epochs_and_gives_the_job_back(slurm: SlurmCluster, tmp_path: Path) -> None:
    jobs = {}
    for way, (lines, _) in WAYS.items():
        folder = tmp_path / way.replace(" ", "-")
        study = study_in(folder, epochs=100000)
        words = [line.format(sweep=f"sweep {study} --plugin paced.py --jobs 1") for line in lines]
        jobs[way] = slurm.submit(folder, script(folder, "way", *words), options=(*SMALL, "--output=way.log"))
    for way, (_, signalled) in WAYS.items():
        folder, job = tmp_path / way.replace(" ", "-"), jobs[way]
        slurm.wait(lambda: re.search(r"epoch \d", log_of(folder)), f"{way}: an epoch")  # noqa: B023
        _signal(slurm, folder, *signalled, job)
        slurm.wait(lambda: slurm.fact(job, "Restarts") == "1", f"{way}: the job that is queued again")  # noqa: B023
        slurm.run("scancel", job, check=True)
        log = log_of(folder)
        assert re.search("stopped by SIG(TERM|USR1|USR2); nothing is lost", log), way
        assert way == "srun" or "the job goes into Slurm's queue again" in log, (
            "srun passes on nothing of what comes last"
        )
        assert "failed" not in log and "ended the process" not in log, way
        (trial,) = read_results(folder / "benchkit-runs").trials
        assert trial.state in ("stale", "running") and trial.history, way  # Slurm may have begun it again


def test_a_cancelled_job_saves_and_stays_away(slurm: SlurmCluster, tmp_path: Path) -> None:
    study = study_in(tmp_path, epochs=100000)
    job = slurm.submit(tmp_path, template(tmp_path, "job.sh"), study, options=SMALL)
    slurm.wait(lambda: re.search(r"epoch \d", log_of(tmp_path)), "an epoch")
    slurm.run("scancel", job, check=True)
    slurm.wait(lambda: slurm.fact(job, "JobState") == "CANCELLED", "its end")
    assert slurm.fact(job, "Restarts") == "0"
    slurm.wait(lambda: "the job does not come back: " in log_of(tmp_path), "the word")
    (trial,) = read_results(tmp_path / "benchkit-runs").trials
    assert trial.state == "stale" and trial.history


@pytest.mark.postgres
def test_one_task_of_an_array_is_given_back_alone_and_all_trials_are_trained_once(
    slurm: SlurmCluster, postgres: PostgresServer, tmp_path: Path
) -> None:
    study = study_in(tmp_path, epochs=30, repeats=5)
    ledger = postgres.database("slurm_array")
    arguments = (study, tmp_path / "benchkit-runs", ledger)
    gate = tmp_path / "gate"
    options = (*SMALL, "--array=1-3", f"--export=ALL,GATE={gate}")
    array = slurm.submit(tmp_path, template(tmp_path, "array.sh"), *arguments, options=options)
    tasks = [f"{array}_{number}" for number in (1, 2, 3)]
    slurm.wait(lambda: len(re.findall("epoch 1/", log_of(tmp_path))) == 3, "an epoch of each task")
    numbers = {slurm.run("squeue", "--noheader", "--format=%A", f"--jobs={task}").strip(): task for task in tasks}
    told = numbers[array]  # one of the tasks has the number of the whole array
    _signal(slurm, tmp_path, "--signal=USR1", "--batch", told)
    slurm.wait(lambda: "queue again" in log_of(tmp_path), "the queue")
    gate.touch()  # none has trained on until now
    ended = ("COMPLETED", "FAILED")
    slurm.wait(lambda: all(slurm.fact(task, "JobState") in ended for task in tasks), "all tasks")
    assert [slurm.fact(task, "JobState") for task in tasks] == ["COMPLETED"] * 3, log_of(tmp_path)
    assert [slurm.fact(task, "Restarts") for task in tasks] == ["1" if task == told else "0" for task in tasks]
    results = read_results(tmp_path / "benchkit-runs", storage=ledger)
    assert sorted((trial.index, trial.state) for trial in results.trials) == [(index, "done") for index in range(5)]


def test_a_step_has_the_cpus_that_were_asked_for(slurm: SlurmCluster, tmp_path: Path) -> None:
    """`srun --exact` of Slurm 22.05 to 23.02 gives a step one CPU unless it is told; two are enough to tell."""
    count = 'python -c "from benchkit.sweep.devices import available_cores; print(available_cores())"'
    lines = ('srun --exact --cpus-per-task="$SLURM_CPUS_PER_TASK" ' + count,)
    slurm.submit(
        tmp_path,
        script(tmp_path, "cpus", *lines),
        options=(f"--cpus-per-task={slurm.cpus}", "--wait", "--output=cpus.log"),
    )
    assert log_of(tmp_path).split() == [str(slurm.cpus)]


@pytest.mark.ray
def test_a_ray_cluster_on_the_allocation_is_preempted_as_a_whole_and_trains_all(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    study = study_in(tmp_path, epochs=30, repeats=4, held=20)
    before = set(Path("/tmp").glob("bk-??????"))
    gate = tmp_path / "gate"
    options = (*SMALL, "--nodes=2", f"--export=ALL,GATE={gate}")
    job = slurm.submit(tmp_path, template(tmp_path, "ray.sh", "--ship-code"), study, options=options)
    slurm.wait(lambda: "epoch 1/" in log_of(tmp_path), "an epoch")
    slurm.submit(tmp_path, script(tmp_path, "urgent", "sleep 1"), options=("-phigh", "--exclusive", "--nodes=2"))
    slurm.wait(lambda: "goes on after epoch" in log_of(tmp_path), "a trial that goes on")
    gate.touch()  # none has ended until now
    assert "Aborted" not in log_of(tmp_path), "Ray's own answer to SIGTERM ends the sweep in mid-sentence"
    slurm.wait(lambda: slurm.fact(job, "JobState") in ("COMPLETED", "FAILED"), "its end")
    assert (slurm.fact(job, "JobState"), slurm.fact(job, "Restarts")) == ("COMPLETED", "1"), log_of(tmp_path)
    trials = read_results(tmp_path / "benchkit-runs").trials
    assert [(trial.state, trial.attempt, len(trial.history)) for trial in trials] == [("done", 0, 30)] * 4
    assert set(Path("/tmp").glob("bk-??????")) <= before, "the cluster's folder is gone with it"


@pytest.mark.ray
def test_a_head_that_cannot_start_fails_the_job(slurm: SlurmCluster, tmp_path: Path, taken_port: int) -> None:
    study = study_in(tmp_path, epochs=1)
    impatient = "RAY_gcs_server_port_wait_time_s=3"  # Ray tries for as long, 20 s by itself
    options = (*SMALL, "--nodes=1", f"--export=ALL,PORT={taken_port},{impatient}")
    job = slurm.submit(tmp_path, template(tmp_path, "ray.sh"), study, options=options)
    slurm.wait(lambda: slurm.fact(job, "JobState") in ("COMPLETED", "FAILED"), "its end")
    assert (slurm.fact(job, "JobState"), slurm.fact(job, "ExitCode")) == ("FAILED", "1:0")
    assert "the head of the Ray cluster did not start" in log_of(tmp_path)
    assert not (tmp_path / "benchkit-runs").exists()


@pytest.mark.long
def test_a_job_out_of_time_saves_and_comes_back_until_all_is_there(slurm: SlurmCluster, tmp_path: Path) -> None:
    """A minute is the least that Slurm knows; the sweep stops by itself before it is over."""
    study = study_in(tmp_path, epochs=400)
    job = slurm.submit(tmp_path, template(tmp_path, "job.sh"), study, options=(*SMALL, "--time=1"))
    slurm.wait(lambda: slurm.fact(job, "JobState") in ("COMPLETED", "FAILED", "TIMEOUT"), "its end", 600)
    assert slurm.fact(job, "JobState") == "COMPLETED" and int(slurm.fact(job, "Restarts")) >= 1
    assert "as asked; the same command goes on" in log_of(tmp_path) and "SIGTERM" not in log_of(tmp_path)
    (trial,) = read_results(tmp_path / "benchkit-runs").trials
    assert (trial.state, trial.attempt, len(trial.history)) == ("done", 0, 400)
