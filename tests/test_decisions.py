"""What is decided once for a study: recorded, read back, obeyed, and refused where something else is asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tiny_study import FACTOR, METRICS, SEARCH, finish_all, run_here, study_of, sweep_here, text_of, write

import benchkit
import benchkit.sweep.orchestration
from benchkit.errors import LedgerError
from benchkit.ledger import Ledger, read_results
from benchkit.ledger.ledger import decide, decisions_of, refuse_otherwise
from benchkit.ledger.rebuild import rebuild_ledger
from benchkit.plan import make_plan
from benchkit.results import Cost, Decision, Outcome
from benchkit.study.studyfile import parse_study
from benchkit.sweep.decided import asked_once, decide_as_trained, decide_training
from benchkit.sweep.messages import Seat
from benchkit.train.step import automatic_precision


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


def test_the_first_trial_decides_and_another_value_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "tiny.toml", epochs=1, repeats=1)
    assert run_here(monkeypatch, tmp_path, "sweep", "tiny.toml") == 0
    found = [
        (one.name, one.value, one.why.partition(":")[0]) for one in read_results(tmp_path / "benchkit-runs").decisions
    ]
    assert found == [
        ("compiling", "never", "train.compile = auto on cpu"),
        ("device kind", "cpu", "--device auto"),
        ("precision", "float32", "train.precision = float32"),
        ("threads", "1", "train.threads = 1"),
    ]
    more = ("sweep", "tiny.toml", "--set", "repeats.n=2")
    for asked, values in {
        ("--device", "cuda"): ("device kind 'cpu'", "'cuda'"),
        ("--set", "train.threads=2"): ("train.threads = 2: ", "threads '1'", "'2'"),
        ("--set", "train.precision=bf16"): ("precision 'float32'", "'bf16'"),
        ("--set", "train.compile=always"): ("compiling 'never'", "'always'"),
    }.items():
        for dry in ((), ("--dry-run",)):
            assert run_here(monkeypatch, tmp_path, *more, *asked, *dry) == 2
            told = capsys.readouterr().err
            assert all(value in told for value in values), told
    for dry in ((), ("--dry-run",)):
        assert run_here(monkeypatch, tmp_path, *more, "--device", "gpu", *dry) == 2
        told = capsys.readouterr().err
        assert "there is no such device" in told and "decided" not in told, told
    assert [trial.state for trial in read_results(tmp_path / "benchkit-runs").trials] == ["done"]


def test_a_sweep_obeys_what_was_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(epochs=1, repeats=1)
    ledger = Ledger(tmp_path)
    ledger.register(make_plan(study), {}, "")
    decide(ledger, "tiny", "device kind", "cpu", "an earlier sweep")
    asked: list[str] = []
    original = benchkit.sweep.orchestration.devices_of
    monkeypatch.setattr(
        benchkit.sweep.orchestration,
        "devices_of",
        lambda request: asked.append(request.device) or original(request),
    )
    sweep_here(monkeypatch, tmp_path, study)
    assert asked == ["cpu"]


def test_what_auto_means_is_decided_once_and_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A processor that computes no bf16 would be refused, were that decided: this one would choose it by itself.
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    text = text_of(epochs=1, repeats=1).replace('"float32"', '"auto"')
    study = parse_study(text, name="tiny")
    ledger = Ledger(tmp_path)
    ledger.register(make_plan(study), {}, "")
    assert automatic_precision("cpu") == "bf16"
    decide(ledger, "tiny", "precision", "float32", "an earlier sweep on another machine")
    sweep_here(monkeypatch, tmp_path, study)
    (trial,) = read_results(tmp_path).trials
    assert trial.outcome is not None and trial.outcome.cost is not None
    assert trial.outcome.cost.precision == "float32" and trial.condition.key == make_plan(study).conditions[0].key


def test_the_precision_of_an_earlier_versions_trials_stands(tmp_path: Path) -> None:
    study = parse_study(text_of(epochs=1, repeats=2).replace('"float32"', '"auto"'), name="tiny")
    ledger, plan = Ledger(tmp_path), make_plan(study)
    ledger.register(plan, {}, "")
    decide_as_trained(ledger, plan)
    assert decisions_of(ledger, "tiny") == {}
    ledger.enqueue(plan)
    cost = Cost(parameters=7, flops=1, seconds=2.0, images_per_second=1, peak_memory=1, device="cpu", precision="bf16")
    finish_all(ledger, plan, lambda claim: Outcome(state="done", metrics={"val": METRICS, "test": METRICS}, cost=cost))
    decide_as_trained(ledger, plan)
    assert decide_training(ledger, study, Seat(kind="cpu"), "--device auto")["precision"] == "bf16"


def test_what_a_study_varies_is_not_decided_for_all() -> None:
    factor = '[factors]\n"train.precision" = ["float32", "bf16"]\n'
    assert asked_once(study_of(factor)) == {"threads": "1", "compiling": "auto"}
    space = re.sub("space.*", 'space."train.threads" = [1, 2]', SEARCH)
    assert asked_once(study_of(space)) == {"precision": "float32", "compiling": "auto"}


def test_a_ledger_made_again_has_its_decisions(tmp_path: Path) -> None:
    ledger, plan = registered(tmp_path), make_plan(study_of(FACTOR))
    ledger.enqueue(plan)
    finish_all(ledger, plan)
    decide(ledger, "tiny", "precision", "float32", "the study")
    decide(ledger, "tiny", "threads", "1", "the study")
    known = decisions_of(ledger, "tiny")
    (tmp_path / "ledger.db").unlink()
    rebuild_ledger(tmp_path)
    assert decisions_of(Ledger(tmp_path), "tiny") == known and len(known) == 2
