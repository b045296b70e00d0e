"""Dotted paths into a tree of settings."""

from __future__ import annotations

from copy import deepcopy

import pytest

from benchkit.errors import StudyError
from benchkit.study.tree import changed, value_at

TREE = {
    "model": {"name": "resnet", "norm": "bn"},
    "train": {"optimizer": {"name": "sgd", "lr": 0.1}},
    "regularizers": [{"name": "dropout", "rate": 0.1}, {"name": "dropout", "id": "late", "rate": 0.2}],
}


def test_paths_change_a_copy_and_leave_the_tree_as_it_was() -> None:
    before = deepcopy(TREE)
    new = changed(TREE, {"train.optimizer.lr": 0.5, "regularizers.late.rate": 0.9, "data.name": "digits"})
    assert TREE == before
    assert new["train"]["optimizer"] == {"name": "sgd", "lr": 0.5}
    assert [item["rate"] for item in new["regularizers"]] == [0.1, 0.9]
    assert new["data"] == {"name": "digits"}


def test_options_of_a_plugin_named_by_text_make_it_a_table() -> None:
    assert changed(TREE, {"model.norm.eps": 1e-3})["model"]["norm"] == {"name": "bn", "eps": 1e-3}


def test_false_takes_a_regularizer_out() -> None:
    assert changed(TREE, {"regularizers.dropout": False})["regularizers"] == [TREE["regularizers"][1]]


def test_a_change_leaves_the_tree_and_the_value_that_it_shares_as_they_were() -> None:
    value = {"name": "gn", "groups": 4}
    first = changed(TREE, {"model.norm": value})
    second = changed(first, {"model.norm.groups": 8})
    assert second["model"]["norm"] == {"name": "gn", "groups": 8} and first["model"]["norm"] == value
    assert second["train"] is TREE["train"]
    assert value == {"name": "gn", "groups": 4}


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("regularizers.droput.rate", 1, r"no regularizer 'droput' \(did you mean 'dropout'\?\)"),
        ("regularizers.dropout", 3, "got 3, expected false"),
        ("regularizers.dropout.rate.x", 3, r"expected regularizers\.ID\.OPTION"),
        ("train.optimizer.lr.x", 3, r"lr is 0\.1, not a table"),
    ],
)
def test_paths_that_lead_nowhere_are_told(path: str, value: object, told: str) -> None:
    with pytest.raises(StudyError, match=told):
        changed(TREE, {path: value})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.optimizer.lr", 0.1),
        ("regularizers.late.rate", 0.2),
        ("regularizers.other.rate", None),
        ("train.optimizer.lr.x", None),
        ("train.schedule.max_lr", None),
    ],
)
def test_values_are_found_by_path(path: str, value: object) -> None:
    assert value_at(TREE, path) == value
