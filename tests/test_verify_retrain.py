"""`benchkit verify --retrain`: trials trained again, for real, and what is said of them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from capsule_edits import capsule_in, edited, put_into
from synthetic_results import complete, with_search
from tiny_study import DATA, FACTOR, SEARCH, InlinePool, study_of, sweep_here

import benchkit.verify.retraining
from benchkit.capsule import Shown, make_capsule, read_capsule
from benchkit.cli import main
from benchkit.errors import LedgerError
from benchkit.ledger import read_results
from benchkit.registry import Registry
from benchkit.report.write import write_report
from benchkit.results import WAS_COMPILED, Decision, StudyResults, Trial
from benchkit.verify.retraining import SAME, Scratch, compare_retrained, equal_grounds, retrain, sample_trials

ALL = 8
"""Trials of the tiny study: two conditions twice, three of a search, and what the search found once more."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    with pytest.MonkeyPatch.context() as patch:
        workspace = tmp_path_factory.mktemp("runs")
        search = SEARCH.replace("trials = 4", "trials = 3") + "[confirm]\nn = 1\n"
        states = sweep_here(patch, workspace, study_of(FACTOR, search, epochs=2))
        assert states == {"done": ALL}
        return read_results(workspace)


def page_of(results: StudyResults, folder: Path) -> Path:
    write_report(results, folder, "html", registry=Registry.installed())
    return folder / "tiny.html"


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    monkeypatch.setenv("BENCHKIT_DATA", str(DATA))
    monkeypatch.setattr(benchkit.verify.retraining, "Pool", InlinePool)

    def run(path: Path, *options: str) -> tuple[int, dict[str, tuple[str, str]], str]:
        code = main(["verify", str(path), "--json", "--device", "cpu", *options])
        printed = capsys.readouterr()
        checks = json.loads(printed.out)["checks"] if printed.out else []
        return code, {one["check"]: (one["state"], one["told"]) for one in checks}, printed.err

    return run


def test_every_trial_comes_out_identical(trained: StudyResults, tmp_path: Path, verify: Any) -> None:
    page = page_of(trained, tmp_path)
    code, checks, told = verify(page, "--retrain", "99", "--workspace", str(tmp_path / "again"))
    again = {name: one for name, one in checks.items() if name.startswith("retrained")}
    assert code == 0, checks
    assert len(again) == ALL and {state for state, _ in again.values()} == {"holds"}
    assert again["retrained 0.1, repeat 1"][1].startswith(
        "identical: every metric on train, val, test, and every logit"
    )
    assert again["retrained search, slot 0"][1] == "identical: every metric on train, val to the last bit"
    assert "retrained best of search, repeat 0" in again
    assert "training 8 trials again, cheapest conditions first, seed 0" in told
    assert len(read_results(tmp_path / "again").trials) >= 1
    code, _, told = verify(page, "--retrain", "1", "--workspace", str(tmp_path / "again"))
    assert code == 2 and "something in this folder already" in told


def falsified(results: StudyResults, better: float) -> StudyResults:
    """Return the results with a better accuracy and loss in every trial: consistent, and untrue."""

    def hurt(trial: Trial) -> Trial:
        assert trial.outcome
        metrics = {
            split: replace(one, accuracy=min(1.0, one.accuracy + better), loss=one.loss * (1 - better))
            for split, one in trial.outcome.metrics.items()
        }
        return replace(trial, outcome=replace(trial.outcome, metrics=metrics))

    return replace(results, trials=tuple(hurt(trial) for trial in results.trials))


def test_only_training_again_finds_what_was_falsified_throughout(
    trained: StudyResults, tmp_path: Path, verify: Any
) -> None:
    page = page_of(falsified(trained, 0.05), tmp_path)
    assert verify(page)[0] == 0
    code, checks, _ = verify(page, "--retrain", "2")
    again = [told for name, (state, told) in checks.items() if name.startswith("retrained") and state == "fails"]
    assert code == 1 and len(again) == 2
    assert all("not identical; same processor and versions, where training is bit-identical" in told for told in again)


METRIC = """
from benchkit.metrics import Metric, declared


@declared(Metric(name="ones", words="share of ones", unit="%", factor=100.0, decimals=2, high=1.0))
def ones(scored):
    return float((scored.labels == 1).mean()) * 1.0


PLUGINS = {"benchkit.metrics": {"ones": ones}}
"""


