"""Files of finished trials that were lost, changed or broken since: found, named, never counted, trained again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_study import FACTOR, METRICS, RECORD, SEARCH, finish_all, run_here, study_of, write

from benchkit.ledger import Ledger, read_results
from benchkit.ledger.claims import Claim, Queue
from benchkit.ledger.trials import TrialFile, lost_or_changed, notes_of, trial_files, write_list, write_removed
from benchkit.plan import make_plan
from benchkit.results import Cost, Outcome, Trial
from benchkit.study.studyfile import read_study
from benchkit.sweep.status import status_of

COST = Cost(parameters=7, flops=1, seconds=2.0, images_per_second=1, peak_memory=1, device="cpu", precision="")
DONE = Outcome(state="done", metrics={"val": METRICS, "test": METRICS}, cost=COST)


def trained(claim: Claim) -> Outcome:
    """Leave the files of a trial as training does."""
    claim.folder.append_epoch(RECORD)
    claim.folder.append_epoch(replace(RECORD, epoch=2))
    logits = {split: np.zeros((3, 2), np.float32) for split in ("val", "test")}
    save_file(logits, claim.folder.predictions)
    save_file({"w": np.ones(5, np.float32)}, claim.folder.weights)
    claim.folder.log.write_text("printed")
    return DONE


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    ledger, plan = Ledger(tmp_path), make_plan(study_of(FACTOR))
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    finish_all(ledger, plan, trained)
    return tmp_path


def files_of(folder: Path) -> tuple[TrialFile, ...]:
    return trial_files(folder, {"sha256": hashlib.sha256((folder / "files.json").read_bytes()).hexdigest()})


def first(workspace: Path) -> Trial:
    return read_results(workspace).trials[0]


def test_a_trial_as_it_ended_counts(workspace: Path) -> None:
    results = read_results(workspace)
    assert [trial.state for trial in results.trials] == ["done"] * 4
    names = ["history.jsonl", "predictions.safetensors", "result.json", "trial.json", "weights.safetensors"]
    listed = json.loads((first(workspace).folder / "files.json").read_text())
    assert [entry["name"] for entry in listed if entry["name"] != "trial.json"] == [
        n for n in names if n != "trial.json"
    ]
    assert status_of(results).sentence == "tiny: finished; 4 done"


def edit_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return edit


def flip(name: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)

    return edit


def put(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


@pytest.mark.parametrize(
    ("edit", "state", "named"),
    [
        (edit_text("result.json", '"accuracy": 0.33', '"accuracy": 0.34'), "changed files", "result.json"),
        (edit_text("history.jsonl", '"val_accuracy": 0.4', '"val_accuracy": 0.5'), "changed files", "history.jsonl"),
        (flip("predictions.safetensors"), "changed files", "predictions.safetensors"),
        (flip("weights.safetensors"), "changed files", "weights.safetensors"),
        (put("history.jsonl", b""), "changed files", "history.jsonl"),
        (put("result.json", b""), "changed files", "result.json"),
        (put("result.json", b"\xff\xfe\x00"), "changed files", "result.json"),
        (put("predictions.safetensors", b"\x00" * 7), "changed files", "predictions.safetensors"),
        (edit_text("files.json", "history", "hist0ry"), "changed files", "files.json"),
        (lambda folder: (folder / "result.json").unlink(), "missing files", "result.json"),
        (lambda folder: (folder / "history.jsonl").unlink(), "missing files", "history.jsonl"),
        (lambda folder: (folder / "predictions.safetensors").unlink(), "missing files", "predictions.safetensors"),
        (shutil.rmtree, "missing files", "files.json"),
    ],
)  # fmt: skip
def test_what_happened_to_a_trials_files_is_named_and_it_counts_no_more(
    edit: Callable[[Path], None], state: str, named: str, workspace: Path
) -> None:
    edit(first(workspace).folder)
    results = read_results(workspace)
    broken = results.trials[0]
    assert (broken.state, broken.history, broken.outcome and broken.outcome.metrics) == (state, (), {})
    assert broken.reason.endswith(f"after the trial had ended: {named}")
    assert [trial.state for trial in results.trials[1:]] == ["done"] * 3
    status = status_of(results)
    assert status.failures == (f"0.1 repeat 0: {state}: {broken.reason}",)
    retry = state.partition(" ")[0]
    again = f"benchkit sweep tiny --workspace {workspace} --retry {retry}"
    assert status.sentence == f"tiny: 3 done, 1 {state}; train again with: {again}"


def test_all_folders_deleted_is_no_finished_study(workspace: Path) -> None:
    shutil.rmtree(workspace / "trials")
    ledger, plan = Ledger(workspace), make_plan(study_of(FACTOR))
    assert {trial.state for trial in read_results(workspace).trials} == {"missing files"}
    assert +ledger.states(plan) == {"missing files": 4}
    assert ledger.enqueue(plan) == ledger.enqueue(plan, ["failed", "changed files"]) == 0
    assert ledger.enqueue(plan, ["missing files"]) == 4
    finish_all(ledger, plan, trained)
    results = read_results(workspace)
    assert [(trial.state, trial.attempt, trial.number) for trial in results.trials[:2]] == [
        ("done", 1, 2),
        ("done", 1, 3),
    ]
    assert [(trial.state, trial.attempt) for trial in results.earlier] == [("missing files", 0)] * 4


def test_a_changed_digit_is_retrained_on_request_alone(workspace: Path) -> None:
    edit_text("result.json", '"accuracy": 0.33', '"accuracy": 0.34')(first(workspace).folder)
    ledger, plan = Ledger(workspace), make_plan(study_of(FACTOR))
    assert ledger.enqueue(plan, ["missing files"]) == 0  # of the same size: only its digest tells
    assert ledger.enqueue(plan, ["changed files"]) == 1


def test_a_lost_trial_of_a_search_is_trained_with_its_settings_again(tmp_path: Path) -> None:
    ledger, plan = Ledger(tmp_path), make_plan(study_of(SEARCH))
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    finish_all(ledger, plan, trained)
    before = read_results(tmp_path).searched()
    shutil.rmtree(before[2].folder)
    assert ledger.enqueue(plan, ["missing files"]) == 1
    finish_all(ledger, plan, trained)
    again = {trial.index: trial for trial in read_results(tmp_path).searched()}[before[2].index]
    assert (again.attempt, again.params) == (1, before[2].params) and len(again.params) == 1


def test_lost_weights_are_told_and_numbers_stay(workspace: Path) -> None:
    folder = first(workspace).folder
    (folder / "weights.safetensors").unlink()
    trial = first(workspace)
    assert trial.state == "done" and trial.outcome and trial.outcome.notes == ("weights.safetensors is lost",)
    write_removed(folder, {"weights.safetensors": "2026-11-29T20:00:00+00:00"})
    trial = first(workspace)
    assert trial.outcome and trial.outcome.notes == ()  # it was removed on purpose, which costs no number
    assert {file.name: file.state for file in files_of(folder)}["weights.safetensors"] == "removed"


def test_files_of_another_host_are_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "result.json").write_text("{}")
    kept = write_list(tmp_path / "here")
    assert [file.state for file in trial_files(tmp_path / "here", {**kept, "host": "another"})] == ["here"]
    for host, state in (("another", "elsewhere"), (kept["host"], "lost")):
        (file,) = trial_files(tmp_path / "gone", {**kept, "host": host})
        assert (file.name, file.state) == ("files.json", state)
    found = lost_or_changed(trial_files(tmp_path / "gone", {**kept, "host": "another"}))
    assert found is not None and found[0] == "files elsewhere"


def test_files_of_a_host_of_our_name_with_another_disk_are_elsewhere(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        Ledger(tmp_path / name)
    folder = tmp_path / "theirs" / "trials" / "study" / "condition" / "0000"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    kept = write_list(folder)
    ours = tmp_path / "ours" / folder.relative_to(tmp_path / "theirs")
    assert [file.state for file in trial_files(ours, kept)] == ["elsewhere"]
    ours.mkdir(parents=True)
    (ours / "history.jsonl").write_text("")  # of a start here that came to no end
    assert [file.state for file in trial_files(ours, kept)] == ["elsewhere"]
    (folder / "files.json").unlink()
    assert [file.state for file in trial_files(folder, kept)] == ["lost"]


def test_a_trial_of_a_version_without_lists_lacks_its_outcome_or_counts(workspace: Path) -> None:
    for path in (workspace / "trials").glob("*/*/*/files.json"):
        path.unlink()
    ledger = Ledger(workspace)
    with ledger.storage.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM trial_user_attributes WHERE key = 'files'")
    trials = read_results(workspace).trials
    assert [trial.state for trial in trials] == ["done"] * 4
    (trials[0].folder / "result.json").unlink()
    (trials[1].folder / "result.json").write_bytes(b"\xff\xfe")
    (trials[2].folder / "history.jsonl").write_bytes(b"[]\n3\n")
    (trials[3].folder / "predictions.safetensors").write_bytes(b"\xff" * 40)
    states = [(trial.state, trial.reason) for trial in read_results(workspace).trials]
    assert [state for state, _ in states] == ["missing files"] + ["changed files"] * 3
    for (_, reason), name in zip(states[1:], ("result.json", "history.jsonl", "predictions.safetensors"), strict=True):
        assert name in reason and "cannot be read" in reason and "\n" not in reason


def test_keys_of_a_newer_version_are_left_out_with_a_note(tmp_path: Path) -> None:
    def newer(claim: Claim) -> Outcome:
        outcome = trained(claim)
        path = claim.folder.path / "history.jsonl"
        path.write_text(
            "".join(json.dumps({**json.loads(one), "warmth": 3}) + "\n" for one in path.read_text().splitlines())
        )
        return outcome

    ledger, plan = Ledger(tmp_path), make_plan(study_of(FACTOR))
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    finish_all(ledger, plan, newer)
    trial = first(tmp_path)
    assert trial.history == (RECORD, replace(RECORD, epoch=2)) and trial.outcome
    assert trial.outcome.notes == ("written by a newer version: not read are warmth",)


def test_an_attempt_that_counts_no_more_is_read_with_its_reason(tmp_path: Path) -> None:
    ledger, plan = Ledger(tmp_path), make_plan(study_of(FACTOR, repeats=1))
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)

    def fail(claim: Claim) -> Outcome:
        claim.folder.append_epoch(RECORD)
        return Outcome(state="failed", reason="the first time")

    finish_all(ledger, plan, fail)
    ledger.enqueue(plan, ["failed"])
    finish_all(ledger, plan, trained)
    results = read_results(tmp_path)
    assert [(trial.state, trial.attempt) for trial in results.trials] == [("done", 1)] * 2
    assert [(t.condition.label, t.state, t.attempt, t.reason, len(t.history)) for t in results.earlier] == [
        ("0.1", "failed", 0, "the first time", 1), ("0.3", "failed", 0, "the first time", 1),
    ]  # fmt: skip


def test_the_worst_of_a_trials_files_decides() -> None:
    def file(name: str, state: str) -> TrialFile:
        return TrialFile(name=name, size=1, sha256="", state=state)  # type: ignore[arg-type]

    lost, changed = file("result.json", "lost"), file("history.jsonl", "changed")
    assert lost_or_changed([lost, changed]) == ("changed files", "changed after the trial had ended: history.jsonl")
    assert lost_or_changed([lost]) == ("missing files", "lost after the trial had ended: result.json")
    assert lost_or_changed([file("trace.json.gz", "lost"), file("result.json", "removed")]) is None
    assert notes_of([file("trace.json.gz", "lost"), file("b", "here")]) == ("trace.json.gz is lost",)


def test_the_command_line_tells_and_trains_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "tiny.toml", epochs=1, repeats=1)
    assert run_here(monkeypatch, tmp_path, "sweep", "tiny.toml") == 0
    shutil.rmtree(tmp_path / "benchkit-runs" / "trials")
    capsys.readouterr()
    assert run_here(monkeypatch, tmp_path, "sweep", "tiny.toml") == 1
    told = capsys.readouterr()
    assert "tiny: 1 missing files" in told.out and "--retry missing" in told.err
    assert run_here(monkeypatch, tmp_path, "status") == run_here(monkeypatch, tmp_path, "status", "--json") == 1
    assert "default repeat 0: missing files: lost after the trial had ended: files.json" in capsys.readouterr().out
    assert run_here(monkeypatch, tmp_path, "sweep", "tiny.toml", "--retry", "missing") == 0
    assert "tiny: 1 done" in capsys.readouterr().out


def test_a_failed_attempt_stands_in_the_report_after_its_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = read_study(write(tmp_path / "tiny.toml", epochs=1, repeats=2))
    ledger, plan = Ledger(tmp_path / "benchkit-runs"), make_plan(study)
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    claim = Queue(ledger, plan).next()
    assert claim is not None
    claim.folder.append_epoch(replace(RECORD, seconds=2.5))
    claim.finish(Outcome(state="failed", reason="ValueError: the first time"))
    assert run_here(monkeypatch, tmp_path, "sweep", "tiny.toml", "--retry", "failed") == 0
    assert run_here(monkeypatch, tmp_path, "report", "--format", "html") == 0
    told = json.loads(next(tmp_path.glob("reports/**/results.json")).read_text())
    (failed,) = told["numbers"]["troubles"]
    assert failed == {
        "label": "default", "stage": "grid", "index": 0, "attempt": 0, "state": "failed", "epochs": 1, "seconds": 2.5,
        "reason": "ValueError: the first time", "retried": True,
    }  # fmt: skip
    assert [row["states"] for row in told["numbers"]["coverage"]] == [{"done": 2}]
    (page,) = tmp_path.glob("reports/*.html")
    assert "ValueError: the first time" in page.read_text()
    assert run_here(monkeypatch, tmp_path, "verify", page) == 0, capsys.readouterr().out


def test_a_report_names_lost_files_and_shows_no_number_of_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "tiny.toml", epochs=1, repeats=3)
    assert run_here(monkeypatch, tmp_path, "sweep", "tiny.toml") == 0
    folder = read_results(tmp_path / "benchkit-runs").trials[0].folder
    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(text.replace('"accuracy": 0.', '"accuracy": 9.', 1))
    shutil.rmtree(read_results(tmp_path / "benchkit-runs").trials[1].folder)
    capsys.readouterr()
    assert run_here(monkeypatch, tmp_path, "report", "--format", "html") == 1
    err = capsys.readouterr().err
    assert "default repeat 0: changed files: changed after the trial had ended: result.json" in err
    assert "default repeat 1: missing files: lost after the trial had ended: files.json" in err
    told = json.loads(next(tmp_path.glob("reports/**/results.json")).read_text())
    assert [row["states"] for row in told["numbers"]["coverage"]] == [
        {"changed files": 1, "missing files": 1, "done": 1}
    ]
    assert "lost-files" in [finding["rule"] for finding in told["findings"]]
    (page,) = tmp_path.glob("reports/*.html")
    assert run_here(monkeypatch, tmp_path, "verify", page) == 0, capsys.readouterr().out
