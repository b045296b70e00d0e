"""Taking trials from the ledger: each once, interrupted ones first, whoever asks."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from tiny_study import FACTOR, METRICS, RECORD, SEARCH, finish_all, optunas_storage, queue_of, study_of, text_of

from benchkit.errors import LedgerError
from benchkit.ledger import Ledger
from benchkit.ledger.claims import Claim, Queue
from benchkit.ledger.leases import Holder
from benchkit.ledger.trials import TrialFolder
from benchkit.results import Cost, Outcome

TAKE = """
import sys
from pathlib import Path
from benchkit.ledger.claims import Queue
from benchkit.ledger import Ledger
from benchkit.plan import make_plan
from benchkit.results import Outcome
from benchkit.study.studyfile import parse_study
plan = make_plan(parse_study(Path(sys.argv[2]).read_text(), name="tiny"))
ledger = Ledger(Path(sys.argv[1]))
ledger.register(plan, {"sets": []}, "")
ledger.enqueue(plan)
queue = Queue(ledger, plan)
while claim := queue.next():
    print(claim.condition.label, claim.index, flush=True)
    if sys.argv[3] == "die":
        import os
        os.kill(os.getpid(), 9)
    claim.finish(Outcome(state="failed", reason="x"))
"""


def named(claim: Claim | None) -> tuple[str, int]:
    assert claim is not None
    return claim.condition.label, claim.index


def test_trials_are_taken_in_the_plans_order_each_once(tmp_path: Path) -> None:
    ledger, plan, queue = queue_of(tmp_path, study_of(FACTOR))
    other = Queue(Ledger(tmp_path), plan)
    claims = [queue.next(), other.next(), queue.next(), other.next()]
    assert [named(claim) for claim in claims] == [("0.1", 0), ("0.3", 0), ("0.1", 1), ("0.3", 1)]
    assert queue.next() is None and other.next() is None
    assert ledger.states(plan)["running"] == 4


def test_a_trial_that_could_not_be_handed_out_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, plan, queue = queue_of(tmp_path, study_of(repeats=1))

    def away(*given: object) -> None:
        raise LedgerError("the database is away")

    monkeypatch.setattr(Holder, "take", away)
    with pytest.raises(LedgerError) as caught:
        queue.next()
    monkeypatch.undo()
    assert Queue(ledger, plan).next() is not None and caught.value  # while the error knows its frames


def test_trials_that_are_not_wanted_yet_keep_their_places(tmp_path: Path) -> None:
    _, _, queue = queue_of(tmp_path, study_of(FACTOR))
    assert named(queue.next(lambda condition: condition.label != "0.1")) == ("0.3", 0)
    assert [named(queue.next()) for _ in range(3)] == [("0.1", 0), ("0.1", 1), ("0.3", 1)]


def test_a_released_trial_is_stale_and_is_taken_first(tmp_path: Path) -> None:
    ledger, plan, queue = queue_of(tmp_path, study_of(FACTOR))
    first = queue.next()
    second = queue.next()
    assert first is not None and second is not None
    second.release()
    assert ledger.states(plan) == {"running": 1, "stale": 1, "waiting": 2, "missing": 0}
    again = Queue(ledger, plan).next()
    assert named(again) == ("0.3", 0)
    assert again is not None and again.trial.number == second.trial.number


def test_the_trial_of_a_killed_process_is_stale_at_once(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(text_of(FACTOR, repeats=8))
    dead = subprocess.run(
        [sys.executable, "-c", TAKE, tmp_path / "runs", tmp_path / "x.toml", "die"], capture_output=True, check=False
    )
    assert dead.returncode == -9 and dead.stdout == b"0.1 0\n", dead.stderr
    ledger, plan, queue = queue_of(tmp_path / "runs", study_of(FACTOR))
    assert ledger.states(plan)["stale"] == 1
    assert named(queue.next()) == ("0.1", 0)


def test_processes_that_start_at_the_same_instant_share_one_new_ledger(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(text_of(FACTOR, repeats=8))
    start = [sys.executable, "-c", TAKE, str(tmp_path / "runs"), str(tmp_path / "x.toml"), "finish"]
    running = [subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    told = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * 4, [error for _, error in told]
    taken = [line for out, _ in told for line in out.splitlines()]
    assert sorted(taken) == sorted(f"{label} {index}" for label in ("0.1", "0.3") for index in range(8))
    with optunas_storage(tmp_path / "runs") as storage:
        name = next(name for name in optuna.get_all_study_names(storage) if "/0.1@" in name)
        handle = optuna.load_study(study_name=name, storage=storage)
        assert [trial.state for trial in handle.trials] == [TrialState.FAIL] * 8


def test_a_trial_that_another_worker_has_finished_since_it_was_seen_is_passed_over(tmp_path: Path) -> None:
    study = study_of(repeats=4)
    _, _, queue = queue_of(tmp_path, study)
    held = queue.next()  # it has seen the others wait; a claim that nobody holds is given up
    assert named(held)[1] == 0
    _, _, other = queue_of(tmp_path, study)
    claim = other.next()
    assert claim is not None and claim.index == 1
    claim.finish(Outcome(state="failed", reason="x"))
    assert named(queue.next())[1] == 2


def test_a_sweep_that_holds_all_that_is_left_reads_no_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, plan, queue = queue_of(tmp_path, study_of(FACTOR, repeats=2))
    claims = [queue.next() for _ in range(4)]
    asked, locks = [], []
    attempts, owned = Ledger.attempts, TrialFolder.owned
    monkeypatch.setattr(Ledger, "attempts", lambda *given: asked.append(given) or attempts(*given))
    monkeypatch.setattr(TrialFolder, "owned", lambda folder: locks.append(folder) or owned(folder))
    assert queue.next() is None and asked == []
    ledger.open(plan.study, plan.conditions[1]).enqueue_trial({}, user_attrs={"index": 1, "attempt": 1})
    queue_of_another = Queue(Ledger(tmp_path), plan)
    taken = queue_of_another.next()
    assert taken is not None and named(taken) == ("0.3", 1) and taken.trial.number == 2
    locks.clear()
    assert queue.next() is None, "another sweep has what is left"
    assert len(asked) == 2 and [folder.path.name for folder in locks] == ["0002"], "our own are known to be alive"
    taken.release()
    again = queue.next()
    assert again is not None and again.trial.number == 2
    assert all(claim is not None and claim.holds() for claim in claims)


def test_a_trial_that_could_not_be_given_back_in_the_ledger_is_taken_again(tmp_path: Path) -> None:
    _, _, queue = queue_of(tmp_path, study_of(repeats=2))
    first, second = queue.next(), queue.next()
    assert first is not None and second is not None and queue.next() is None
    first._held.holder._forget(first.trial._trial_id, first.lease)  # as where the database did not answer
    first._unlock()
    again = queue.next()
    assert again is not None and (again.trial.number, again.lease) == (first.trial.number, 2)
    assert queue.next() is None


def test_a_trial_queued_twice_on_two_machines_counts_once(tmp_path: Path) -> None:
    ledger, plan, _ = queue_of(tmp_path, study_of(FACTOR, repeats=1))
    for condition in plan.conditions:
        ledger.open(plan.study, condition).enqueue_trial({}, user_attrs={"index": 0, "attempt": 0})
    taken = []
    queue = Queue(ledger, plan)
    while claim := queue.next():
        taken.append(named(claim))
        claim.finish(Outcome(state="failed", reason="x"))
    assert taken == [("0.1", 0), ("0.3", 0)]
    assert ledger.states(plan) == {"failed": 2, "missing": 0}


def test_trials_that_others_put_into_the_storage_are_left_alone(tmp_path: Path) -> None:
    ledger, plan, queue = queue_of(tmp_path, study_of(repeats=1))
    ledger.open(plan.study, plan.conditions[0]).enqueue_trial({"x": 1})
    claim = queue.next()
    assert named(claim) == ("default", 0)
    assert queue.next() is None


def test_what_a_search_chose_stays_after_an_interruption(tmp_path: Path) -> None:
    study = study_of(SEARCH, repeats=1)
    expected = []
    for interrupted in (False, True):
        ledger, plan, queue = queue_of(tmp_path / str(interrupted), study)
        chosen = []
        while claim := queue.next():
            params = dict(claim.params)
            if interrupted:
                claim.release()
                queue = Queue(ledger, plan)
                claim = queue.next()
                assert claim is not None and claim.params == params
            chosen.append(params)
            loss = params.get("train.optimizer.lr", 0.5)
            claim.finish(Outcome(state="done", metrics={"val": replace(METRICS, loss=loss)}))
        expected.append(chosen)
    assert expected[0] == expected[1] and len(expected[0]) == 5
    assert expected[0][1] == {"train.optimizer.lr": 0.1}  # the study's own setting comes first


def test_a_killed_suggestion_does_not_change_what_is_suggested_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = 'space."train.optimizer.momentum" = { low = 0.0, high = 0.9 }\n'
    study = study_of(SEARCH + space, repeats=1)

    class Killed(BaseException):
        pass

    def suggested(workspace: Path, killed_at: int) -> list[dict[str, object]]:
        ledger, plan, queue = queue_of(workspace, study)
        calls = 0
        original = optuna.Trial.suggest_float

        def counting(self: optuna.Trial, *args: object, **kwargs: object) -> float:
            nonlocal calls
            calls += 1
            if calls == killed_at:
                raise Killed
            return original(self, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(optuna.Trial, "suggest_float", counting)
        found = []
        while True:
            try:
                claim = queue.next()
            except Killed:
                ledger = Ledger(workspace)
                queue = Queue(ledger, plan)
                continue
            if claim is None:
                return found
            found.append(dict(claim.params))
            claim.finish(Outcome(state="done", metrics={"val": replace(METRICS, loss=0.1 * len(found))}))

    whole = suggested(tmp_path / "whole", 0)
    monkeypatch.undo()
    for killed_at in (2, 3, 5, 6):
        assert suggested(tmp_path / str(killed_at), killed_at) == whole
        monkeypatch.undo()


def test_epochs_are_told_to_the_pruner_of_a_search_alone(tmp_path: Path) -> None:
    ledger, plan, queue = queue_of(tmp_path, study_of(SEARCH.replace("trials = 4", "trials = 9"), repeats=1))
    grid = queue.next()
    assert grid is not None and not grid.should_prune(RECORD)
    grid.finish(Outcome(state="failed", reason="x"))
    pruned = []
    while claim := queue.next():
        loss = 0.1 if claim.index < 4 else 5.0
        verdicts = [claim.should_prune(replace(RECORD, epoch=epoch, val_loss=loss)) for epoch in (1, 2)]
        pruned.append(verdicts[-1])
        claim.finish(Outcome(state="pruned" if verdicts[-1] else "done", metrics={"val": METRICS}))
    assert pruned[:4] == [False] * 4 and all(pruned[5:])
    frozen = ledger.open(plan.study, plan.conditions[1]).trials
    assert frozen[0].intermediate_values == {1: 0.1, 2: 0.1}


def test_an_epoch_told_twice_is_recorded_once(tmp_path: Path) -> None:
    ledger, plan, queue = queue_of(tmp_path, study_of(SEARCH, repeats=1))
    grid, claim = queue.next(), queue.next()
    assert grid is not None and claim is not None
    claim.should_prune(RECORD)
    claim.release()
    again = Queue(ledger, plan).next()
    assert again is not None and again.trial.number == claim.trial.number
    again.should_prune(RECORD)
    again.should_prune(replace(RECORD, epoch=2, val_loss=0.5))
    assert ledger.open(plan.study, plan.conditions[1]).trials[0].intermediate_values == {1: RECORD.val_loss, 2: 0.5}


def test_several_goals_are_recorded_in_their_order(tmp_path: Path) -> None:
    search = SEARCH.replace('sampler = "tpe"', 'sampler = "nsga-ii"\ngoal = ["val.accuracy", "cost.parameters"]')
    ledger, plan, _ = queue_of(tmp_path, study_of(search, repeats=1))
    finish_all(ledger, plan)
    handle = ledger.open(plan.study, plan.conditions[1])
    assert [direction.name for direction in handle.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert handle.trials[0].values == [METRICS.accuracy, 7.0]
    assert ledger.open(plan.study, plan.conditions[0]).trials[0].values == [METRICS.loss]


def test_scores_are_found_by_goal() -> None:
    cost = Cost(parameters=7, flops=1, seconds=2.5, images_per_second=1, peak_memory=1, device="", precision="")
    outcome = Outcome(state="done", metrics={"val": METRICS}, cost=cost)
    assert (outcome.value("val.loss"), outcome.value("cost.seconds")) == (METRICS.loss, 2.5)


def test_an_outcome_on_disk_outlives_its_checkpoint(tmp_path: Path) -> None:
    _, _, queue = queue_of(tmp_path, study_of(repeats=1))
    claim = queue.next()
    assert claim is not None
    claim.folder.checkpoint.write_bytes(b"x")
    claim.finish(Outcome(state="failed", reason="x"))
    assert not claim.folder.checkpoint.exists() and claim.folder.read_outcome() is not None


def test_a_released_trial_was_stopped_and_one_of_a_killed_sweep_lost_its_worker(tmp_path: Path) -> None:
    from benchkit.analysis.trials import failed_trials, trouble_findings
    from benchkit.ledger import read_results

    queue = queue_of(tmp_path, study_of(FACTOR))[2]
    first, second = queue.next(), queue.next()
    assert first is not None and second is not None
    second.release()
    first._unlock()  # as when its process is killed
    findings = trouble_findings(failed_trials(read_results(tmp_path)))
    assert [one.sentence for one in findings] == [
        "1 trial failed or lost its worker.",
        "1 trial was under way when the sweep was stopped.",
    ]
    reasons = {trial.reason for trial in read_results(tmp_path).trials if trial.state == "stale"}
    assert reasons == {"", "its sweep was stopped; the same command goes on with it"}
