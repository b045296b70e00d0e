"""Which test images each repeat names rightly: read from stored predictions, or not at all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from synthetic_results import complete

from benchkit.analysis.ranking import rank
from benchkit.analysis.trained_models import answers, right_answers, uncertainties

LOGITS = np.asarray([[2.0, 1.0], [0.0, 3.0], [1.0, 0.5]], dtype=np.float32)
TRUTH = np.asarray([0, 1, 1])


def stored(folder: Path, **arrays: np.ndarray) -> Any:
    folder.mkdir(exist_ok=True)
    save_file(arrays, folder / "predictions.safetensors")
    return SimpleNamespace(folder=folder)


def test_answers_are_those_of_the_largest_logits_beside_the_true_classes(tmp_path: Path) -> None:
    called, truth = answers(stored(tmp_path, test=LOGITS, test_labels=TRUTH), None) or ((), ())
    assert (list(called), list(truth)) == ([0, 1, 0], [0, 1, 1])
    called, truth = answers(stored(tmp_path, test=LOGITS), np.asarray([1, 1, 1])) or ((), ())
    assert (list(called), list(truth)) == ([0, 1, 0], [1, 1, 1]), "the study's labels, where the trial has none"


@pytest.mark.parametrize(
    ("arrays", "labels"),
    [({"test": LOGITS}, None), ({"val": LOGITS, "test_labels": TRUTH}, TRUTH), ({"test": LOGITS}, TRUTH[:2])],
)
def test_without_logits_labels_or_one_of_each_there_is_no_answer(
    tmp_path: Path, arrays: dict[str, np.ndarray], labels: np.ndarray | None
) -> None:
    assert answers(stored(tmp_path, **arrays), labels) is None
    assert answers(SimpleNamespace(folder=tmp_path / "nowhere"), TRUTH) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("change", ["other labels", "fewer images", "no file"])
def test_repeats_that_read_other_images_are_not_held_against_each_other(tmp_path: Path, change: str) -> None:
    results = complete(tmp_path, ("bn", "gn"), repeats=2)
    condition, whole = results.conditions[0], complete(tmp_path / "whole", ("bn", "gn"), repeats=2)
    assert {index: len(right) for index, right in right_answers(whole, condition).items()} == dict.fromkeys(
        (0, 1), len(whole.labels["test"])
    )
    trial = next(one for one in results.trials if one.condition.key == condition.key and one.index == 1)
    truth, logits = np.asarray(results.labels["test"]).copy(), trial.predictions("test")
    assert logits is not None
    if change == "no file":
        (trial.folder / "predictions.safetensors").unlink()
    elif change == "fewer images":
        stored(trial.folder, test=logits[:-1], test_labels=truth[:-1])
    else:
        truth[0] = (truth[0] + 1) % 4
        stored(trial.folder, test=logits, test_labels=truth)
    assert right_answers(results, condition) == {}
    assert [row.label for row in uncertainties(results)] == ["gn"]


def test_one_repeat_has_no_uncertainty_and_one_condition_decides_nothing(tmp_path: Path) -> None:
    assert uncertainties(complete(tmp_path / "one", repeats=1)) == ()
    assert len(uncertainties(complete(tmp_path / "three"))) == 4
    assert not rank(complete(tmp_path / "alone", ("bn",)), "test.accuracy").decided
