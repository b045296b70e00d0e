"""Metrics read after each epoch: in the record, in selection and pruning, undefined in some, and from a local file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_study
from benchkit_figures.training.metric_curves import MetricCurves
from benchkit_metrics.balanced_accuracy import balanced_accuracy
from benchkit_metrics.brier import brier
from engine_runs import make_run, make_settings

import benchkit.metrics
from benchkit import NothingToDraw
from benchkit.errors import PluginError, StudyError
from benchkit.ledger import Ledger
from benchkit.ledger.readback import read_results
from benchkit.metrics import Metric, Predictions, asked_metrics, epoch_readings, is_read_each_epoch, metric_of
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.study.checks import check_plan
from benchkit.train.evaluate import finish, logits_of
from benchkit.train.fit import fit
from benchkit.train.run import Run

FILE = """
from benchkit import card
from benchkit.metrics import Metric, declared

@card(title="Surprise", summary="One less the mean probability.")
@declared(Metric(name="surprise", words="surprise", lower_is_better=True, goal=True, every_epoch=True))
def surprise(scored):
    return 1.0 - float((scored.logits.argmax(1) == scored.labels).mean())

PLUGINS = {"benchkit.metrics": {"surprise": surprise}}
"""


def predicted(run: Run) -> Predictions:
    return Predictions(logits_of(run, run.val).cpu().numpy(), run.val.labels.cpu().numpy())


def test_what_a_study_asks_for_is_read_after_each_epoch_and_nothing_else_changes() -> None:
    run, plain = make_run(make_settings(epochs=3)), make_run(make_settings(epochs=3))
    run.readings = epoch_readings(["brier", "val.macro_f1", "test.accuracy", "val.loss", "cost.seconds", "nothing"])
    assert [one.name for one in run.readings] == ["brier", "macro_f1"]
    for record, other in zip(fit(run), fit(plain), strict=True):
        assert record.score("val.brier") == brier(predicted(run)) and "val.macro_f1" in record.observed
        assert (record.train_loss, record.val_loss) == (other.train_loss, other.val_loss) and not other.observed
        assert math.isnan(other.score("val.brier"))


def scores_by_epoch(values: list[float | None]) -> Metric:
    """Return a metric that has these values, one after another."""
    left = iter(values)
    return Metric(name="brier", words="own", lower_is_better=True, every_epoch=True, computed=lambda _: next(left))


@pytest.mark.parametrize(
    ("values", "selected"), [([None, 0.5, 0.4, 0.4], 3), ([0.1, None, 0.4, None], 1), ([None] * 4, 4)]
)
def test_epochs_in_which_the_metric_is_undefined_are_not_selected(values: list[float | None], selected: int) -> None:
    run = make_run(make_settings(epochs=4, select_by="val.brier"))
    run.readings = (scores_by_epoch(values),)
    kept = [(record.epoch, "val.brier" in record.observed) for record in fit(run)]
    assert [there for _, there in kept] == [value is not None for value in values]
    finished = finish(run, test=False)
    assert finished.selected_epoch == selected
    said = "val.brier was undefined in every epoch: the last one's weights are scored"
    assert (said in finished.notes) == (selected == 4)


def test_trials_are_pruned_and_selected_by_a_plugins_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = """
[search]
trials = 8
goal = "val.balanced_accuracy"
sampler = "grid"
pruner = "median"
space."train.optimizer.lr" = [0.3, 0.2, 0.1, 0.15, 0.25, 0.05, 1e-8, 1e-9]
"""
    study = tiny_study.study_of(search, epochs=12, overrides=["train.select_by=val.balanced_accuracy"])
    tiny_study.sweep_here(monkeypatch, tmp_path, study)
    trials = [one for one in Ledger(tmp_path).trials(make_plan(study)) if one.phase == "search"]
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert {trial.params["train.optimizer.lr"] for trial in pruned} >= {1e-8}
    assert all(len(trial.history) < 12 for trial in pruned)
    for trial in trials:
        read = [record.score("val.balanced_accuracy") for record in trial.history]
        if trial.state == "done" and trial.outcome:
            assert trial.outcome.selected_epoch == 1 + int(np.argmax(read))
            assert trial.value("val.balanced_accuracy") == max(read)


def test_a_plateau_and_early_stopping_read_a_plugins_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steered = (
        "train.schedule.name=reduce-on-plateau", "train.schedule.metric=val.brier", "train.schedule.patience=0",
        "train.schedule.threshold=0.05", "train.schedule.factor=0.5",
    )  # fmt: skip
    stop = '[[regularizers]]\nname = "early-stopping"\nmetric = "val.brier"\npatience = 3\nmin_delta = 0.05\n'
    study = tiny_study.study_of(stop, epochs=40, repeats=1, overrides=steered)
    assert tiny_study.sweep_here(monkeypatch, tmp_path, study) == {"done": 1}
    (trial,) = read_results(tmp_path).trials
    read = [record.observed["val.brier"] for record in trial.history]
    rate, best, bad = 0.1, math.inf, 0
    for record, value in zip(trial.history, read, strict=True):
        assert record.learning_rate == pytest.approx(rate), record.epoch
        best, bad = (value, 0) if value < best - 0.05 else (best, bad + 1)
        rate *= 0.5 if bad else 1.0
        assert bad < 3 or record.epoch == len(read)
    assert len(read) < 40 and rate < 0.1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ('[[regularizers]]\nname = "early-stopping"\nmetric = "val.brierr"\n', "did you mean 'val.brier'?"),
        ('[train.schedule]\nname = "reduce-on-plateau"\nmetric = "test.brier"\n', "= 'test.brier' is not allowed"),
    ],
)
def test_what_no_epoch_is_read_by_steers_nothing(options: str, said: str) -> None:
    with pytest.raises(StudyError) as caught:
        check_plan(make_plan(tiny_study.study_of(options)), Registry.installed())
    assert said in str(caught.value)


def test_a_search_goes_on_where_its_goal_is_undefined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchkit.metrics, "_plugin", lambda name: Metric(
        name=name, words="never", goal=True, every_epoch=True, lower_is_better=True, undefined="of nothing",
        computed=lambda scored: None))  # fmt: skip
    search = '[search]\ntrials = 2\ngoal = "val.brier"\nspace."train.optimizer.lr" = [0.1, 0.2]\n'
    study = tiny_study.study_of(search, epochs=1)
    assert tiny_study.sweep_here(monkeypatch, tmp_path, study)["done"] >= 2
    (trial, *_) = [one for one in read_results(tmp_path).trials if one.phase == "search"]
    assert trial.value("val.brier") is None and trial.outcome
    assert "val.brier is undefined: of nothing" in trial.outcome.notes


@pytest.mark.parametrize("metric", ["val.nothing", "test.accuracy", "val.brierr"])
def test_a_selection_by_what_is_no_metric_is_refused(metric: str) -> None:
    with pytest.raises(StudyError) as caught:
        tiny_study.study_of(overrides=[f"train.select_by={metric}"])
    assert f"train.select_by: got {metric!r}, expected one of val.accuracy" in "\n".join(caught.value.problems)


def test_a_selection_by_what_no_epoch_is_read_by_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchkit.metrics, "_plugin", lambda name: Metric(name=name, words="slow"))
    assert not is_read_each_epoch("val.brier")
    with pytest.raises(StudyError) as caught:
        tiny_study.study_of(overrides=["train.select_by=val.brier"])
    assert "which its plugin says no epoch can be read by" in "\n".join(caught.value.problems)


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Forget the metrics of local files afterwards."""
    yield
    benchkit.metrics._OF_FILES.clear()
    benchkit.metrics._plugin.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_a_metric_of_a_local_file_is_goal_column_and_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.py"
    path.write_text(FILE)
    assert metric_of("val.surprise").words == "surprise" and not asked_metrics(["surprise"])
    registry = Registry.installed([path])
    assert metric_of("val.surprise").lower_is_better and asked_metrics(["surprise"])
    search = '[search]\ntrials = 2\ngoal = "val.surprise"\nspace."train.optimizer.lr" = [0.1, 0.2]\n'
    report = '[report]\nmetric = "test.surprise"\nmetrics = ["surprise"]\n'
    study = tiny_study.study_of(search, report, epochs=2)
    assert study.search and study.search.goals[0].direction == "minimize"
    check_plan(make_plan(study), registry)
    workspace = tmp_path / "runs"
    tiny_study.sweep_here(monkeypatch, workspace, study, plugins=(path,))
    for trial in read_results(workspace).trials:
        if trial.state == "done":
            assert trial.value("val.surprise") == pytest.approx(1 - (trial.value("val.accuracy") or 0))
            assert all(
                record.score("val.surprise") == pytest.approx(1 - record.val_accuracy) for record in trial.history
            )
    benchkit.metrics._OF_FILES.clear()
    benchkit.metrics._plugin.cache_clear()
    with pytest.raises(PluginError, match="not installed here: surprise"):
        _ = study.asked_metrics
    read_results(workspace)  # whose trials tell the declaration, and so which way is better
    assert metric_of("val.surprise").lower_is_better and study.asked_metrics


