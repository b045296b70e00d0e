"""Precision, recall and F1 by class: each class against two libraries, means worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchkit_metrics.by_class import by_class, class_f1, class_precision, class_recall
from sklearn.metrics import precision_recall_fscore_support
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_precision, multiclass_recall

from benchkit.metrics import Predictions, asked_metrics, is_read_each_epoch


def called(labels: list[int], predicted: list[int], classes: int) -> Predictions:
    return Predictions(np.eye(classes, dtype=np.float32)[predicted], np.array(labels))


def test_each_class_has_the_value_of_other_libraries() -> None:
    generator = np.random.default_rng(2)
    scored = Predictions(generator.normal(size=(200, 5)).astype(np.float32), generator.integers(0, 5, 200))
    predicted = scored.logits.argmax(1)
    expected = precision_recall_fscore_support(scored.labels, predicted, labels=range(5))[:3]
    pair = torch.from_numpy(predicted), torch.from_numpy(scored.labels)
    others = [
        score(*pair, num_classes=5, average="none")
        for score in (multiclass_precision, multiclass_recall, multiclass_f1_score)
    ]
    for ours, sklearns, torchs in zip(by_class(scored), expected, others, strict=True):
        assert ours == pytest.approx(sklearns) and ours == pytest.approx(torchs.numpy(), abs=1e-6)


def test_means_are_over_the_classes_that_occur() -> None:
    scored = called([0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 3, 3], 4)
    # By hand: precisions 1, 1/2, 0 (never called) of the three classes that occur; the fourth is only called.
    assert class_precision(scored) == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert class_recall(scored) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert class_f1(scored) == pytest.approx((4 / 5 + 2 / 3 + 0) / 3)
    assert [np.isnan(values).tolist() for values in by_class(scored)] == [[False, False, False, True]] * 3


def test_they_are_goals_and_read_each_epoch() -> None:
    names = ["class-precision", "class-recall", "class-f1"]
    assert all(one.goal and one.over_classes for one in asked_metrics(names)) and len(asked_metrics(names)) == 3
    assert all(is_read_each_epoch(f"val.{name.replace('-', '_')}") for name in names)
