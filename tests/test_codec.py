"""Values to JSON and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_study import FACTOR, METRICS, RECORD, SEARCH, study_of

from benchkit.codec import decode, encode
from benchkit.plan import make_plan
from benchkit.results import Cost, Outcome
from benchkit.study import Study
from benchkit.sweep.concurrency import Concurrency, ConcurrencyLevel
from benchkit.sweep.messages import (
    ConcurrencyChosen,
    ConcurrencyTried,
    EpochEnded,
    Event,
    Job,
    Probed,
    RunReady,
    RunTimed,
    TrialEnded,
    TrialStarted,
    TrialTaken,
    WorkerFailed,
    WorkerIdle,
    WorkerLost,
    WorkerReady,
    dump,
    load,
)


def through_json(value: object) -> object:
    return json.loads(json.dumps(encode(value)))


def test_a_study_and_a_job_come_back_as_they_were(tmp_path: Path) -> None:
    part = (
        '[[published]]\nsource = "x"\n'
        'rows = [{ when = { "train.optimizer.lr" = "0.1" }, metric = "test.loss", value = 1, n = 3 }]\n'
        '[report]\nfigures = ["a", { name = "b", k = [1, 2] }]\n'
    )
    study = study_of(FACTOR, SEARCH, part, overrides=("train.epochs=4",), path=tmp_path / "x.toml")
    assert decode(Study, through_json(study)) == study  # type: ignore[arg-type]
    job = Job(
        task="train", study=study, conditions=make_plan(study).conditions, workspace=tmp_path, data_root=tmp_path,
        plugins=(tmp_path / "p.py",),
    )  # fmt: skip
    assert decode(Job, through_json(job)) == job  # type: ignore[arg-type]


def test_an_outcome_comes_back_to_the_last_bit() -> None:
    cost = Cost(
        parameters=1, flops=2, seconds=0.1, images_per_second=1e9, peak_memory=3.0, device="cpu", precision="bf16"
    )
    outcome = Outcome(state="done", metrics={"val": METRICS}, cost=cost, notes=("a",), environment={"a": {"b": [1]}})
    back = decode(Outcome, through_json(outcome))  # type: ignore[arg-type]
    assert repr(back) == repr(outcome)  # by text: nan is not equal to itself
    assert decode(Outcome, through_json(Outcome(state="failed"))) == Outcome(state="failed")  # type: ignore[arg-type]


def test_unknown_keys_of_a_newer_version_are_left_out() -> None:
    assert decode(Outcome, {"state": "done", "new": 1}) == Outcome(state="done")


@pytest.mark.parametrize(
    "event",
    [
        WorkerReady(device="cpu"),
        TrialTaken(condition="a\n\x1b[31m", phase="grid", index=0, key="k", number=1),
        TrialStarted(condition="a", phase="grid", index=0, key="k", number=1, epochs=3, epoch=1),
        EpochEnded(record=RECORD),
        TrialEnded(
            condition="a", phase="grid", index=0, state="done", reason="", seconds=0.5, scores={"val.loss": 0.1}
        ),
        WorkerIdle(),
        WorkerFailed(message='"\n'),
        WorkerLost(code=-9),
        Probed(key="k", seconds=0.1, checkpoint_bytes=10, kept_bytes=5),
        RunReady(images=45000, peak_bytes=2**40, free_bytes=2**41),
        RunTimed(images_per_second=0.1),
        ConcurrencyTried(at_once=4),
        ConcurrencyChosen(
            at_once=1,
            concurrency=Concurrency(device="cuda:0", levels=(ConcurrencyLevel(at_once=1, rate=0.1),)),
            before=True,
        ),
    ],
    ids=lambda event: type(event).__name__,
)
def test_events_travel_as_single_lines(event: Event) -> None:
    line = dump(event)
    assert "\n" not in line
    assert load(line) == event
