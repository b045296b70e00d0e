"""Values to JSON and back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_study import FACTOR, METRICS, RECORD, SEARCH, study_of

from benchkit.errors import BenchkitError, LedgerError
from benchkit.plan import make_plan
from benchkit.results import Cost, EpochRecord, Outcome
from benchkit.storage import decode, decode_lines, encode
from benchkit.study import SearchRange, Study
from benchkit.sweep.messages import (
    ConcurrencyTried,
    EpochEnded,
    Event,
    Job,
    Probed,
    RunReady,
    RunTimed,
    Said,
    TrialEnded,
    TrialStarted,
    TrialTaken,
    WorkerFailed,
    WorkerIdle,
    WorkerLost,
    WorkerReady,
    dump,
    event_of,
)


def through_json(value: object) -> object:
    return json.loads(json.dumps(encode(value)))


@pytest.mark.parametrize("loss", [0.1, 1, 5e-324, math.inf, -math.inf, math.nan])
def test_lines_are_read_as_their_values_one_by_one_are(loss: float) -> None:
    records = [
        replace(RECORD, val_loss=value, node="\u00fc\u2028", observed={"a.b": value}) for value in (0.5, loss, 1e-300)
    ]
    lines = [json.dumps(encode(record) | {"newer": [1]}) for record in records]
    found = decode_lines(EpochRecord, "".join(f"{line}\n" for line in lines).encode(), "the epochs")
    assert repr(found) == repr(tuple(decode(EpochRecord, json.loads(line)) for line in lines))
    assert decode_lines(EpochRecord, b"") == ()


def test_lines_that_are_none_are_told_with_their_place() -> None:
    line = json.dumps(encode(RECORD))
    for bad, words in (
        (line.replace('"epoch": 1', '"epoch": "x"'), r"the epochs\[1\].epoch: expected a whole number, got text"),
        ("{}", r"the epochs\[1\] has no 'epoch'"),
    ):
        with pytest.raises(BenchkitError, match=words):
            decode_lines(EpochRecord, f"{line}\n{bad}\n".encode(), "the epochs")
    for content in (b"{\n", line.encode() + b"\xff\n"):
        with pytest.raises(ValueError, match=r"Expecting|codec"):
            decode_lines(EpochRecord, content)


def test_a_study_and_a_job_come_back_as_they_were(tmp_path: Path) -> None:
    part = (
        '[[published]]\nsource = "x"\n'
        'rows = [{ when = { "train.optimizer.lr" = "0.1" }, metric = "test.loss", value = 1, n = 3 }]\n'
        '[report]\nfigures = ["a", { name = "b", k = [1, 2] }]\n'
    )
    study = study_of(FACTOR, SEARCH, part, overrides=("train.epochs=4",), path=tmp_path / "x.toml")
    assert decode(Study, through_json(study)) == study  # type: ignore[arg-type]
    job = Job(
        task="train", study=study, conditions=make_plan(study).conditions, data_root=tmp_path,
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


DONE = {"state": "done"}
LATER = encode(RECORD)


@pytest.mark.parametrize(
    ("cls", "value", "told"),
    [
        (Outcome, {**DONE, "test_reads": "3"}, "a.json.test_reads: expected a whole number, got text"),
        (Outcome, {"state": "perfect"}, "a.json.state is 'perfect', which is none of its values"),
        (Outcome, {**DONE, "cost": {"parameters": 1}}, "a.json.cost has no 'flops'"),
        (Outcome, {**DONE, "notes": ["a", 3]}, "a.json.notes[1]: expected text, got a whole number"),
        (Outcome, [1], "a.json: expected a table, got a list"),
        (Outcome, None, "a.json: expected a table, got nothing"),
        (
            Outcome,
            {"state": "done", "test_reads": True},
            "a.json.test_reads: expected a whole number, got true or false",
        ),
        (
            EpochRecord,
            {**encode(RECORD), "seconds": 10**400},
            "a.json.seconds: expected a number that 64 bits can hold",
        ),
        (EpochRecord, {**LATER, "seconds": "fast"}, "a.json.seconds: expected a number, got text"),
    ],
)
def test_what_has_another_type_is_one_error_with_its_place(cls: type, value: object, told: str) -> None:
    with pytest.raises(LedgerError) as caught:
        decode(cls, value, "a.json", error=LedgerError)
    assert str(caught.value) == told


def test_numbers_that_json_lacks_are_read_and_whole_numbers_stay_whole() -> None:
    record = decode(EpochRecord, {**encode(RECORD), "val_loss": "nan", "train_loss": "-inf", "seconds": "inf"})
    assert math.isnan(record.val_loss) and (record.train_loss, record.seconds) == (-math.inf, math.inf)
    spanned = decode(SearchRange, {"path": "x", "low": 1, "high": 9, "step": 2})
    assert [repr(number) for number in (spanned.low, spanned.high, spanned.step)] == ["1", "9", "2.0"]
    named = {"parameters": 1, "flops": 1, "images_per_second": 1, "peak_memory": 1, "device": "inf", "precision": "nan"}
    cost = decode(Cost, {**named, "seconds": "inf"})
    assert (cost.device, cost.precision, cost.seconds) == ("inf", "nan", math.inf)


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
        Said(words="4 trials at once\n"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_events_travel_as_single_lines(event: Event) -> None:
    line = dump(event)
    assert line.index(b"\n") == len(line) - 1
    assert event_of(line) == event
