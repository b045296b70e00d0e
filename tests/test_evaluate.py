"""Metrics against scikit-learn and torchmetrics, cost by hand, and the end of a run."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_runs import Flip, learnt, make_run, make_settings, make_splits, plain_net
from scipy import stats
from sklearn import metrics
from torch.nn import functional

from benchkit import TrainingError
from benchkit.metrics import Predictions, calibration_error
from benchkit.predictions import mid_ranks
from benchkit.train.cost import forward_flops
from benchkit.train.evaluate import evaluation_batch, finish, logits_of, loss_and_accuracy, split_metrics
from benchkit.train.fit import fit


def random_scores(n: int = 400, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, n)
    logits = generator.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += 1.5
    return logits, labels


def test_metrics_equal_scikit_learn_s() -> None:
    logits, labels = random_scores()
    found = split_metrics(Predictions(logits, labels))
    called = logits.argmax(1)
    wide = logits.astype(np.float64)
    probabilities = np.exp(wide) / np.exp(wide).sum(1, keepdims=True)
    report = metrics.classification_report(labels, called, output_dict=True)
    assert found.n == 400
    assert found.loss == pytest.approx(metrics.log_loss(labels, probabilities), rel=1e-9)
    assert found.accuracy == pytest.approx(report["accuracy"])
    assert found.micro_f1 == pytest.approx(report["accuracy"])
    assert found.macro_f1 == pytest.approx(report["macro avg"]["f1-score"])
    assert found.class_accuracy == pytest.approx([report[str(label)]["recall"] for label in range(5)])
    assert np.array_equal(found.confusion, metrics.confusion_matrix(labels, called))


@pytest.mark.parametrize("seed", range(20))
def test_counted_metrics_are_those_of_scikit_learn_to_the_bit(seed: int) -> None:
    """Few images of many classes: some occur among the labels alone, some among the predictions, some nowhere."""
    generator = np.random.default_rng(seed)
    n, classes = int(generator.integers(1, 300)), int(generator.integers(2, 40))
    labels = generator.integers(0, max(1, classes - 3), n)
    logits = generator.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += generator.uniform(0, 3)
    found, called, known = split_metrics(Predictions(logits, labels)), logits.argmax(1), np.arange(classes)
    assert found.accuracy == metrics.accuracy_score(labels, called)
    assert found.micro_f1 == metrics.f1_score(labels, called, average="micro")
    assert found.macro_f1 == metrics.f1_score(labels, called, average="macro", zero_division=0.0)
    shares = metrics.recall_score(labels, called, labels=known, average=None, zero_division=np.nan)
    assert np.array_equal(found.class_accuracy, shares, equal_nan=True)
    assert np.array_equal(found.confusion, metrics.confusion_matrix(labels, called, labels=known))


@pytest.mark.parametrize("classes", [6, 10, 40])
def test_top_5_accuracy_equals_scikit_learn_s(classes: int) -> None:
    logits, labels = random_scores(300, classes)
    expected = metrics.top_k_accuracy_score(labels, logits, k=5, labels=np.arange(classes))
    assert split_metrics(Predictions(logits, labels)).value("top5_accuracy") == pytest.approx(expected, rel=1e-12)


def test_of_equal_logits_the_first_five_are_the_top_5() -> None:
    flat = np.zeros((7, 7), dtype=np.float32)
    assert split_metrics(Predictions(flat, np.arange(7))).value("top5_accuracy") == pytest.approx(5 / 7)


def test_five_classes_have_no_top_5_accuracy() -> None:
    found = split_metrics(Predictions(*random_scores(classes=5)))
    assert found.value("top5_accuracy") is None and "top5_accuracy" not in found.more


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_auroc_equals_scikit_learn_s(classes: int) -> None:
    logits, labels = random_scores(300, classes)
    logits[:50] = logits[50:100]  # equal scores count half
    shares = torch.from_numpy(logits).double().softmax(1).numpy()
    if classes == 2:
        expected = metrics.roc_auc_score(labels, shares[:, 1])
    else:
        expected = metrics.roc_auc_score(labels, shares, multi_class="ovr", average="macro")
    assert split_metrics(Predictions(logits, labels)).value("auroc") == pytest.approx(expected, rel=1e-12)


def test_auroc_leaves_out_classes_without_images_and_is_not_stated_of_many_classes() -> None:
    logits, labels = random_scores(300, 4)
    kept = labels != 2
    shares = torch.from_numpy(logits[kept]).double().softmax(1).numpy()
    expected = np.mean([metrics.roc_auc_score(labels[kept] == label, shares[:, label]) for label in (0, 1, 3)])
    assert split_metrics(Predictions(logits[kept], labels[kept])).value("auroc") == pytest.approx(expected, rel=1e-12)
    assert split_metrics(Predictions(logits, np.zeros_like(labels))).value("auroc") is None
    assert split_metrics(Predictions(*random_scores(classes=11))).value("auroc") is None


def test_ranks_are_scipy_s_to_the_bit() -> None:
    values = np.random.default_rng(3).integers(0, 40, 200) / 7
    for column in (values, values[:1], values[:0], np.where(values > 3, np.nan, values)):
        assert np.array_equal(mid_ranks(column), stats.rankdata(column), equal_nan=True)


def test_calibration_error_equals_torchmetrics() -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits, labels = random_scores()
    probabilities = torch.from_numpy(logits).double().softmax(1)
    expected = multiclass_calibration_error(probabilities, torch.from_numpy(labels), 5, n_bins=15, norm="l1")
    assert calibration_error(probabilities.numpy(), labels) == pytest.approx(expected.item(), abs=1e-7)


def test_calibration_error_by_hand() -> None:
    sure = np.array([[0.95, 0.05]] * 4)
    assert calibration_error(sure, np.array([0, 0, 1, 1])) == pytest.approx(0.45)
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0.0


def test_a_class_without_images_has_no_accuracy() -> None:
    found = split_metrics(Predictions(np.eye(3, dtype=np.float32)[[0, 1]], np.array([0, 1])))
    assert found.class_accuracy[:2] == (1.0, 1.0) and math.isnan(found.class_accuracy[2])
    assert found.confusion[2] == (0, 0, 0) and found.macro_f1 == 1.0


def test_logits_are_those_of_the_model_in_evaluation() -> None:
    run = make_run()
    next(fit(run))
    images = run.val.take(torch.arange(len(run.val))).to(torch.float32) / 255
    run.model.eval()
    with torch.no_grad():
        expected = run.model(run.input_transform(images))
    found = logits_of(run, run.val)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    loss, accuracy = loss_and_accuracy(found, run.val.labels)
    assert loss == pytest.approx(functional.cross_entropy(expected, run.val.labels).item(), rel=1e-5)
    assert accuracy == pytest.approx(metrics.accuracy_score(run.val.labels, expected.argmax(1)))


@pytest.mark.parametrize(("device", "side", "expected"), [
    ("cpu", 32, 256), ("cpu", 224, 83), ("cuda", 32, 2048), ("cuda", 224, 167), ("cuda", 4096, 20),
])  # fmt: skip
def test_fewer_large_images_are_evaluated_at_once(device: str, side: int, expected: int) -> None:
    run = make_run(make_settings(batch_size=20))
    run.val = replace(run.val, images=torch.empty(1, side, side, 3, dtype=torch.uint8, device="meta"))
    run.device = torch.device(device)
    assert evaluation_batch(run) == expected


def test_the_best_epoch_s_weights_are_scored() -> None:
    run = make_run(make_settings(epochs=6, optimizer={"lr": 0.4}), regularizers=[("flip", Flip())])
    records = list(fit(run))
    best = min(records, key=lambda record: record.val_loss)
    finished = finish(run)
    assert finished.selected_epoch == best.epoch
    assert finished.metrics["val"].loss == pytest.approx(best.val_loss, rel=1e-6)
    assert finished.metrics["val"].accuracy == pytest.approx(best.val_accuracy)
    assert {name: scores.n for name, scores in finished.metrics.items()} == {"train": 80, "val": 24, "test": 32}
    assert finished.logits["test"].shape == (32, 4) and finished.logits["test"].dtype == np.float32
    again = split_metrics(Predictions(finished.logits["test"], finished.labels["test"]))
    assert again == finished.metrics["test"]


def test_selection_by_accuracy_takes_the_first_of_equals_and_last_takes_the_last() -> None:
    run = make_run(make_settings(epochs=6, select_by="val.accuracy"))
    records = list(fit(run))
    top = max(record.val_accuracy for record in records)
    assert finish(run).selected_epoch == next(record.epoch for record in records if record.val_accuracy == top)
    last = make_run(make_settings(epochs=4, select="last"))
    records = list(fit(last))
    finished = finish(last)
    assert finished.selected_epoch == 4
    assert finished.metrics["val"].loss == pytest.approx(records[-1].val_loss, rel=1e-4)


def test_test_is_read_once_and_not_without_training() -> None:
    run = make_run()
    with pytest.raises(TrainingError, match="no epoch"):
        finish(run)
    list(fit(run))
    finish(run)
    with pytest.raises(TrainingError, match="read already"):
        finish(run)


def test_a_search_trial_leaves_test_unread() -> None:
    run = make_run()
    list(fit(run))
    finished = finish(run, test=False)
    assert set(finished.metrics) == {"train", "val"} and set(finished.logits) == set(finished.labels) == {"val"}


def test_evaluation_leaves_training_as_it_is() -> None:
    watched, plain = make_run(), make_run()
    records = []
    for record in fit(watched):
        records.append(learnt(record))
        logits_of(watched, watched.test)
        forward_flops(watched)
    assert records == [learnt(record) for record in fit(plain)]


def test_cost_by_hand() -> None:
    run = make_run(model=plain_net)
    records = list(fit(run))
    cost = finish(run).cost
    assert cost.parameters == 8 * 3 * 9 + 2 * 8 + 32 * 4 + 4
    assert cost.flops == 2 * (8 * 8 * 8 * 3 * 9) + 2 * 32 * 4
    assert cost.seconds == pytest.approx(sum(record.seconds for record in records))
    rates = [record.images_per_second for record in records]
    assert cost.images_per_second == pytest.approx(len(rates) / sum(1 / rate for rate in rates))
    assert cost.precision == "float32" and cost.device == "cpu, 1 thread"


def test_a_left_out_image_is_noted() -> None:
    run = make_run(make_settings(batch_size=13), make_splits(train=79))
    list(fit(run))
    assert finish(run).notes == ("the last batch of each epoch, a single image, is left out",)
