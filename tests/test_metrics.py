"""The metrics that studies ask for: numbers worked by hand, other libraries' class by class, and where they show."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_study
import torch
from benchkit_metrics.balanced_accuracy import balanced_accuracy
from benchkit_metrics.brier import brier
from benchkit_metrics.cohen_kappa import cohen_kappa
from benchkit_metrics.ranks import average_precision, macro_auroc, margins
from engine_runs import make_run
from kit_failures import failure_of
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

import benchkit.train.evaluate
from benchkit import PluginError, card
from benchkit.errors import StudyError
from benchkit.ledger import Ledger
from benchkit.ledger.readback import read_results
from benchkit.metrics import Metric, Predictions, asked_metrics, declared, goal_metrics, metric_of, plugin_metrics
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.study.checks import check_plan
from benchkit.train.evaluate import finish, metric_notes
from benchkit.train.fit import fit

ORDERS = Predictions(
    np.array([[3, 2, 1, 0], [1, 3, 2, 0], [2, 3, 1, 0], [3, 1, 2, 0], [0, 1, 3, 2], [2, 3, 0, 1]], np.float32),
    np.array([0, 0, 1, 1, 2, 2]),
)
"""Three of four classes occur; each image has the same four logits in another order."""
ASKED = '[report]\nmetrics = ["cohen-kappa", "brier", "balanced-accuracy"]\n'


def called(labels: list[int], predicted: list[int], classes: int) -> Predictions:
    return Predictions(np.eye(classes, dtype=np.float32)[predicted], np.array(labels))


def noise(n: int = 300, classes: int = 4) -> Predictions:
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(size=(n, classes)).astype(np.float32), generator.integers(0, classes, n)
    logits[: n // 4] = logits[n // 4 : 2 * (n // 4)]
    return Predictions(logits, labels)


def test_a_class_that_does_not_occur_is_left_out_of_the_mean() -> None:
    assert balanced_accuracy(called([0, 0, 1, 1], [0, 0, 1, 2], 3)) == pytest.approx(0.75)
    assert macro_auroc(ORDERS) == pytest.approx((4.5 / 8 + 3.5 / 8 + 4 / 8) / 3)
    assert average_precision(ORDERS) == pytest.approx((0.45 + 1 / 3 + 2 / 3) / 3)


def test_how_many_classes_occur_is_said() -> None:
    asked = asked_metrics(["macro-auroc", "brier"])
    found = {one.name: 0.5 for one in asked}
    said = "test.macro_auroc is a mean over the classes that occur, 3 of 4"
    assert metric_notes(asked, "test", ORDERS, found) == [said]


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_each_class_has_the_value_of_other_libraries(classes: int) -> None:
    scored = noise(classes=classes)
    order = torch.from_numpy(scored.logits).double()
    order = (order - torch.stack([order[:, [j for j in range(classes) if j != k]].logsumexp(1) for k in range(classes)],
                                 1)).sigmoid()  # fmt: skip
    own = [torch.from_numpy(scored.labels == label).long() for label in range(classes)]
    kept = range(1 if classes == 2 else 0, classes)
    areas = [binary_auroc(order[:, label], own[label]).item() for label in kept]
    assert macro_auroc(scored) == pytest.approx(np.mean(areas), abs=1e-6)
    precisions = [binary_average_precision(order[:, label], own[label]).item() for label in kept]
    assert average_precision(scored) == pytest.approx(np.mean(precisions), abs=1e-6)


def test_counted_metrics_are_those_of_scikit_learn() -> None:
    scored = noise()
    predicted = scored.logits.argmax(1)
    assert balanced_accuracy(scored) == pytest.approx(sklearn_metrics.balanced_accuracy_score(scored.labels, predicted))
    assert cohen_kappa(scored) == pytest.approx(sklearn_metrics.cohen_kappa_score(scored.labels, predicted))
    shares = torch.from_numpy(scored.logits).double().softmax(1).numpy()
    expected = ((shares - np.eye(4)[scored.labels]) ** 2).sum(1).mean()
    assert brier(scored) == pytest.approx(expected)
    assert brier(called([0], [0], 2)) == pytest.approx(2 * (1 / (1 + math.e)) ** 2)


def test_ranks_are_those_of_logits() -> None:
    """From probabilities, which are all 1 in float64, the area would be a half."""
    gaps = 38 + np.arange(15, dtype=np.float32)
    scored = Predictions(np.stack([np.zeros(15, np.float32), gaps], 1), np.array([1, 0, *[1] * 13]))
    assert macro_auroc(scored) == pytest.approx(13 / 14)
    assert margins(scored.logits)[:, 1].tolist() == gaps.tolist()


def test_kappa_of_one_class_is_undefined() -> None:
    assert cohen_kappa(called([1, 1], [1, 1], 3)) is None
    assert cohen_kappa(called([1, 1], [1, 0], 3)) == pytest.approx(0.0)
    assert macro_auroc(called([1, 1], [1, 0], 3)) is None


def test_a_metric_that_is_undefined_is_left_out_with_a_reason() -> None:
    run = make_run()
    for _ in fit(run):
        pass
    run.metrics = (metric_of("cohen_kappa"),)
    run.val.labels.zero_()
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.zero_()
    run.best.weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    finished = finish(run)
    assert finished.metrics["val"].value("cohen_kappa") is None and "cohen_kappa" not in finished.metrics["val"].more
    reason = "val.cohen_kappa is undefined: all labels and all predictions are of one class"
    assert reason in finished.notes


def test_the_size_of_evaluation_batches_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for size in (7, 2048):
        monkeypatch.setattr(benchkit.train.evaluate, "evaluation_batch", lambda run, size=size: size)
        run = make_run()
        for _ in fit(run):
            pass
        run.metrics = asked_metrics(list(plugin_metrics()))
        order = torch.argsort(run.test.labels)
        run.test = type(run.test)(
            images=run.test.images, rows=run.test.rows[order], labels=run.test.labels[order], streamed=False
        )
        finished = finish(run)
        found.append(finished.metrics["test"].more)
        whole = Predictions(finished.logits["test"], finished.labels["test"])
        assert all(found[-1][one.name] == one.computed(whole) for one in run.metrics if one.computed)
    assert found[0].keys() == found[1].keys() >= set(plugin_metrics())
    assert all(found[0][name] == pytest.approx(found[1][name], rel=1e-5) for name in found[0])


def test_a_study_asks_for_metrics_and_older_trials_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = tiny_study.study_of(repeats=1)
    assert tiny_study.sweep_here(monkeypatch, tmp_path, older) == {"done": 1}
    before = Ledger(tmp_path).trials(make_plan(older))[0].outcome
    assert before and "brier" not in before.metrics["test"].more
    study = tiny_study.study_of(ASKED, repeats=2)
    assert tiny_study.sweep_here(monkeypatch, tmp_path, study) == {"done": 2}
    first, second = read_results(tmp_path).trials
    for trial in (first, second):
        assert trial.outcome
        scored = Predictions(trial.predictions("test"), trial.labels("test"))
        assert trial.value("test.brier") == brier(scored) and trial.value("test.cohen_kappa") == cohen_kappa(scored)
    assert first.value("train.brier") is None and second.value("train.brier") is not None  # not measured: no logits


def test_a_metric_is_goal_and_main_metric_by_its_direction() -> None:
    search = '[search]\ntrials = 2\ngoal = "val.brier"\nspace."train.optimizer.lr" = [0.1, 0.2]\n'
    study = tiny_study.study_of(search, '[report]\nmetric = "test.macro_auroc"\n')
    assert study.search and study.search.goals[0].direction == "minimize" and "val.brier" in goal_metrics()
    assert [one.name for one in study.asked_metrics] == ["macro_auroc", "brier"]
    assert metric_of("val.cohen_kappa").bounds == (-1.0, 1.0) and metric_of("test.brier").lower_is_better
    with pytest.raises(StudyError) as caught:
        check_plan(make_plan(tiny_study.study_of('[report]\nmetrics = ["briar"]\n')), Registry.installed())
    assert "did you mean 'brier'?" in str(caught.value)


def test_a_trial_that_asks_for_nothing_has_what_it_had() -> None:
    assert not tiny_study.study_of().asked_metrics
    assert asked_metrics(["test.accuracy", "auroc", "nothing"]) == ()


@card(title="Own", summary="For tests.")
@declared(Metric(name="own", words="own", high=1.0))
def in_percent(scored: Predictions) -> float | None:
    return 100 * float(scored.correct.sum() / len(scored.labels))


@declared(Metric(name="own", words="own", high=1.0, lower_is_better=True))
def wrong_way(scored: Predictions) -> float | None:
    """Accuracy, as if less were better."""
    return float(scored.correct.sum() / len(scored.labels))


@declared(Metric(name="own", words="own", low=-9.0, high=9.0))
def of_the_first(scored: Predictions) -> float | None:
    """By place."""
    return float(scored.logits[0, 0] - scored.logits[0, -1])


@declared(Metric(name="own", words="own", high=1e9))
def overflowing(scored: Predictions) -> float | None:
    """A softmax by hand."""
    with np.errstate(all="ignore"):
        powers = np.exp(scored.logits.astype(np.float64))
        return float((powers / powers.sum(1, keepdims=True)).max(1).mean())


@declared(Metric(name="own", words="own", low=-1e9, high=1e9))
def of_raw_logits(scored: Predictions) -> float | None:
    """The greatest logit."""
    return float(scored.logits.max(1).mean())


def undeclared(scored: Predictions) -> float | None:
    """Nothing is said of it."""
    return 0.0


@declared(Metric(name="own", words="own", high=10.0))
def in_place(scored: Predictions) -> float | None:
    """Sorts the caller's logits."""
    scored.logits.sort(axis=1)
    return 0.5