def test_balanced_accuracy_by_epoch_is_the_split_s() -> None:
    run = make_run(make_settings(epochs=2, select="last"))
    run.readings = run.metrics = asked_metrics(["balanced-accuracy"])
    last: Any = None
    for record in fit(run):
        last = record.score("val.balanced_accuracy")
        assert last == balanced_accuracy(predicted(run))
    assert finish(run).metrics["val"].more["balanced_accuracy"] == last
    assert json.loads(json.dumps(run.history[-1].observed)) == {"val.balanced_accuracy": last}


def test_curves_show_a_metric_by_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tiny_study.study_of(tiny_study.FACTOR, '[report]\nmetrics = ["brier", "cohen-kappa"]\n', epochs=3)
    tiny_study.sweep_here(monkeypatch, tmp_path, study)
    results = read_results(tmp_path)
    data = MetricCurves().data(results)
    assert data.metric == "val.brier" and data.lower and [curve.n for curve in data.curves] == [2, 2]
    trials = results.of(results.conditions[0], "done")
    means = [np.mean([trial.history[epoch].score("val.brier") for trial in trials]) for epoch in range(3)]
    assert [point.mean for point in data.curves[0].points] == pytest.approx(means)
    assert MetricCurves(metric="cohen-kappa").data(results).metric == "val.cohen_kappa"
    assert MetricCurves().caption(data).startswith("Validation Brier score by epoch; less is better. Lines: mean over")
    ends = {curve.condition: curve.points[-1].mean for curve in data.curves}
    assert f"{min(ends, key=lambda label: ends[label])} has the best validation Brier" in MetricCurves().alt_text(data)
    assert "Validation Brier score" in MetricCurves().draw(data).to_json()


def test_curves_of_what_was_not_read_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_study.sweep_here(monkeypatch, tmp_path, tiny_study.study_of(epochs=1, repeats=1))
    results = read_results(tmp_path)
    with pytest.raises(NothingToDraw, match="no metric that epochs are read by"):
        MetricCurves().data(results)
    with pytest.raises(NothingToDraw, match=r"no epoch of a finished repeat was read by val\.brier"):
        MetricCurves(metric="brier").data(results)
