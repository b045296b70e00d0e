"""Every check of figures catches a figure that breaks it, and says so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import broken_figures as broken
import pytest
from kit_failures import failure_of

from benchkit.testing import run_checks
from benchkit.testing.results import results_of, scenarios

CASES = [
    ("one-condition", broken.NeedsTwo, "one condition, one repeat: data(results)", "no error", "IndexError"),
    ("twenty-conditions", broken.TenColours, "twenty conditions: draw(data)", "no error", "KeyError"),
    ("missing-trials", broken.TakesAllAsDone, "diverged, failed, running and missing trials", "no error", "Error"),
    ("search", broken.TakesAllAsDone, "results with a search", "no error", "KeyError"),
    ("nothing-trained", broken.NoneForNothing, "nothing was trained", "no error", "ValueError"),
    ("plain-data", broken.NumpyNumbers, "data(results)", "plain, finite values", "data.means[0] is a numpy.float64"),
    ("plain-data", broken.NotANumber, "data(results)", "plain, finite values", "data.means[0] is nan"),
    ("alt-text", broken.DescribesThePicture, "alt_text(data)", "the name of a condition, or a number", "A chart of"),
    ("caption", broken.NoCaption, "caption(data)", "at least a sentence", "''"),
    ("repeatable", broken.Counting, "drawn twice", "equal data", "other data"),
    ("one-condition", broken.RaggedGrid, "one condition", "2 images a row", "1 images at 'first'"),
    ("one-condition", broken.FromElsewhere, "the picture", "nothing from elsewhere", "example.org"),
]


@pytest.mark.parametrize(
    ("check", "plugin", "given", "expected", "got"), CASES, ids=[f"{c[0]}-{c[1].__name__}" for c in CASES]
)
def test_a_broken_figure_is_caught(check: str, plugin: Any, given: str, expected: str, got: str) -> None:
    failure = failure_of("figures", plugin, check)
    assert given in failure.given and expected in failure.expected and got in failure.got


def test_a_sound_figure_passes() -> None:
    failed = [verdict.failure for verdict in run_checks("figures", broken.Sound) if verdict.state != "passed"]
    assert failed == []


def test_data_that_are_no_dataclass_are_told() -> None:
    failure = failure_of("figures", broken.Dictionary, "one-condition")
    assert "AttributeError" in failure.got


def test_the_made_up_results_are_what_their_names_say(tmp_path: Path) -> None:
    found = {name: make() for name, make in scenarios(tmp_path, 0).items()}
    assert [len(found[name].conditions) for name in ("one-condition", "twenty-conditions")] == [1, 20]
    assert {trial.state for trial in found["missing-trials"].trials} > {"done", "diverged", "failed", "running"}
    assert not found["missing-trials"].of(found["missing-trials"].conditions[-1], "done")
    assert found["search"].searched() and not found["nothing-trained"].trials
    trial = results_of(tmp_path, 1, repeats=1).trials[0]
    logits = trial.predictions("test")
    labels = found["one-condition"].labels["test"]
    assert trial.score("test.accuracy") == pytest.approx((logits.argmax(1) == labels).mean())
    assert all(math.isfinite(record.val_loss) for record in trial.history)
