"""Whole sweeps on GPUs that a CPU stands in for, each with a worker process of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import stand_in_worker
from tiny_study import DATA, FACTOR, Listener, all_facts, facts_of, study_of, sweep_here

import benchkit.sweep.orchestration
from benchkit.ledger import read_results
from benchkit.registry import Registry
from benchkit.sweep import worker
from benchkit.sweep.devices import Device, Devices
from benchkit.sweep.orchestration import Request, sweep
from benchkit.sweep.training import IN_TURNS

GPUS = tuple(Device(kind="cuda", number=number, uuid=f"GPU-{number}{number}", name="Stand-in") for number in (0, 1))


@pytest.mark.parametrize("per_process", [1, 3])
def test_trials_are_recorded_on_two_gpus_by_two_processes(
    per_process: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time in each, or three in turns."""
    monkeypatch.setattr(worker, "COMMAND", stand_in_worker.COMMAND)
    monkeypatch.setattr(benchkit.sweep.orchestration, "devices_of", lambda request: Devices(used=GPUS))
    study = study_of(FACTOR, epochs=4, repeats=3)
    request = Request(study=study, workspace=tmp_path, data_root=DATA, jobs=2 * per_process, per_process=per_process)
    assert +sweep(request, Registry.installed(), Listener()) == {"done": 6}

    trials = read_results(tmp_path, study.name).trials
    assert {one.device for trial in trials for one in trial.devices} == {"Stand-in GPU-00", "Stand-in GPU-11"}
    notes = {note for trial in trials if trial.outcome for note in trial.outcome.notes}
    assert notes == (
        {f"{IN_TURNS} 3 trials of one process, which share its time and memory"} if per_process > 1 else set()
    )
    logs = [(trial.folder / "log.txt").read_text() for trial in trials]
    processes = {found for log in logs for found in re.findall(r"process (\d+) trains on Stand-in GPU", log)}
    assert len(processes) == 2
    assert all(int(re.findall(r"(\d+) steps were replayed", log)[0]) >= 4 * 3 for log in logs)
    paired = {(trial.index, str(facts_of(trial)["history"])) for trial in trials}
    assert len(paired) == 6, "what one trial records is no other's"
    sweep_here(monkeypatch, tmp_path / "single", study)
    assert all_facts(read_results(tmp_path)) == all_facts(read_results(tmp_path / "single"))


SAM = '[[regularizers]]\nname = "sam"\n'


@pytest.mark.parametrize(
    ("tables", "precision", "why"),
    [
        ((), "fp16", "which has no bf16; all steps can be recorded, as far as the networks tell"),
        ((SAM,), "float32", "fp16 is for recorded steps: train.precision = fp16 with a regularizer that takes each"),
    ],
    ids=["recorded", "two passes"],
)
def test_a_gpu_without_bf16_trains_in_fp16_where_all_steps_can_be_recorded(
    tables: tuple[str, ...], precision: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "COMMAND", stand_in_worker.COMMAND)
    monkeypatch.setenv("STAND_IN_PRECISION", "fp16")
    monkeypatch.setattr(benchkit.sweep.orchestration, "devices_of", lambda request: Devices(used=GPUS[:1]))
    study = study_of(*tables, epochs=4, repeats=1, overrides=("train.precision=auto",))
    sweep(Request(study=study, workspace=tmp_path, data_root=DATA, jobs=1), Registry.installed(), Listener())
    (trial,) = read_results(tmp_path).trials
    assert trial.outcome is not None and trial.outcome.cost is not None
    assert trial.outcome.cost.precision == precision
    (found,) = [one for one in read_results(tmp_path).decisions if one.name == "precision"]
    assert found.value == precision and why in found.why
    replayed = int(re.findall(r"(\d+) steps were replayed", (trial.folder / "log.txt").read_text())[0])
    assert (replayed > 0) == (precision == "fp16")
