"""The figures of classes and probabilities: their numbers by hand and by scikit-learn, and their words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchkit_figures.classes.class_scores import ClassScores
from benchkit_figures.classes.reliability import Reliability, reliability_bins
from figure_checks import drawn
from figure_results import NORMS, condition, learned, metrics, results, trial
from safetensors.numpy import save_file
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_fscore_support

from benchkit import NothingToDraw, PluginError
from benchkit.results import Outcome
from benchkit.testing.results import results_of


def scored(label: str, confusion: Any, accuracy: float = 0.5) -> Any:
    return trial(condition(label), outcome=Outcome(state="done", metrics={"test": metrics(accuracy, 0.5, confusion)}))


# --- reliability -----------------------------------------------------------------------------------------------------


def test_bins_hold_what_scikit_learn_s_calibration_curve_does() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.2, 1.0, 500)
    right = rng.random(500) < confidence
    found = reliability_bins(confidence, right)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    assert [one.accuracy for one in found] == pytest.approx(accuracy)
    assert [one.confidence for one in found] == pytest.approx(mean)
    assert sum(one.n for one in found) == 500
    (last,) = reliability_bins(np.array([1.0]), np.array([True]))
    assert (last.low, last.high, last.accuracy) == (0.9333, 1.0, 1.0)


def test_reliability_takes_the_repeats_together_and_the_mean_of_their_calibration_errors(tmp_path: Path) -> None:
    given = results_of(tmp_path, 2, repeats=3)
    data = Reliability().data(given)
    assert [one.n for one in data.conditions] == [3, 3]
    own = [t for t in given.trials if t.condition.label == "norm-1"]
    logits = np.concatenate([t.predictions("test") for t in own]).astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    images = sum(one.n for one in data.conditions[0].bins)
    assert images == len(logits)
    mean = sum(one.n * one.confidence for one in data.conditions[0].bins) / images
    assert mean == pytest.approx(shares.max(1).mean())
    expected = np.mean([t.value("test.calibration_error") for t in own])
    assert data.conditions[0].calibration_error == pytest.approx(expected)
    drawn(Reliability(), given)


def test_without_logits_there_is_no_reliability(tmp_path: Path) -> None:
    with pytest.raises(NothingToDraw, match="predictions"):
        Reliability().data(learned(NORMS[:2], 1, 2))
    # What a capsule keeps: right or wrong, in bytes.
    answers = np.eye(2, dtype=np.uint8)
    save_file({"test": answers, "test_labels": np.zeros(2, np.int64)}, tmp_path / "predictions.safetensors")
    kept = replace(scored("bn", ((9, 1), (2, 8))), folder=tmp_path)
    with pytest.raises(NothingToDraw, match="predictions"):
        Reliability().data(results([condition("bn")], [kept]))
    with pytest.raises(PluginError, match="split"):
        Reliability(split="all").data(results([condition("bn")], [kept]))


# --- precision, recall and F1 ----------------------------------------------------------------------------------------


def test_class_scores_equal_scikit_learn_s() -> None:
    counts = np.array([[50, 3, 7, 0], [10, 20, 0, 0], [0, 5, 5, 0], [1, 0, 0, 0]])
    pairs = [(true, called) for true in range(4) for called in range(4) for _ in range(counts[true, called])]
    labels, called = zip(*pairs, strict=True)
    precision, recall, f1, _ = precision_recall_fscore_support(labels, called, zero_division=0.0)
    given = results([condition("bn")], [scored("bn", tuple(map(tuple, counts.tolist())))], classes=4)
    found = {score.name: score for score in ClassScores().data(given).classes}
    for label in range(4):
        score = found[f"class {label}"]
        assert score.f1 == pytest.approx(f1[label])
        assert score.recall == pytest.approx(recall[label])
        assert score.precision == (None if label == 3 else pytest.approx(precision[label]))
    assert ClassScores().data(given).classes[0].name == "class 3"
    drawn(ClassScores(), given)


def test_class_scores_are_of_the_best_condition_or_the_one_named() -> None:
    given = results(
        [condition("bn"), condition("gn"), condition("ln")],
        [scored("bn", ((5, 5), (5, 5)), 0.5), scored("gn", ((9, 1), (1, 9)), 0.9)],
    )
    figure = ClassScores()
    data = figure.data(given)
    assert (data.condition, data.best) == ("gn", True)
    assert "by gn, the best condition, one repeat" in figure.caption(data)
    assert ClassScores(condition="bn").data(given).condition == "bn"
    with pytest.raises(PluginError, match="expected one of gn, bn"):
        ClassScores(condition="ln").data(given)


@pytest.mark.parametrize("classes", [2, 10, 40])
def test_class_scores_draw_few_and_many_classes(classes: int) -> None:
    given = learned(NORMS[:2], 2, 2, classes=classes)
    spec = drawn(ClassScores(), given)
    rows = {row["class"] for rows in spec["datasets"].values() for row in rows} if "datasets" in spec else set()
    assert len(rows) <= 25
    assert ("of 40 classes" in ClassScores().caption(ClassScores().data(given))) == (classes == 40)
