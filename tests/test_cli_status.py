"""`benchkit status`."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_study import FACTOR, RECORD, finish_all, queue_of, study_of

from benchkit.cli import main
from benchkit.ledger import Ledger
from benchkit.plan import make_plan
from benchkit.results import Outcome
from benchkit.storage import encode
from benchkit.sweep.progress import trial_name
from benchkit.sweep.seat_lines import SeatLine


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCHKIT_WORKSPACE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    factor = '[factors]\n"train.optimizer.lr" = [{ label = "[b]x\\u001b[2J", value = 0.1 }, 0.3]\n'
    for study in (study_of(factor, epochs=9), study_of(factor)):
        ledger, plan = Ledger(tmp_path / "benchkit-runs"), make_plan(study)
        ledger.register(plan, {}, "")
        ledger.enqueue(plan)
        finish_all(
            ledger,
            plan,
            lambda c: Outcome(state="failed", reason="no\x1b[31m good\n  at all") if c.index == 1 else None,
        )
    return tmp_path / "benchkit-runs"


def test_states_failures_and_what_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "[b]x?[2J repeat 1: failed: no?[31m good at all" in shown.out.splitlines()
    again = "train again with: benchkit sweep tiny --retry failed"
    assert shown.out.splitlines()[-1] == f"tiny: finished; 2 done, 2 failed; {again}"
    assert "left out: 0.3: 2 finished trials of another version of this study" in shown.err


@pytest.mark.parametrize("name", ["tiny", "tiny.toml", "some/folder/tiny.toml"])
def test_a_study_may_be_named_by_its_file(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["status", name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["study"] == "tiny" and told["seconds_left"] == 0.0
    assert told["rows"][1]["states"] == {"done": 1, "failed": 1}


def test_an_unknown_study_and_an_absent_ledger_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["status", "tinny"]) == 2
    assert "no study 'tinny' (did you mean 'tiny'?)" in capsys.readouterr().err
    assert main(["status", "--workspace", str(tmp_path / "none")]) == 2
    assert "there is no ledger here" in capsys.readouterr().err


def test_a_study_of_which_only_the_tiny_version_was_swept_is_told_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(tmp_path / "other")
    ledger.register(make_plan(study_of(name="foo-smoke")), {}, "benchkit sweep foo.toml --smoke -w other")
    assert main(["report", "foo.toml", "--workspace", str(tmp_path / "other")]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "'foo' was not swept yet, only its tiny version, 'foo-smoke'" in told
    assert "benchkit sweep foo.toml -w other trains it" in told


def test_a_score_is_told_in_its_unit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    head, row = capsys.readouterr().out.splitlines()[:2]
    assert head.endswith("test accuracy") and row.endswith("33.33 % (n = 1)")


def test_seats_are_told_at_the_epoch_that_their_trials_are_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, queue = queue_of(tmp_path, study_of(FACTOR))
    claim = queue.next()
    assert claim is not None
    for epoch in (1, 2, 3):
        claim.folder.append_epoch(replace(RECORD, epoch=epoch))
    name = trial_name(claim.condition.label, claim.phase, claim.index)
    seats = [SeatLine(study="tiny", node="a", device="cpu", trial=one, epoch=1, at=time.time()) for one in (name, "x")]
    (tmp_path / "logs").mkdir(exist_ok=True)
    (tmp_path / "logs/seats-1.jsonl").write_text("".join(f"{json.dumps(encode(seat))}\n" for seat in seats))
    assert main(["status", "tiny", "--workspace", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["running"] == [f"{name}: running, epoch 3 done"]
    assert [(seat["trial"], seat["epoch"]) for seat in told["seats"]] == [(name, 3), ("x", 1)]
