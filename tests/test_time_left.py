"""A sweep that has an end: no epoch is begun that would not end, and be saved, before it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_seats import DONE, Script, ScriptedSeats, saved, scripted_sweep
from tiny_study import DATA, RECORD, study_of

from benchkit.plan import make_plan
from benchkit.sweep.messages import (
    CheckpointTaken,
    EpochEnded,
    Event,
    Job,
    Seat,
    Train,
    TrialBegan,
    TrialFinished,
    TrialGivenBack,
)
from benchkit.sweep.work import WorkerTasks

CPU = Seat(node="here", kind="cpu", device="a processor")


def test_no_epoch_is_begun_that_would_not_end_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(repeats: int, script: Script, **more: float) -> dict[str, int]:
        return dict(scripted_sweep(monkeypatch, tmp_path, study_of(repeats=repeats), [CPU], script, **more)[0])

    def script(order: Train, number: int) -> list[Event]:
        named = {"trial": order.trial, "lease": order.lease}
        slow = EpochEnded(**named, record=replace(RECORD, seconds=1000.0))
        return [TrialBegan(**named, epochs=1), slow, TrialFinished(**named, outcome=DONE)]

    states = trained(3, script, seconds=500.0)
    assert states == {"done": 1, "stale": 2} or states == {"done": 1, "stale": 1, "waiting": 1}
    assert len(ScriptedSeats.orders) == 1 and 0 < ScriptedSeats.orders[0][0].seconds <= 500
    assert trained(3, script) == {"done": 3}

    def late(order: Train, number: int) -> list[Event]:
        return [*saved(order), TrialGivenBack(trial=order.trial, lease=order.lease, late=True)]

    states = trained(4, late, seconds=500.0)
    assert states == {"done": 3, "stale": 1} and len(ScriptedSeats.orders) == 1


def test_a_worker_saves_its_epoch_and_begins_none_that_would_not_end_in_time() -> None:
    study = study_of(epochs=4)
    (condition,) = make_plan(study).conditions
    work = WorkerTasks()
    list(work.do(Job(task="train", study=study, data_root=DATA, device="cpu")))

    def told(content: bytes, seconds: float) -> list[Event]:
        return list(work.do(replace(order, content=content, seconds=seconds)))

    order = Train(trial=1, lease=1, settings=dict(condition.settings), phase="grid", index=0, decided={})
    first = told(b"", 0.0)  # how long an epoch takes nobody knows before the first
    assert [type(event).__name__ for event in first] == [
        "TrialBegan",
        "EpochEnded",
        "CheckpointTaken",
        "TrialGivenBack",
    ]
    checkpoint = first[2]
    assert isinstance(checkpoint, CheckpointTaken)
    none = told(checkpoint.content, 0.0)
    assert [type(event).__name__ for event in none] == ["TrialBegan", "TrialGivenBack"]
    rest = [event.record for event in told(checkpoint.content, math.inf) if isinstance(event, EpochEnded)]
    whole = [event.record for event in told(b"", math.inf) if isinstance(event, EpochEnded)]
    assert [record.train_loss for record in rest] == [record.train_loss for record in whole[1:]]
