"""Where a study stands, from a ledger without training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_study import FACTOR, METRICS, finish_all, study_of

from benchkit.ledger import Ledger, read_results
from benchkit.ledger.claims import Queue
from benchkit.plan import make_plan
from benchkit.results import Outcome
from benchkit.sweep.status import status_of


def queued(workspace: Path, repeats: int = 2) -> Queue:
    study = study_of(FACTOR, repeats=repeats)
    ledger, plan = Ledger(workspace), make_plan(study)
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    return Queue(ledger, plan)


def test_a_fresh_study_waits_and_has_no_pace(tmp_path: Path) -> None:
    queued(tmp_path)
    status = status_of(read_results(tmp_path))
    assert [(row.condition, dict(row.states), row.score, row.words(status.metric)) for row in status.rows] == [
        ("0.1", {"waiting": 2}, None, ""), ("0.3", {"waiting": 2}, None, ""),
    ]  # fmt: skip
    assert status.seconds_left is None
    assert status.sentence == f"tiny: 4 waiting; go on with: benchkit sweep tiny --workspace {tmp_path}"


def test_states_scores_failures_and_the_time_left(tmp_path: Path) -> None:
    queue = queued(tmp_path, repeats=3)
    outcomes = [None, Outcome(state="failed", reason="ValueError: x"), Outcome(state="diverged", reason="loss is nan")]
    ledger, plan = Ledger(tmp_path), make_plan(study_of(FACTOR, repeats=3))
    for outcome in outcomes:
        claim = queue.next()
        assert claim is not None
        if outcome is None:
            claim.release()
            claim = Queue(ledger, plan).next()
            assert claim is not None
            cost = done_cost()
            outcome = Outcome(state="done", metrics={"test": METRICS, "val": METRICS}, cost=cost)  # type: ignore[arg-type]
        claim.finish(outcome)
    running = queue.next()
    stale = queue.next()
    assert running is not None and stale is not None
    stale.release()
    status = status_of(read_results(tmp_path))
    assert dict(status.rows[0].states) == {"done": 1, "diverged": 1, "stale": 1}
    assert dict(status.rows[1].states) == {"failed": 1, "running": 1, "waiting": 1}
    assert (status.rows[0].score, status.rows[0].words("test.accuracy")) == (METRICS.accuracy, "33.33 % (n = 1)")
    assert status.failures == ("0.1 repeat 1: diverged: loss is nan", "0.3 repeat 0: failed: ValueError: x")
    assert status.running == ("0.3 repeat 1: running, epoch 0 done",)
    assert status.seconds_left == pytest.approx(2.0 * 3)  # three trials at the two seconds of the one that is done
    assert status.sentence == (
        "tiny: 1 done, 1 diverged, 1 failed, 1 running, 1 stale, 1 waiting; about 6 s of training left"
    )


def done_cost() -> object:
    from benchkit.results import Cost

    return Cost(parameters=1, flops=1, seconds=2.0, images_per_second=1, peak_memory=1, device="cpu", precision="")


def test_a_finished_study_says_so_and_is_plain_json(tmp_path: Path) -> None:
    queued(tmp_path)
    finish_all(Ledger(tmp_path), make_plan(study_of(FACTOR)))
    status = status_of(read_results(tmp_path))
    assert (status.sentence, status.seconds_left) == ("tiny: finished; 4 done", 0.0)
    plain = json.loads(json.dumps(status.plain()))
    assert plain["rows"][0] == {
        "condition": "0.1", "kind": "grid", "states": {"done": 2}, "score": METRICS.accuracy, "scored": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            "benchkit sweep quickstart --smoke -w elsewhere --set train.epochs=60 --only model.norm=bn --jobs 2",
            "benchkit sweep quickstart --smoke --set train.epochs=60 --jobs 2 --workspace {}",
        ),
        (
            "benchkit sweep a.toml --workspace=elsewhere --storage URL",
            "benchkit sweep a.toml --storage URL --workspace {}",
        ),
        ("benchkit sweep 'unclosed", "benchkit sweep tiny --workspace {}"),
    ],
)
def test_the_command_that_goes_on_is_the_sweeps_own_in_this_workspace(tmp_path: Path, given: str, told: str) -> None:
    queued(tmp_path)
    results = replace(read_results(tmp_path), command=given)
    assert status_of(results).sentence.endswith(f"go on with: {told.format(tmp_path)}")
    usual = replace(results, workspace="benchkit-runs")
    assert status_of(usual).sentence.endswith(f"go on with: {told.removesuffix(' --workspace {}')}")
