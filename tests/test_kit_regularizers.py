"""Every check of regularizers catches one that breaks it, and says so."""

from __future__ import annotations

from typing import Any

import broken_regularizers as broken
import pytest
from kit_failures import failure_of

from benchkit.testing import run_checks

CASES = [
    ("hooks", broken.NotFrozen, "the plugin", "a frozen dataclass", "not"),
    ("hooks", broken.Misspelt, "the plugin's methods", "at least one of", "penality (did you mean 'penalty'?)"),
    ("hooks", broken.PenaltyForEach, "penalty(model)", "a finite scalar tensor", "tensor(["),
    ("hooks", broken.StopsOnce, "stop(history) after 1, 2 and 1 epochs", "equal for equal histories", "True"),
    ("strength-zero", broken.RoundsAtZero, "strength = 0", "bit for bit", "loss"),
    ("strength-zero", broken.CannotBeOff, "size = 0", "a setting that trains as without it", "in epoch 1"),
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


def test_a_sound_regularizer_passes() -> None:
    assert {verdict.state for verdict in run_checks("regularizers", broken.Sound)} == {"passed"}


def test_without_options_strength_zero_is_left_out() -> None:
    found = {verdict.check: verdict for verdict in run_checks("regularizers", broken.HalfTargets)}
    assert found["strength-zero"].state == "skipped"
    assert "no option by which it could be switched off" in found["strength-zero"].note
