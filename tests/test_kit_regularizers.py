"""Every check of regularizers catches one that breaks it, and says so."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

import broken_regularizers as broken
import pytest
from kit_failures import failure_of

from benchkit.testing import CheckFailure, checks, run_checks

CASES = [
    ("hooks", broken.NotFrozen, "the plugin", "a frozen dataclass", "not"),
    ("hooks", broken.Misspelt, "the plugin's methods", "at least one of", "penality (did you mean 'penalty'?)"),
    ("hooks", broken.PenaltyForEach, "penalty(model)", "a finite scalar tensor", "tensor(["),
    ("hooks", broken.StopsOnce, "stop(history) after 1, 2 and 1 epochs", "equal for equal histories", "True"),
    ("hooks", broken.StateOfNumbers, "start(model, 4, 2)", "an object with state_dict", "a dict without state_dict"),
    ("hooks", broken.SamplesTooFew, "batch_sampling of 32 images", "positions (31,) int64", "(3,)"),
    ("hooks", broken.AveragesWeightsAlone, "averaged(model, state)", "each name in", "none for stem.1.running_mean"),
    ("resume", broken.ForgetsItsState, "saved after two", "four epochs in one go", "in epoch 3"),
    ("strength-zero", broken.RoundsAtZero, "strength = 0", "bit for bit", "loss"),
    ("strength-zero", broken.CannotBeOff, "size = 1 or size = 2", "a setting that trains as without it", "in epoch 1"),
    ("strength-zero", broken.RaisesAtZero, "training with strength = 0", "no error", "ZeroDivisionError: "),
    ("choices", broken.SeldomRun, "kind = 'hard'", "a run of one epoch", "KeyError: 'hard' ("),
    ("evaluation", broken.ActsInEvaluation, "after prepare()", "the network without it", "largest difference"),
    ("deterministic", broken.PythonRandom, "two runs", "equal weights and losses", "loss"),
    ("deterministic", broken.GlobalTorch, "augment(batch, generator)", "the generator alone", "global generator"),
    ("resume", broken.CountsSteps, "saved after two", "four epochs in one go", "in epoch 3"),
    ("targets", broken.HalfTargets, "targets (1, 3) float32", "rows sum to 1", "off by 0.5"),
    ("targets", broken.BrightImages, "images (1, 1, 8, 8) float32", "images in 0..1", "0."),
    ("search-range", broken.NoRange, "the card", "the range of an option", "none for strength"),
    ("search-range", broken.RefusesItsRange, "strength = 2.0, an end of its range", "an instance", "expected 0 to 1"),
    ("options", broken.LogFromZero, "the card's range", "low > 0", "low = 0 with log = True"),
    ("options", broken.DefaultOutside, "'strength' at its default 0.1", "float in 0.5..1", "out of range"),
]


@pytest.mark.parametrize(
    ("check", "plugin", "given", "expected", "got"), CASES, ids=[f"{c[0]}-{c[1].__name__}" for c in CASES]
)
def test_a_broken_regularizer_is_caught(check: str, plugin: Any, given: str, expected: str, got: str) -> None:
    failure = failure_of("regularizers", plugin, check)
    assert given in failure.given and expected in failure.expected and got in failure.got


def test_an_error_is_told_with_its_line_and_no_guess() -> None:
    failure = failure_of("regularizers", broken.RaisesAtZero, "strength-zero")
    assert "broken_regularizers.py:" in failure.got and "in augment)" in failure.got
    assert failure.likely == "the plugin raised this error itself: its message and line say more"


def test_numbers_are_tried_inside_their_range() -> None:
    broken.STEPS.clear()
    failure = failure_of("regularizers", broken.TakesSteps, "strength-zero")
    assert failure.given == "steps = 1 or steps = 10"
    assert set(broken.STEPS) == {1, 10}


def test_a_check_that_does_not_end_is_ended() -> None:
    check = dict(checks("regularizers", broken.Endless))["targets"]
    with pytest.raises(CheckFailure) as caught:
        replace(check, rule=replace(check.rule, seconds=0.5))()
    assert caught.value.expected == "an end within 0.5 s of processor time"
    assert "still running (" in caught.value.got and "broken_regularizers.py:" in caught.value.got
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def test_a_sound_regularizer_passes() -> None:
    assert {verdict.state for verdict in run_checks("regularizers", broken.Sound)} == {"passed"}


def test_without_options_strength_zero_is_left_out() -> None:
    found = {verdict.check: verdict for verdict in run_checks("regularizers", broken.HalfTargets)}
    assert found["strength-zero"].state == "skipped"
    assert "no option by which it could be switched off" in found["strength-zero"].note