def test_a_changed_metric_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verify: Any) -> None:
    file = tmp_path / "mine.py"
    file.write_text(METRIC)
    study = study_of('[report]\nmetrics = ["ones"]\n', epochs=1)
    sweep_here(monkeypatch, tmp_path / "runs", study, plugins=(file,))
    write_report(read_results(tmp_path / "runs"), tmp_path, "html", registry=Registry.installed((file,)))
    page, given = tmp_path / "tiny.html", ("--plugin", str(file), "--retrain", "1")
    code, checks, _ = verify(page, *given)
    assert code == 0 and checks["plugins"] == ("holds", "the sources of all plugins are those that trained it")
    file.write_text(METRIC.replace("* 1.0", "* 0.1"))
    code, checks, _ = verify(page, *given)
    (told,) = [told for name, (_, told) in checks.items() if name.startswith("retrained")]
    assert code == 0 and checks["plugins"][0] == "differs"
    assert told.startswith("train share of ones ") and "not identical" in told


def test_what_earlier_versions_did_not_record_of_metrics_does_not_count() -> None:
    now: dict[str, Any] = {
        **dict.fromkeys(SAME, "same"),
        "device": "same, 2 cores",
        "sources": {"model": {"source": "aa"}},
    }
    more = {**now, "sources": {**now["sources"], "report.metrics.ones": {"source": "bb"}}}
    assert equal_grounds(now, more) and equal_grounds(more, more)
    assert not equal_grounds(more, now) and not equal_grounds({**now, "sources": {}}, now)


def elsewhere(results: StudyResults) -> StudyResults:
    """Return the results as if another processor had trained them."""

    def moved(trial: Trial) -> Trial:
        assert trial.outcome
        environment = {**trial.outcome.environment, "processor": "other", "device": "other, 2 cores"}
        return replace(trial, outcome=replace(trial.outcome, environment=environment))

    return replace(results, trials=tuple(moved(trial) for trial in results.trials))


def test_on_another_processor_the_repeats_decide(trained: StudyResults, tmp_path: Path, verify: Any) -> None:
    page = page_of(falsified(elsewhere(trained), 0.001), tmp_path)
    code, checks, _ = verify(page, "--retrain", "99")
    again = {name: one for name, one in checks.items() if name.startswith("retrained")}
    state, told = again["retrained 0.1, repeat 0"]
    values = [t.score("test.accuracy") + 0.001 for t in trained.trials if t.condition.label == "0.1"]
    half = scipy.stats.t.ppf(0.975, 1) * statistics.stdev(values) * math.sqrt(1 + 1 / 2)
    low, high = max(0, statistics.mean(values) - half), min(1, statistics.mean(values) + half)
    assert f"{100 * low:.2f} % to {100 * high:.2f} % (n = 2)" in told and state == "holds"
    assert "inside the 95 % prediction interval of its condition's repeats" in told
    assert again["retrained best of search, repeat 0"][0] == "unchecked"
    assert (
        "with 1 repeat of its condition only identity could be judged" in again["retrained best of search, repeat 0"][1]
    )
    assert "with 0 repeats" in again["retrained search, slot 1"][1]
    assert code == 0


def test_compiled_trials_are_not_held_to_the_bit(trained: StudyResults) -> None:
    trials = [trial for trial in trained.trials if trial.condition.label == "0.1"]
    sample = next(
        one
        for one in sample_trials(read_capsule(make_capsule([trained], Shown())), ALL, 0)
        if one.name == "0.1, repeat 0"
    )
    outcome = trials[0].outcome
    assert outcome and trials[0].index == 0
    metrics = {**outcome.metrics, "test": trials[1].outcome.metrics["test"]}
    plain = replace(outcome, metrics=metrics)
    told = compare_retrained(sample, replace(trials[0], outcome=plain), trained)
    assert told.state == "fails" and "where training is bit-identical" in told.told
    told = compare_retrained(sample, replace(trials[0], outcome=replace(plain, notes=(WAS_COMPILED,))), trained)
    assert told.state == "holds" and "inside the 95 % prediction interval" in told.told


