"""What a plugin's metric returns: taken where it is a number within its range, and told at once where it is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_study
import torch
from engine_runs import make_run, make_settings

import benchkit.metrics
from benchkit import PluginError
from benchkit.errors import TrainingError
from benchkit.ledger import Ledger
from benchkit.metrics import Metric, Predictions, metric_of, value_of
from benchkit.plan import make_plan
from benchkit.results import FINISHED
from benchkit.train.evaluate import finish
from benchkit.train.fit import fit

SCORED = Predictions(np.array([[2, 1], [0, 1]], np.float32), np.array([0, 0]))
PLUGIN = """
import numpy as np
from benchkit.metrics import Metric, declared


@declared(Metric(name="NAME", words="odd", high=1.0))
def odd(scored):
    RETURN


def plain(scored):
    return 0.5


PLUGINS = {"benchkit.metrics": {"odd": odd, "plain": plain}}
"""


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no metric of a file here be known to other tests."""
    monkeypatch.setattr(benchkit.metrics, "_OF_FILES", {})
    yield
    benchkit.metrics._plugin.cache_clear()


def metric(computed: Callable[[Predictions], Any], **ends: float) -> Metric:
    return Metric(name="odd", words="odd", computed=computed, **{"high": 1.0, **ends})


@pytest.mark.parametrize(
    ("returned", "value"),
    [
        (np.float32(0.5), 0.5), (np.float64(0.25), 0.25), (np.array(0.75), 0.75), (torch.tensor(0.125), 0.125),
        (np.int64(1), 1.0), (1, 1.0), (0.3, 0.3), (None, None), (1.0000001, 1.0000001),
    ],
)  # fmt: skip
def test_every_real_number_is_taken_as_a_float(returned: Any, value: float | None) -> None:
    found = value_of(metric(lambda scored: returned), SCORED)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        (math.nan, "nan"), (math.inf, "inf"), (1.5, "1.5"), (-0.1, "-0.1"), ("0.5", "'0.5'"), (1j, "1j"),
        (np.array([0.5]), "a ndarray of shape (1,)"), (torch.tensor([0.5, 0.5]), "a Tensor of shape (2,)"),
    ],
)  # fmt: skip
def test_anything_else_is_told_with_the_metric_and_its_range(returned: Any, shown: str) -> None:
    with pytest.raises(PluginError) as caught:
        value_of(metric(lambda scored: returned), SCORED)
    assert caught.value.what.startswith(f"the metric 'odd' returns {shown}")
    assert caught.value.what.endswith("for 2 images of 2 classes: expected a number in 0..1, or None where undefined")


def test_diverged_weights_have_no_score_and_are_no_fault_of_the_metric() -> None:
    diverged = Predictions(np.array([[np.nan, 1]], np.float32), np.array([0]))
    found = value_of(metric(lambda scored: float(scored.logits.sum())), diverged)
    assert found is not None and math.isnan(found)


def test_what_a_metric_changes_in_place_is_its_own() -> None:
    def in_place(scored: Predictions) -> float:
        torch.from_numpy(scored.logits).zero_()
        scored.labels[:] = 0
        scored.confusion[:] = 0
        return 0.5

    found = []
    for asked in ((metric_of("brier"),), (metric(in_place), metric_of("brier"))):
        run = make_run(make_settings(epochs=1))
        run.metrics = asked
        run.readings = tuple(replace(one, every_epoch=True) for one in asked)
        for _ in fit(run):
            pass
        found.append((run.history[0].observed["val.brier"], finish(run)))
    (before, alone), (after, beside) = found
    assert before == after
    for split in ("train", "val", "test"):
        more = {name: value for name, value in beside.metrics[split].more.items() if name != "odd"}
        assert replace(beside.metrics[split], more=more) == alone.metrics[split]
    assert (beside.logits["test"] == alone.logits["test"]).all() and (beside.labels["val"] == alone.labels["val"]).all()


@pytest.mark.parametrize(
    ("name", "returns", "asked", "told"),
    [
        ("odd", "return scored.logits.argmax(1) == scored.labels", "odd", "returns a ndarray of shape (30,) for"),
        ("odd", "return float('nan')", "odd", "the metric 'odd' returns nan for 30 images of 10 classes"),
        ("odd", "return scored.probabilities", "odd", "has no attribute 'probabilities' (odd.py:8"),
        ("accuracy", "return 0.5", "odd", "the metric 'odd' declares the name 'accuracy': expected 'odd'"),
        ("odd", "return 0.5", "plain", "nothing declares its words, range and direction; hint: put @declared(Metric("),
    ],
)  # fmt: skip
def test_a_metric_that_cannot_be_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, returns: str, asked: str, told: str
) -> None:
    path = tmp_path / "odd.py"
    path.write_text(PLUGIN.replace("NAME", name).replace("RETURN", returns), encoding="utf-8")
    study = tiny_study.study_of(f'[report]\nmetrics = ["{asked}"]\n', repeats=1)
    with pytest.raises(TrainingError) as caught:
        tiny_study.sweep_here(monkeypatch, tmp_path / "runs", study, plugins=(path,))
    assert caught.value.what == "tiny: trials cannot be measured as the study asks"
    assert len(caught.value.problems) == 1 and told in caught.value.problems[0]
    trials = Ledger(tmp_path / "runs").trials(make_plan(study))
    assert not any(trial.state in FINISHED for trial in trials)


def test_a_record_that_has_no_finite_number_is_read_as_not_measured() -> None:
    older = replace(tiny_study.METRICS, more={"odd": math.nan, "brier": 0.25})
    assert older.value("odd") is None and older.value("brier") == 0.25
