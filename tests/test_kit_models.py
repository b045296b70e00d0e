"""Every check of models catches a model that breaks it, and says so."""

from __future__ import annotations

from typing import Any

import broken_models as broken
import pytest
from kit_failures import failure_of

from benchkit.testing import run_checks

CASES = [
    ("classes", broken.TenClasses, "2 classes, images (2, 3, 32, 32) float32", "logits (2, 2)", "(2, 10) float32"),
    ("image-shapes", broken.ColourOnly, "images of shape (1, 28, 28)", "a BenchkitError that says why not", "channels"),
    ("norm-everywhere", broken.OwnNorm, "a norm of the kit's own", "no norm of another kind", "norm is BatchNorm2d"),
    ("norm-everywhere", broken.SaysItHasNoNorm, "a norm of the kit's own", "model.norm has no effect", "1 of them"),
    ("card", broken.IgnoresByAnUnknownOption, "the card's ignores", "options among width", "wide"),
    ("norm-everywhere", broken.NormOfOtherWidth, "what reaches the norm", "maps (N, 4, H, W)", "(2, 8, 32, 32)"),
    ("gradients", broken.UnusedLayer, "the loss of images", "a gradient of spare.weight", "none"),
    ("initial-values", broken.NumpyStart, "built twice under one seed", "equal classifier.bias", "largest difference"),
    ("evaluation", broken.AlwaysDrops, "in evaluation", "the same logits a second time", "largest difference"),
    ("evaluation", broken.LooksAtTheBatch, "in evaluation", "each image gives alone", "largest difference"),
    ("trains", broken.ChangesItsInput, "one epoch on 40 images", "no error", "DivergedError"),
]


@pytest.mark.parametrize(
    ("check", "plugin", "given", "expected", "got"), CASES, ids=[f"{c[0]}-{c[1].__name__}" for c in CASES]
)
def test_a_broken_model_is_caught(check: str, plugin: Any, given: str, expected: str, got: str) -> None:
    failure = failure_of("models", plugin, check)
    assert given in failure.given and expected in failure.expected and got in failure.got


def test_a_sound_model_passes() -> None:
    failed = [verdict.failure for verdict in run_checks("models", broken.Sound) if verdict.state != "passed"]
    assert failed == []


def test_what_is_no_module_is_told() -> None:
    failure = failure_of("models", broken.returns_nothing, "norm-everywhere")
    assert (failure.expected, failure.got) == ("an nn.Module", "NoneType")
