"""What is decided once for a study: recorded, read back, obeyed, and refused where something else is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_study import FACTOR, finish_all, run_here, study_of, sweep_here, write

import benchkit
import benchkit.sweep.orchestration
from benchkit.errors import LedgerError
from benchkit.ledger import Ledger, read_results
from benchkit.ledger.decisions import decide, decisions_of, refuse_otherwise
from benchkit.plan import make_plan
from benchkit.results import Decision


def registered(workspace: Path) -> Ledger:
    ledger, plan = Ledger(workspace), make_plan(study_of(FACTOR))
    ledger.register(plan, {}, "")
    return ledger


def test_the_first_decision_stands(tmp_path: Path) -> None:
    ledger = registered(tmp_path)
    first = Decision(name="device kind", value="cuda", why="--device auto", version=benchkit.__version__)
    assert decide(ledger, "tiny", "device kind", "cuda", "--device auto") == first
    assert decide(Ledger(tmp_path), "tiny", "device kind", "cpu", "--device cpu") == first
    second = decide(ledger, "tiny", "precision", "float32", "the study")
    assert decisions_of(Ledger(tmp_path), "tiny") == {"device kind": first, "precision": second}
    assert read_results(tmp_path).decisions == (first, second)
    assert decisions_of(ledger, "another") == {}


def test_decisions_outlive_a_change_of_the_study(tmp_path: Path) -> None:
    decide(registered(tmp_path), "tiny", "precision", "float32", "the study")
    ledger, plan = Ledger(tmp_path), make_plan(study_of(FACTOR, epochs=9))
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    finish_all(ledger, plan)
    assert [decision.value for decision in read_results(tmp_path).decisions] == ["float32"]


def test_another_value_is_refused_and_both_are_named(tmp_path: Path) -> None:
    ledger = registered(tmp_path)
    refuse_otherwise(ledger, "tiny", "device kind", "cuda", "--device cuda")
    decide(ledger, "tiny", "device kind", "cpu", "--device auto")
    refuse_otherwise(ledger, "tiny", "device kind", "cpu", "--device cpu")
    with pytest.raises(LedgerError, match=r"^--device cuda:1: tiny .* 'cpu' \(--device auto; .*'cuda'\n"):
        refuse_otherwise(ledger, "tiny", "device kind", "cuda", "--device cuda:1")


def test_a_sweep_records_the_device_kind_and_refuses_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "tiny.toml", epochs=1, repeats=1)
    assert run_here(monkeypatch, tmp_path, "sweep", "tiny.toml") == 0
    (decision,) = read_results(tmp_path / "benchkit-runs").decisions
    assert (decision.name, decision.value, decision.why) == ("device kind", "cpu", "--device auto")
    assert run_here(monkeypatch, tmp_path, "sweep", "tiny.toml", "--set", "repeats.n=2", "--device", "cuda") == 2
    assert "'cpu'" in (told := capsys.readouterr().err) and "'cuda'" in told
    assert [trial.state for trial in read_results(tmp_path / "benchkit-runs").trials] == ["done"]


def test_a_sweep_obeys_what_was_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(epochs=1, repeats=1)
    ledger = Ledger(tmp_path)
    ledger.register(make_plan(study), {}, "")
    decide(ledger, "tiny", "device kind", "cpu", "an earlier sweep")
    asked: list[str] = []
    original = benchkit.sweep.orchestration.trial_count
    monkeypatch.setattr(
        benchkit.sweep.orchestration,
        "trial_count",
        lambda request, *rest: asked.append(request.device) or original(request, *rest),
    )
    sweep_here(monkeypatch, tmp_path, study)
    assert asked == ["cpu"]
