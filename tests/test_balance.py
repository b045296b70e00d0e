"""Unbalanced classes: what naming the largest always scores, who is warned, and where a report says it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchkit_datasets.npz import npz
from figure_results import metrics
from sklearn.dummy import DummyClassifier
from test_degenerate import OTHER, SOUND, study
from tiny_study import METRICS, finish_all, study_of

from benchkit import Split, Splits
from benchkit.analysis.estimates import class_balance, constant_words
from benchkit.analysis.summary import summarize
from benchkit.cli import main
from benchkit.data.dataset import balance_warning, facts_of
from benchkit.ledger import Ledger, read_results
from benchkit.plan import make_plan
from benchkit.results import Outcome, StudyResults
from benchkit.study.settings import PluginRef


def given(**data: object) -> StudyResults:
    results = study({"one": SOUND, "other": OTHER}, {"one": OTHER, "other": SOUND})
    return replace(results, data={**results.data, **data})


def test_naming_the_largest_class_is_told_beside_every_accuracy() -> None:
    balance = class_balance(given(class_counts={"train": [130, 40, 30], "test": [13, 4, 3]}))
    assert balance is not None and balance.unbalanced
    assert (balance.most, balance.least, balance.split) == (("plane", 130), ("cat", 30), "train")
    truth = np.repeat([0, 1, 2], [sum(row) for row in SOUND])
    share = DummyClassifier(strategy="most_frequent").fit(truth[:, None], truth).score(truth[:, None], truth)
    assert [(row.split, row.label, row.accuracy) for row in balance.constant] == [("test", "plane", share)]
    words = " Naming the most frequent class, “plane”, always would score 65.00 %."
    assert constant_words(balance, "test.accuracy") == words
    assert constant_words(balance, "test.loss") == constant_words(None, "test.accuracy") == ""


def test_it_is_the_largest_class_of_train_also_where_test_has_another_one() -> None:
    balance = class_balance(given(class_counts={"train": [10, 40, 15], "test": [13, 4, 3]}))
    assert balance is not None
    assert [(row.label, row.accuracy) for row in balance.constant] == [("ship", 4 / 20)]


def test_a_finding_says_that_classes_are_unbalanced() -> None:
    def found(train: list[int]) -> list[str]:
        findings = summarize(given(class_counts={"train": train})).findings
        return [finding.sentence for finding in findings if finding.rule == "unbalanced-classes"]

    assert found([90, 40, 30]) == [
        "Classes are unbalanced: “plane” has 90 train images, “cat” has 30; naming “plane” always would score 65.00 % "
        "on test."
    ]
    assert found([89, 40, 30]) == []
    assert class_balance(given(sets=[{"fingerprint": "a"}, {"fingerprint": "b"}])) is None
    older = class_balance(given())  # a workspace that knows no counts of train
    assert older is not None and (older.split, older.most) == ("test", ("plane", 13))


def test_of_folds_all_test_images_count_and_the_share_is_a_mean_over_folds() -> None:
    given_two = given(class_counts={"train": [1, 50, 9], "test": [130, 40, 30]})  # splits that no fold trained on
    second = ((9, 0, 0), (0, 2, 0), (0, 0, 2))
    results = study({"one": SOUND, "other": OTHER}, {"one": second, "other": second})
    results = replace(results, data=given_two.data, study=replace(results.study, splits="folds", repeats=2))
    balance = class_balance(results)
    assert balance is not None and balance.split == "test"
    assert (balance.most, balance.least) == (("plane", 13 + 9), ("cat", 3 + 2))
    assert [row.accuracy for row in balance.constant] == [pytest.approx((13 / 20 + 9 / 13) / 2)]
    assert constant_words(balance, "test.accuracy").endswith("“plane”, always would score 67.12 %.")


@pytest.mark.parametrize(("train", "test", "there"), [([50, 10], [10, 50], False), ([10, 10], [50, 1], True)])
def test_of_folds_the_balanced_accuracy_goes_by_all_images(
    tmp_path: Path, train: list[int], test: list[int], there: bool
) -> None:
    folds = replace(study_of(repeats=2), splits="folds")
    ledger, plan = Ledger(tmp_path), make_plan(folds)
    ledger.register(plan, {"class_counts": {"train": train, "test": test}}, "")
    ledger.enqueue(plan)
    finish_all(ledger, plan, lambda claim: Outcome(state="done", metrics={"val": METRICS, "test": METRICS}))
    trial = read_results(tmp_path).trials[0]
    assert (trial.value("test.balanced_accuracy") is not None) == there


def test_a_part_of_train_is_counted_as_it_was_trained_on() -> None:
    part = given(class_counts={"train": [130, 40, 30]})
    outcomes = [
        replace(one.outcome, metrics={**one.outcome.metrics, "train": metrics(0.5, confusion=OTHER)})
        for one in part.trials
        if one.outcome
    ]
    trials = tuple(replace(one, outcome=each) for one, each in zip(part.trials, outcomes, strict=True))
    settings = {**part.study.settings, "data": {"name": "digits", "train_size": 20}}
    balance = class_balance(replace(part, trials=trials, study=replace(part.study, settings=settings)))
    assert balance is not None and (balance.split, balance.most, balance.least) == ("train", ("plane", 13), ("cat", 3))


def test_classes_of_one_size_have_no_largest_one() -> None:
    even = ((3, 1), (2, 2))
    results = replace(study({"one": even}), class_names=("a", "b"))
    balance = class_balance(results)
    assert balance is not None and not balance.unbalanced
    assert constant_words(balance, "test.accuracy") == " Naming one class always would score 50.00 %."


def test_without_confusions_nothing_is_known_of_the_classes() -> None:
    given = study({"one": ((3, 1), (2, 2))})
    (trial,) = given.trials
    assert trial.outcome is not None
    bare = {split: replace(scored, confusion=()) for split, scored in trial.outcome.metrics.items()}
    trials = (replace(trial, outcome=replace(trial.outcome, metrics=bare)),)
    assert class_balance(replace(given, trials=trials)) is None


def test_labels_of_no_class_are_left_to_the_check_of_the_data() -> None:
    for labels in (np.array([-1, 0, 5]), np.array([0.5, 0.0]), np.array([], np.int64)):
        split = Split(images=np.zeros((len(labels), 2, 2, 1), np.uint8), labels=labels)
        splits = Splits(
            train=split, test=split, val=None, class_names=("a", "b"), licence="", citation="", fingerprint=""
        )
        facts = facts_of(PluginRef(name="own", options={}), splits)
        assert facts["class_counts"]["train"] == [int((labels == 0).sum()), 0]
        assert bool(balance_warning(facts)) == bool(len(labels))


STUDY = """
title = "Uneven"
[data]
name = "npz"
source = "set.npz"
[model]
name = "mlp"
[train]
epochs = 1
batch_size = 8
"""


def test_the_plan_warns_of_unbalanced_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    labels = {"train": np.repeat([0, 1], [30, 10]), "test": np.repeat([0, 1], [6, 2])}
    images = {split: np.arange(len(each) * 16, dtype=np.uint8).reshape(-1, 4, 4) for split, each in labels.items()}
    images["test"] = images["test"] + np.uint8(7)
    np.savez("set.npz", **{f"{s}_{k}": v[s] for s in labels for k, v in (("images", images), ("labels", labels))})
    splits = npz(tmp_path / "root", source=tmp_path / "set.npz")
    facts = facts_of(PluginRef(name="npz", options={}), splits)
    assert facts["class_counts"] == {"train": [30, 10], "test": [6, 2]}
    words = (
        "npz: the classes of train are unbalanced, 0 has 30 images and 1 10; naming 0 always is right for 75% of them"
    )
    assert balance_warning(facts) == words
    assert balance_warning({**facts, "class_counts": {"train": [29, 10]}}) == ""
    Path("uneven.toml").write_text(STUDY)
    assert main(["sweep", "uneven.toml", "--dry-run", "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    assert f"warning: {words}" in shown.out + shown.err
    Path("uneven.toml").write_text(f'{STUDY}[repeats]\nn = 2\nsplits = "folds"\n')
    assert main(["sweep", "uneven.toml", "--dry-run", "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    pooled = (
        "the classes of all images together are unbalanced, 0 has 36 images and 1 12; naming 0 always is right for 75%"
    )
    assert pooled in shown.out + shown.err
