"""From a tree of settings to typed settings."""

from __future__ import annotations

from typing import Any

import pytest

from benchkit.study.settings import PluginRef, RegularizerSettings
from benchkit.study.tree import Problems, resolve

TREE: dict[str, Any] = {"data": {"name": "digits"}, "model": {"name": "mlp"}}


def lines(**sections: Any) -> list[str]:
    problems = Problems()
    assert resolve({**TREE, **sections}, seed=0, problems=problems) is None
    return problems.lines


def test_a_tree_becomes_settings_with_plugin_options_apart_from_our_own() -> None:
    tree = {
        "data": {"name": "image-folder", "path": "x", "val_size": 7},
        "model": {"name": "resnet", "n": 3, "norm": {"name": "gn", "groups": 4}},
        "train": {"epochs": 4, "optimizer": "adamw", "schedule": {"name": "step", "every": 2}},
        "regularizers": ["l1", {"name": "dropout", "id": "late", "rate": 0.5}],
    }
    problems = Problems()
    settings = resolve(tree, seed=9, problems=problems)
    assert problems.lines == [] and settings is not None
    assert settings.data.dataset == PluginRef(name="image-folder", options={"path": "x"})
    assert settings.data.val_size == 7 and settings.seed == 9
    assert settings.model.model == PluginRef(name="resnet", options={"n": 3})
    assert settings.model.norm == PluginRef(name="gn", options={"groups": 4})
    assert settings.train.optimizer.name == "adamw" and settings.train.schedule.every == 2
    assert settings.regularizers == (
        RegularizerSettings(id="l1", plugin=PluginRef(name="l1")),
        RegularizerSettings(id="late", plugin=PluginRef(name="dropout", options={"rate": 0.5})),
    )


def test_whole_numbers_are_numbers_and_lists_are_tuples() -> None:
    train = {"optimizer": {"name": "adam", "lr": 1, "betas": [0, 0.9]}}
    settings = resolve({**TREE, "train": train}, seed=0, problems=Problems())
    assert settings is not None
    assert isinstance(settings.train.optimizer.lr, float)
    assert settings.train.optimizer.betas == (0.0, 0.9) and isinstance(settings.train.optimizer.betas[0], float)


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"data": None}, 'data: is missing: name a data set with [data] and name = "..."'),
        ({"data": 3}, "data: must be a table"),
        ({"model": "mlp"}, "model: must be a table"),
        ({"model": {"name": "mlp", "weights": 3}}, "model.weights: got 3, expected text"),
        ({"train": 3}, "train: got 3, expected a table"),
        ({"train": {"optimizer": 3}}, "train.optimizer: got 3, expected a name or a table"),
        ({"train": {"precision": "half"}}, "train.precision: got 'half', expected one of auto, bf16, fp16, float32"),
        ({"train": {"compile": True}}, "train.compile: got True, expected one of auto, never, always"),
        (
            {"train": {"compile": "alwais"}},
            "got 'alwais', expected one of auto, never, always (did you mean 'always'?)",
        ),
        ({"train": {"epochs": True}}, "train.epochs: got True, expected a whole number"),
        ({"train": {"epochs": 2.5}}, "train.epochs: got 2.5, expected a whole number"),
        ({"train": {"optimizer": {"betas": [0.9]}}}, "train.optimizer.betas: got [0.9], expected a list"),
        ({"train": {"optimizer": {"lr": float("inf")}}}, "train.optimizer.lr: got inf, expected a number"),
        ({"train": {"optimizer": {"lr": -1}}}, "train.optimizer.lr: got -1, expected at least 0"),
        ({"train": {"threads": 0}}, "train.threads: got 0, expected at least 1"),
        ({"regularizers": {"name": "l1"}}, "expected a list of tables ([[regularizers]])"),
        ({"regularizers": [3]}, "regularizers[0]: got 3, expected a plugin's name"),
        ({"modle": {}}, "modle: unknown key (did you mean 'model'?)"),
    ],
)
def test_problems_name_path_value_and_expectation(sections: dict[str, Any], told: str) -> None:
    assert told in "\n".join(lines(**sections))


def test_the_largest_rates_are_allowed_so_that_divergence_is_a_result() -> None:
    assert resolve({**TREE, "train": {"optimizer": {"lr": 1e9}}}, seed=0, problems=Problems()) is not None