def test_outside_the_interval_fails(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn",), repeats=3, epochs=1)
    capsule = read_capsule(make_capsule([results], Shown()))
    (sample,) = sample_trials(capsule, 1, seed=0)
    values = [trial.score("test.accuracy") for trial in results.trials]
    half = scipy.stats.t.ppf(0.975, 2) * statistics.stdev(values) * math.sqrt(1 + 1 / 3)
    trial = results.trials[0]
    for value, state in (
        (statistics.mean(values) - 0.99 * half, "holds"),
        (statistics.mean(values) - 1.01 * half, "fails"),
    ):
        assert trial.outcome
        metrics = {**trial.outcome.metrics, "test": replace(trial.outcome.metrics["test"], accuracy=value)}
        again = replace(trial, outcome=replace(trial.outcome, metrics=metrics))
        check = compare_retrained(sample, again, results)
        assert check.state == state and "(n = 3)" in check.told
    assert compare_retrained(sample, None, results).state == "unchecked"
    assert trial.outcome
    started = replace(sample, trial=replace(sample.trial, start_weights="a" * 64))
    other = compare_retrained(started, replace(trial, outcome=replace(trial.outcome, start_weights="b" * 64)), results)
    assert other.state == "unchecked" and f"sha256 {'a' * 12}, here from {'b' * 12}" in other.words
    known = replace(trial, outcome=replace(trial.outcome, start_weights="a" * 64))
    assert compare_retrained(started, known, results).state == compare_retrained(sample, trial, results).state
    assert compare_retrained(sample, replace(trial, state="failed"), results).state == "fails"


def test_the_choice_is_spread_cheap_first_and_follows_the_seed(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn", "gn", "ln"), repeats=3, epochs=2)
    costs = {"bn": 3.0, "gn": 1.0, "ln": 2.0}
    slower = tuple(
        replace(trial, history=tuple(replace(r, seconds=costs[trial.condition.label]) for r in trial.history))
        for trial in results.trials
    )
    capsule = read_capsule(make_capsule([replace(results, trials=slower)], Shown()))
    chosen = sample_trials(capsule, 4, seed=0)
    assert [one.condition.label for one in chosen] == ["gn", "ln", "bn", "gn"]
    assert sample_trials(capsule, 4, seed=0) == chosen
    assert len({tuple(one.trial.index for one in sample_trials(capsule, 3, seed)) for seed in range(9)}) > 1
    assert len(sample_trials(capsule, 99, seed=0)) == 9


def test_pruned_and_failed_trials_are_not_chosen(tmp_path: Path) -> None:
    capsule = read_capsule(make_capsule([with_search(tmp_path)], Shown()))
    assert {one.trial.state for one in sample_trials(capsule, 99, seed=0)} == {"done"}


def local(head: dict[str, Any]) -> None:
    for environment in head["studies"][0]["environments"]:
        environment["sources"]["model.norm"].update(file="mine.py", name="torch-bn")


def test_plugins_of_local_files_are_refused(trained: StudyResults, tmp_path: Path, verify: Any) -> None:
    page = page_of(trained, tmp_path)
    put_into(page, edited(capsule_in(page), {"capsule.json": local}))
    code, _, told = verify(page, "--retrain", "1")
    assert code == 2
    assert "plugins from local files" in told and "mine.py" in told and "--plugin FILE" in told


def test_plugins_that_are_not_here_are_told(trained: StudyResults, tmp_path: Path, verify: Any) -> None:
    def strange(head: dict[str, Any]) -> None:
        for condition in head["studies"][0]["conditions"]:
            condition["settings"]["model"]["norm"] = "os:system"

    page = page_of(trained, tmp_path)
    put_into(page, edited(capsule_in(page), {"capsule.json": strange}))
    code, _, told = verify(page, "--retrain", "1")
    assert code == 2 and "there is no norm 'os:system'" in told


def test_other_data_are_not_trained_on(trained: StudyResults, tmp_path: Path, verify: Any) -> None:
    def other(trials: list[dict[str, Any]]) -> None:
        for trial in trials:
            trial["data_fingerprint"] = "f" * 64

    page = page_of(trained, tmp_path)
    put_into(page, edited(capsule_in(page), {"1-tiny/trials.json": other}))
    _, checks, _ = verify(page, "--retrain", "1")
    (told,) = [one for name, one in checks.items() if name.startswith("retrained")]
    assert told == (
        "unchecked",
        "not trained: the data set here has another fingerprint than the one it was trained on",
    )


def test_a_workspace_in_use_is_refused(trained: StudyResults, tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("")
    capsule = read_capsule(make_capsule([trained], Shown()))
    with pytest.raises(LedgerError, match="something in this folder already"):
        retrain(
            capsule, sample_trials(capsule, 1, 0), Registry.installed(), Scratch(workspace=tmp_path, data_root=DATA)
        )


def test_trials_are_trained_again_as_it_was_decided(
    trained: StudyResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchkit.verify.retraining, "Pool", InlinePool)
    known = Decision(name="precision", value="bf16", why="an earlier sweep", version="0.1.0")
    device = Decision(name="device kind", value="cuda", why="--device auto", version="0.1.0")
    capsule = read_capsule(make_capsule([replace(trained, decisions=(known, device))], Shown()))
    scratch = Scratch(workspace=tmp_path / "again", data_root=DATA, device="cpu")
    retrain(capsule, sample_trials(capsule, 1, 0), Registry.installed(), scratch)
    decided = {one.name: one.value for one in read_results(tmp_path / "again").decisions}
    assert decided["precision"] == "bf16" and decided["device kind"] == "cpu"
