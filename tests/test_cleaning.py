"""`benchkit clean`: what goes from a workspace, what stays whatever happens, and what is said of it afterwards."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_study import FACTOR, METRICS, RECORD, finish_all, run_here, study_of, write

from benchkit.cli import main
from benchkit.ledger import Ledger, read_results
from benchkit.ledger.claims import Claim, Queue
from benchkit.ledger.cleaning import _best, clean, removables
from benchkit.plan import make_plan
from benchkit.results import Cost, Outcome
from benchkit.sweep.status import status_of

COST = Cost(parameters=7, flops=1, seconds=2.0, images_per_second=1, peak_memory=1, device="cpu", precision="")
LOSSES = (0.5, math.nan, 0.2, 0.2, 0.4)
"""Validation losses of the five repeats of each condition; one diverges."""


def scored(claim: Claim) -> Outcome:
    """Leave the files of a trial as training does, with the loss of its repeat."""
    claim.folder.append_epoch(RECORD)
    save_file({"val": np.zeros((3, 2), np.float32)}, claim.folder.predictions)
    claim.folder.log.write_text("printed")
    (claim.folder.path / "notes-of-mine.txt").write_text("unknown to benchkit")
    loss = LOSSES[claim.index]
    if math.isnan(loss):
        return Outcome(state="diverged", reason="the loss is no number")
    save_file({"w": np.ones(5, np.float32)}, claim.folder.weights)
    return Outcome(state="done", metrics={"val": replace(METRICS, loss=loss), "test": METRICS}, cost=COST)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    ledger, plan = Ledger(folder), make_plan(study_of(FACTOR, repeats=5))
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    finish_all(ledger, plan, scored)
    return folder


def left(workspace: Path, name: str = "weights.safetensors") -> list[int]:
    """Return which repeats of the first condition have a file."""
    trials = read_results(workspace).trials
    return [t.index for t in trials if t.condition == trials[0].condition and (t.folder / name).exists()]


def every_file(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "ledger.db" not in path.name}


@pytest.mark.parametrize(("keep", "kept"), [(0, []), (1, [2, 3]), (2, [2, 3]), (3, [2, 3, 4]), (9, [0, 2, 3, 4])])
def test_the_best_on_val_keep_their_weights_equal_ones_together_and_nan_never(
    keep: int, kept: list[int], workspace: Path
) -> None:
    ledger = Ledger(workspace)
    gone = clean(ledger, removables(ledger, keep_best=keep), keep)
    assert left(workspace) == kept and left(workspace, "log.txt") == [1]
    assert left(workspace, "notes-of-mine.txt") == left(workspace, "predictions.safetensors") == [0, 1, 2, 3, 4]
    assert len(gone) == 2 * (4 - len(kept) + 4)
    assert removables(ledger, keep_best=keep) == ()


def test_a_score_that_is_no_number_is_never_the_best(workspace: Path) -> None:
    results = read_results(workspace)
    best = next(trial for trial in results.trials if trial.index == 2 and trial.outcome)
    assert best.outcome is not None
    spoiled = replace(best, outcome=replace(best.outcome, metrics={"val": replace(METRICS, loss=math.nan)}))
    others = [trial for trial in results.trials if trial is not best and trial.condition == best.condition]
    kept = _best(replace(results, trials=(spoiled, *others)), 1)
    assert kept == {(trial.condition.key, trial.number) for trial in others if trial.index == 3}


def test_all_numbers_stay_and_status_says_what_went(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_results(workspace)
    assert main(["clean", "--workspace", str(workspace), "--yes"]) == 0
    assert "removed 12 files" in capsys.readouterr().out
    after = read_results(workspace)
    assert [t.outcome for t in after.trials] == [t.outcome for t in before.trials]
    assert main(["status", "--workspace", str(workspace)]) == 0
    said = capsys.readouterr()
    assert status_of(after).sentence in said.out
    assert "12 files (log.txt, weights.safetensors)" in said.err and "removed by benchkit clean on 20" in said.err
    assert "in another workspace: benchkit sweep " in said.err and said.err.rstrip().endswith("--workspace OTHER")
    assert main(["clean", "--workspace", str(workspace), "--yes"]) == 0
    assert "nothing can go" in capsys.readouterr().out


def test_a_dry_run_lists_what_goes_and_removes_nothing(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = every_file(workspace)
    assert main(["clean", "--workspace", str(workspace), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert every_file(workspace) == before and "12 files" in shown
    ledger = Ledger(workspace)
    for file in removables(ledger):
        assert str(file.path.relative_to(workspace)) in shown
    clean(ledger, removables(ledger))
    gone = {str(path.relative_to(workspace)) for path in before if not path.exists()}
    assert gone == {line.split()[-1] for line in shown.splitlines() if line.endswith((".txt", ".safetensors"))}


def test_links_are_never_followed(workspace: Path, tmp_path: Path) -> None:
    trials = read_results(workspace).trials
    outside = tmp_path / "outside"
    outside.mkdir()
    linked, folder = trials[0].folder, trials[1].folder
    shutil.move(linked, outside / "trial")
    linked.symlink_to(outside / "trial")
    (folder / "log.txt").unlink()
    (outside / "log.txt").write_text("of another")
    (folder / "log.txt").symlink_to(outside / "log.txt")
    before = every_file(outside)
    ledger = Ledger(workspace)
    clean(ledger, removables(ledger, keep_best=0), 0)
    assert every_file(outside) == before and linked.is_symlink() and (folder / "log.txt").is_symlink()


def test_what_waits_runs_or_was_interrupted_keeps_everything(tmp_path: Path) -> None:
    ledger, plan = Ledger(tmp_path), make_plan(study_of(FACTOR, repeats=5))
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    claim = Queue(ledger, plan).next()
    assert claim is not None
    scored(claim)
    claim.folder.checkpoint.write_bytes(b"checkpoint")
    assert removables(ledger, keep_best=0) == ()
    claim.release()
    assert [trial.state for trial in read_results(tmp_path).trials if trial.history] == ["stale"]
    assert removables(ledger, keep_best=0) == ()


def test_what_changed_since_the_list_stays(workspace: Path) -> None:
    ledger = Ledger(workspace)
    files = removables(ledger)
    other = next(file for file in files if file.name == "log.txt")
    other.path.write_text("longer than before")
    missing = next(file for file in files if file.name == "log.txt" and file.path != other.path)
    missing.path.unlink()
    gone = clean(ledger, files)
    assert other.path.exists() and len(gone) == len(files) - 2


@pytest.mark.parametrize("folder", ["/", "{}"])
def test_a_folder_without_a_ledger_is_refused(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--workspace", folder.format(tmp_path), "--yes"]) == 2
    assert "there is no ledger here" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_nobody_to_ask_means_that_nothing_goes(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = every_file(workspace)
    assert main(["clean", "--workspace", str(workspace)]) == 2
    assert "nothing was removed" in capsys.readouterr().err and every_file(workspace) == before
    assert main(["clean", "norms", "--workspace", str(workspace), "--yes"]) == 2
    assert "no study 'norms'" in capsys.readouterr().err


def test_a_report_has_the_same_bytes_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs"
    study = write(tmp_path / "tiny.toml", FACTOR)
    assert run_here(monkeypatch, tmp_path, "sweep", study, "--workspace", folder) == 0

    def reported(name: str) -> dict[str, bytes]:
        out = tmp_path / name
        assert main(["report", "--workspace", str(folder), "--format", "json", "--out", str(out)]) == 0
        return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}

    before = reported("before")
    assert main(["clean", "--workspace", str(folder), "--keep-best", "0", "--yes"]) == 0
    assert not list(folder.rglob("weights.safetensors")) and not list(folder.rglob("log.txt"))
    assert reported("after") == before
