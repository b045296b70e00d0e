"""Whether steps are compiled: by planned work and a table alone, once for a study."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_study import FACTOR, METRICS, SEARCH, finish_all, study_of, sweep_here

from benchkit.ledger import Ledger, read_results
from benchkit.ledger.ledger import decisions_of
from benchkit.plan import make_plan
from benchkit.results import WAS_COMPILED, Cost, Outcome
from benchkit.sweep import compiling
from benchkit.sweep.compiling import TABLE, VALIDATION, ConditionWork, Row, choice, planned_work, rows_of
from benchkit.sweep.decided import decide_as_trained, decide_training
from benchkit.sweep.messages import Seat

SEAT = Seat(kind="cpu", instructions="avx2")
ROW = Row(
    kind="avx2", model="resnet", norm="bn", batch_size=100, precision="float32", threads=1, shape=(32, 32, 3),
    eager=0.1, share=0.8, compiling=50.0, later=2.0, options={"n": 2},
)  # fmt: skip
WORK = ConditionWork(
    model="resnet", norm="bn", batch_size=100, precision="auto", threads=1, shape=(32, 32, 3), trials=10, steps=1000
)  # fmt: skip


def test_compiling_is_taken_where_it_saves_twice_what_it_takes() -> None:
    """Worked by hand: a step saves 0.02 s; 10 trials take 10 x (2 + 20 x 0.1) = 40 s and one code 50 s: 180 s is twice.

    So from 9,000 steps on, 900 a trial, it is taken.
    """
    assert VALIDATION == 20
    enough = choice([replace(WORK, steps=901)], SEAT, [ROW])
    assert (
        enough.value == "always" and enough.why == "compiling saves 180 s of the planned steps on avx2 and takes 90 s"
    )
    assert choice([replace(WORK, steps=899)], SEAT, [ROW]).value == "never"
    two = [replace(WORK, steps=901, step=step) for step in ("one", "another")]
    assert choice([replace(two[0], trials=5), replace(two[1], trials=5)], SEAT, [ROW]).value == "never"
    assert choice([replace(two[0], trials=5), replace(two[0], trials=5)], SEAT, [ROW]).value == "always"
    assert choice([replace(WORK, steps=901, codes=10)], SEAT, [ROW]).value == "never"
    assert choice([WORK], SEAT, [replace(ROW, share=1.05)]).value == "never"
    assert choice([], SEAT, [ROW]).value == "never"


@pytest.mark.parametrize(
    "other",
    [
        {"model": "mlp"},
        {"norm": "gn"},
        {"batch_size": 8},
        {"precision": "bf16"},
        {"threads": 2},
        {"shape": (64, 64, 3)},
        {"optimizer": "timm:lion"},
        {"options": {"n": 9}},
        {"options": {"width": 2}},
    ],
    ids=str,
)
def test_what_the_table_lacks_is_eager_and_said(other: dict[str, Any]) -> None:
    found = choice([WORK, replace(WORK, **other)], SEAT, [ROW])
    assert found.value == "never" and "the table of compiled steps has no row for" in found.why
    assert choice([WORK, replace(WORK, options={"n": 2})], SEAT, [ROW]).value == "always"


def test_devices_of_every_kind_are_asked_for_alike() -> None:
    cuda = Seat(kind="cuda", precision="bf16")
    assert choice([WORK], cuda, [replace(ROW, precision="bf16")]).value == "never"
    assert choice([WORK], replace(SEAT, instructions="avx512"), [ROW]).value == "never"
    assert choice([WORK], cuda, [replace(ROW, kind="cuda", precision="bf16")]).value == "always"
    lacking = choice([WORK], replace(SEAT, lacks="Python.h (on Debian: apt install python3-dev)"), [ROW])
    assert lacking.value == "never" and "lacks Python.h" in lacking.why


DATA = {"name": "blobs", "image_shape": [8, 8, 3], "counts": {"train": 64, "val": 16, "test": 16}}


def test_planned_work_is_the_whole_study_s() -> None:
    """By hand: 6 epochs of 64 images at batch 24 are 6 x 2 whole steps; 3 repeats each, and 5 trials of the search."""
    study = study_of(FACTOR, SEARCH, epochs=6, repeats=3, overrides=("train.batch_size=24",))
    plan = make_plan(study)
    works = planned_work(plan, {"sets": [DATA]})
    assert [work.steps for work in works] == [12] * len(plan.conditions)
    assert [work.trials for work in works] == [plan.count(condition) for condition in plan.conditions]
    assert {work.trials for work in works} == {3, study.search.trials if study.search else 0}
    assert {work.shape for work in works} == {(8, 8, 3)} and {work.batch_size for work in works} == {24}


def test_trials_that_differ_in_the_rate_alone_share_their_code() -> None:
    def codes(path: str, span: str) -> list[int]:
        study = study_of(re.sub("space.*", f'space."{path}" = {span}', SEARCH))
        return [work.codes for work in planned_work(make_plan(study), DATA) if work.trials > 1]

    free, own = codes("train.optimizer.lr", "[0.1, 0.2]"), codes("train.batch_size", "[8, 16]")
    assert set(free) == {1} and max(own) > 1


def decided(ledger: Ledger, name: str = "tiny") -> str:
    return decisions_of(ledger, name)["compiling"].value


def always(works: Any, seat: Seat, table: Any = None) -> compiling.Choice:
    return compiling.Choice(value="always", why="a test says so")


def test_a_workspace_with_trials_keeps_what_they_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchkit.sweep.decided.choice", always)
    for device, value in {"cpu, 1 thread": "never", "NVIDIA H200": "as timed"}.items():
        study = study_of(epochs=1, repeats=2)
        ledger, plan = Ledger(tmp_path / value), make_plan(study)
        ledger.register(plan, {}, "")
        ledger.enqueue(plan)
        cost = Cost(
            parameters=7, flops=1, seconds=2.0, images_per_second=1, peak_memory=1, device=device, precision="float32"
        )
        finish_all(
            ledger,
            plan,
            lambda claim, cost=cost: Outcome(state="done", metrics={"val": METRICS, "test": METRICS}, cost=cost),
        )
        decide_as_trained(ledger, plan)
        assert decide_training(ledger, study, Seat(kind="cpu"), "")["compiling"] == value == decided(ledger)


@pytest.mark.parametrize("lacking", [False, True])
def test_a_sweep_compiles_where_that_is_decided_and_a_later_one_obeys(
    lacking: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler is missing, so that nothing is compiled here: that each trial was to be shows in its notes."""
    monkeypatch.setenv("CXX", "/nonexistent")
    if not lacking:
        monkeypatch.setattr("benchkit.sweep.decided.choice", always)
    for repeats in (1, 2):
        sweep_here(monkeypatch, tmp_path, study_of(epochs=1, repeats=repeats))
        monkeypatch.undo()
        monkeypatch.setenv("CXX", "/nonexistent")
    results = read_results(tmp_path)
    (found,) = [one for one in results.decisions if one.name == "compiling"]
    assert found.value == ("never" if lacking else "always") and "train.compile = auto on cpu: " in found.why
    assert ("a C++ compiler" in found.why) == lacking
    for trial in results.trials:
        assert trial.outcome is not None and WAS_COMPILED not in trial.outcome.notes
        assert any(note.startswith("compiled model not used") for note in trial.outcome.notes) == (not lacking)


def test_the_table_in_the_package_is_whole() -> None:
    rows = rows_of(TABLE)
    assert len({row.network for row in rows}) == len(rows) == len(json.loads(TABLE.read_text()))
    for row in rows:
        assert 0 < row.share < 3 and row.eager > 0 and row.compiling > row.later > 0 and row.note, row
