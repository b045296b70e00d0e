"""A lost ledger: folders are never written over, and the ledger is made again from them."""

from __future__ import annotations

import gc
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_study import FACTOR, METRICS, RECORD, SEARCH, finish_all, run_here, study_of, write

from benchkit.errors import LedgerError
from benchkit.ledger import Ledger, read_results
from benchkit.ledger.claims import Claim, Queue
from benchkit.ledger.rebuild import rebuild_ledger
from benchkit.plan import make_plan
from benchkit.results import Cost, Outcome, StudyResults, Trial

COST = Cost(parameters=7, flops=1, seconds=2.0, images_per_second=1, peak_memory=1, device="cpu", precision="")


def outcome(claim: Claim) -> Outcome:
    """End trials in all ways, pruned ones after an epoch that the pruner was told of."""
    claim.folder.append_epoch(RECORD)
    claim.should_prune(replace(RECORD, val_loss=0.25 + claim.index))
    claim.folder.write_history([replace(RECORD, val_loss=0.25 + claim.index)])
    if claim.phase == "search" and claim.index == 2:
        return Outcome(state="pruned", reason="given up")
    if claim.phase == "grid" and claim.index == 1:
        return Outcome(state="diverged", reason="loss is nan")
    metrics = {"val": replace(METRICS, loss=1.0 - claim.index / 10), "test": METRICS}
    return Outcome(state="done", metrics=metrics, cost=COST)


def swept(workspace: Path, name: str = "tiny") -> None:
    ledger, plan = Ledger(workspace), make_plan(study_of(FACTOR, SEARCH, name=name))
    ledger.register(plan, {"class_names": ["a", "b"], "sets": []}, f"benchkit sweep {name}")
    ledger.enqueue(plan)
    finish_all(ledger, plan, outcome)
    ledger.enqueue(plan, ["diverged"])
    finish_all(ledger, plan, lambda claim: replace(outcome(claim), state="done", metrics={"val": METRICS}, cost=COST))


def lose(workspace: Path) -> None:
    for path in workspace.glob("ledger.db*"):
        path.unlink()


def facts(results: StudyResults) -> dict[str, Any]:
    def trial_facts(trial: Trial) -> Trial:
        return replace(trial, started=0.0, finished=0.0)

    return {
        "study": results.study,
        "conditions": results.conditions,
        "trials": [trial_facts(trial) for trial in results.trials],
        "earlier": [trial_facts(trial) for trial in results.earlier],
        "rest": (results.class_names, results.data, results.command, results.left_out),
    }


@pytest.mark.parametrize("emptied", [False, True])
def test_a_lost_ledger_is_made_again_from_the_folders(tmp_path: Path, emptied: bool) -> None:
    swept(tmp_path)
    before = read_results(tmp_path)
    assert {trial.state for trial in before.trials} == {"done", "pruned"} and len(before.earlier) == 2
    lose(tmp_path)
    if emptied:
        (tmp_path / "ledger.db").touch()
    rebuilt = rebuild_ledger(tmp_path)
    assert (rebuilt.trials, rebuilt.left) == ({"tiny": len(before.trials) + len(before.earlier)}, ())
    assert repr(facts(read_results(tmp_path))) == repr(facts(before))  # repr: nan is not equal to itself
    for then, now in zip(before.trials, read_results(tmp_path).trials, strict=True):
        assert (now.started, now.finished) == pytest.approx((then.started, then.finished), abs=1)
    ledger = Ledger(tmp_path)
    plan = make_plan(before.study)
    assert ledger.enqueue(plan) == 0
    frame = next(condition for condition in plan.conditions if condition.kind == "search")
    handle = ledger.open(before.study, frame)
    assert handle.best_value == pytest.approx(0.7) and handle.trials[1].intermediate_values == {1: 1.25}


def test_a_sweep_refuses_to_write_over_results_that_the_ledger_does_not_know(tmp_path: Path) -> None:
    swept(tmp_path)
    kept = {path: path.read_bytes() for path in (tmp_path / "trials").glob("*/*/*/*") if path.name != "owner.lock"}
    lose(tmp_path)
    ledger, plan = Ledger(tmp_path), make_plan(study_of(FACTOR, SEARCH))
    ledger.register(plan, {}, "")
    with pytest.raises(LedgerError, match=r"/0000: .* holds another's results \(result.json") as caught:
        ledger.enqueue(plan)
    assert "benchkit ledger rebuild" in caught.value.hint
    assert ledger.states(plan)["waiting"] == 0
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_folder_that_was_filled_since_the_trial_was_queued_is_not_taken(tmp_path: Path) -> None:
    ledger, plan = Ledger(tmp_path), make_plan(study_of(FACTOR))
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    folder = ledger.folder(plan.study, plan.conditions[0], 0)
    folder.write_outcome(Outcome(state="failed", reason="of another"))
    with pytest.raises(LedgerError, match="holds another's results"):
        Queue(ledger, plan).next()
    assert folder.read_outcome() == Outcome(state="failed", reason="of another")
    assert not folder.owned()