@declared(Metric(name="own", words="own", high=10.0))
def by_count(scored: Predictions) -> float | None:
    """Divides by one less than the images."""
    return 1.0 / (len(scored.labels) - 1)


@pytest.mark.parametrize(
    ("check", "plugin", "expected"),
    [
        ("declaration", undeclared, "@declared"), ("range", in_percent, "0..1"), ("direction", wrong_way, "a better"),
        ("order", of_the_first, "one value"), ("pure", in_place, "as they were"), ("shift", of_raw_logits, "one value"),
        ("large", overflowing, "a finite float"), ("single", by_count, "a float or None"),
    ],
)  # fmt: skip
def test_a_broken_metric_is_caught(check: str, plugin: Any, expected: str) -> None:
    assert expected in failure_of("metrics", plugin, check).expected


def test_a_broken_or_ambiguous_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import benchkit.metrics as declared_here

    broken = EntryPoint(name="odd", value="no_such_module:odd", group="benchkit.metrics")
    monkeypatch.setattr(declared_here, "plugin_metrics", lambda: {"odd": (broken,), "two": (broken, broken)})
    with pytest.raises(PluginError, match=r"'odd' .no_such_module:odd. is broken"):
        metric_of("test.odd")
    with pytest.raises(PluginError, match="'two' is claimed 2 times"):
        metric_of("test.two")


def test_of_two_plugins_of_one_name_results_are_read_by_what_they_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    import benchkit.metrics as declared_here

    one = EntryPoint(name="two", value="no_such_module:two", group="benchkit.metrics")
    monkeypatch.setattr(declared_here, "_OF_FILES", {})
    monkeypatch.setattr(declared_here, "_installed", lambda: {"two": (one, one)})
    declared_here._plugin.cache_clear()
    with pytest.raises(PluginError, match="'two' is claimed 2 times"):
        metric_of("test.two")
    declared_here.know_recorded({"metrics": {"two": {"words": "two things", "lower_is_better": True}}})
    assert (metric_of("test.two").words, metric_of("test.two").lower_is_better) == ("two things", True)
    declared_here._plugin.cache_clear()