def test_a_trial_under_way_is_gone_on_with(tmp_path: Path) -> None:
    ledger, plan = Ledger(tmp_path), make_plan(study_of(FACTOR, repeats=1))
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    claim = Queue(ledger, plan).next()
    assert claim is not None
    claim.folder.append_epoch(RECORD)
    claim.release()
    lose(tmp_path)
    rebuild_ledger(tmp_path)
    first = plan.conditions[0]
    assert [(t.condition, t.state, len(t.history)) for t in Ledger(tmp_path).trials(plan)] == [(first, "stale", 1)]
    again = Ledger(tmp_path)
    assert again.enqueue(plan) == 1
    taken = Queue(again, plan).next()
    assert taken is not None and (taken.condition, taken.trial.number) == (first, 0)


def test_numbers_stay_where_folders_are_gone_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    swept(tmp_path)
    before = read_results(tmp_path)
    first, second = before.trials[0], before.trials[2]
    shutil.rmtree(first.folder)
    (second.folder / "trial.json").write_text("{")
    lose(tmp_path)
    rebuilt = rebuild_ledger(tmp_path)
    assert len(rebuilt.left) == 1 and rebuilt.left[0].startswith(str(second.folder))
    after = {(t.condition.key, t.number): t for t in read_results(tmp_path).trials}
    gone = {(first.condition.key, first.number), (second.condition.key, second.number)}
    assert after.keys() == {(t.condition.key, t.number) for t in before.trials} - gone


def test_a_ledger_that_is_there_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no folders of trials"):
        rebuild_ledger(tmp_path)
    lose(tmp_path)
    swept(tmp_path)
    with pytest.raises(LedgerError, match="there is a ledger here already"):
        rebuild_ledger(tmp_path)


@pytest.mark.parametrize("names", [("run 1", "run-1"), ("run-1", "run 1"), ("run[1]", "run 1"), ("läufe", "l ufe")])
def test_studies_whose_names_look_alike_have_folders_of_their_own(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        ledger, plan = Ledger(tmp_path), make_plan(study_of(FACTOR, name=name, repeats=1))
        ledger.register(plan, {}, "")
        ledger.enqueue(plan)
        finish_all(ledger, plan, lambda claim, name=name: Outcome(state="failed", reason=name))  # type: ignore[misc]
    for name in names:
        assert {trial.reason for trial in read_results(tmp_path, name).trials} == {name}
    folders = {read_results(tmp_path, name).trials[0].folder.parents[1] for name in names}
    assert len(folders) == 2 and all(folder.parent == tmp_path / "trials" for folder in folders)
    lose(tmp_path)
    assert rebuild_ledger(tmp_path).trials == dict.fromkeys(names, 2)
    assert {read_results(tmp_path, name).trials[0].folder.parents[1] for name in names} == folders


def test_a_study_that_an_earlier_version_began_keeps_its_folder(tmp_path: Path) -> None:
    study = study_of(FACTOR, name="run 1")
    ledger, plan = Ledger(tmp_path), make_plan(study)
    ledger.register(plan, {}, "")
    with ledger.storage.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM study_user_attributes WHERE key = 'folder'")
    again = Ledger(tmp_path)
    assert again.folder(study, plan.conditions[0], 0).path.parents[1] == tmp_path / "trials" / "run-1"
    again.register(plan, {}, "")
    assert Ledger(tmp_path).folder(study, plan.conditions[0], 0).path.parents[1] == tmp_path / "trials" / "run-1"


def test_the_command_puts_the_ledger_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "tiny.toml", epochs=1, repeats=2)
    workspace = tmp_path / "benchkit-runs"
    assert run_here(monkeypatch, tmp_path, "sweep", "tiny.toml") == 0
    lose(workspace)
    assert run_here(monkeypatch, tmp_path, "sweep", "tiny.toml") == 2
    assert "benchkit ledger rebuild" in capsys.readouterr().err
    lose(workspace)
    assert run_here(monkeypatch, tmp_path, "ledger", "rebuild") == 0
    assert "tiny: 2 trials put back" in capsys.readouterr().out
    assert run_here(monkeypatch, tmp_path, "sweep", "tiny.toml") == 0
    assert "tiny: 2 done" in capsys.readouterr().out
    assert [trial.number for trial in read_results(workspace).trials] == [0, 1]
    about = json.loads((workspace / "trials" / "tiny" / "study.json").read_text())
    assert about["study"]["name"] == "tiny"


def test_any_page_of_the_ledger_written_over_is_one_error_or_none(tmp_path: Path) -> None:
    swept(tmp_path)
    chance = random.Random(1)
    whole, told = (tmp_path / "ledger.db").read_bytes(), 0
    pages = range(0, len(whole), 3 * 4096)
    for start in pages:
        noise = chance.randbytes(4096) if start % 8192 else bytes(4096)
        gc.collect()  # no connection of the damage before
        (tmp_path / "ledger.db").write_bytes(whole[:start] + noise + whole[start + 4096 :])
        try:
            read_results(tmp_path)
        except LedgerError as error:
            told += 1
            assert "\n" not in error.what and len(error.what) < 1000
    assert told >= len(pages) // 2  # the others hold indices or nothing that is read


def test_a_command_that_meets_a_damaged_ledger_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "tiny.toml", epochs=1, repeats=1)
    (tmp_path / "benchkit-runs").mkdir()
    (tmp_path / "benchkit-runs" / "ledger.db").write_bytes(random.Random(1).randbytes(40_000))
    for arguments in (["status"], ["report"], ["sweep", "tiny.toml"], ["ledger", "rebuild"]):
        assert run_here(monkeypatch, tmp_path, *arguments) == 2
        err = capsys.readouterr().err
        assert "not a database" in err and "rebuild" in err and "Traceback" not in err
