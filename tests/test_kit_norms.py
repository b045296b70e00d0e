"""Every check of norms catches a norm that breaks it, and says so."""

from __future__ import annotations

from typing import Any

import broken_norms as broken
import pytest
import torch
from kit_failures import failure_of

from benchkit.testing import NotApplicable, checks, run_checks

CASES = [
    ("shapes", broken.DropsAPixel, "(2, 1, 5, 7) float32, in training", "(2, 1, 5, 7) float32", "(2, 1, 5, 6) float32"),
    ("shapes", broken.NoModule, "1 channels", "an nn.Module", "int"),
    ("batch-of-one", broken.VarianceOverImages, "(1, 8, 5, 5) float32, in training", "finite values", "200 of 200"),
    ("one-pixel", broken.NoEps, "(4, 8, 1, 1) float32, in training", "finite values", "32 of 32 values not finite"),
    ("evaluation", broken.BatchInEvaluation, "(6, 8, 5, 5) float32, in evaluation", "alone in the batch", "difference"),
    ("evaluation", broken.CountsInEvaluation, "in evaluation", "calls as it was before", "largest difference"),
    ("running-statistics", broken.NeverMoves, "after 300 batches of the same", "the result in training", "difference"),
    ("running-statistics", broken.MomentumOfTheOld, "at momentum 0.1", "average a tenth of its way", "difference"),
    ("gradients", broken.DropsAtRandom, "(3, 4, 3, 2) float64, in training, twice", "the same result", "difference"),
    ("parameters", broken.MapsOfWeights, "weight of a norm for 6 channels", "at most one dimension", "(1, 6, 1, 1)"),
    ("parameters", broken.UnusedParameter, "(3, 6, 4, 4) float32", "a gradient of bias", "none"),
    ("parameters", broken.AffineAnyway, "affine = False", "no weight and no bias", "there is weight"),
    ("gradients", broken.WrongGradient, "(3, 4, 3, 2) float64, in training", "the finite differences", "Jacobian"),
    ("large-offset", broken.Cancels, "mean 1000", "the float64 result", "largest difference"),
    ("bf16", broken.FloatOut, "(4, 6, 6, 6) bfloat16", "torch.bfloat16", "torch.float32"),
    ("fp16", broken.NarrowStatistics, "mean 300, standard deviation 3", "the float64 result", "largest difference"),
    ("bf16", broken.NarrowMeans, "mean 300, standard deviation 3", "the float64 result", "largest difference"),
    ("fp16", broken.NarrowMeans, "mean 300, standard deviation 3", "the float64 result", "largest difference"),
    ("channels-last", broken.AssumesContiguous, "channels-last", "a result in channels-last memory", "strides"),
    ("deepcopy", broken.SharedWeight, "a copy that was changed", "weight of the original as before", "difference"),
    ("state-dict", broken.HiddenState, "after loading weight", "equal results of both modules", "difference"),
    ("meta-device", broken.PlainTensor, "(4, 5, 3, 3) float32, on the meta device", "no error", "meta"),
    ("own-randomness", broken.RandomStart, "building and calling", "untouched generators", "torch drawn from"),
    ("own-randomness", broken.PythonRandom, "building and calling", "untouched generators", "random drawn from"),
    ("compile", broken.BreaksTheGraph, "torch.compile(fullgraph=True", "one graph", ": "),
    ("timm", broken.NoDevice, "norm_layer", "no error", "unexpected keyword argument 'device'"),
    ("pretrained", broken.WeightedConvolution, "a ResNet-18 with batch norm", "no error", "do not fit the model"),
    ("card", broken.Untitled, "the card's title", "one line of text", "''"),
    ("options", broken.Untyped, "the option 'depth'", "a type annotation", "no type"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "plugin", "given", "expected", "got"), CASES, ids=[f"{c[0]}-{c[1].__name__}" for c in CASES]
)
def test_a_broken_norm_is_caught(check: str, plugin: Any, given: str, expected: str, got: str) -> None:
    options = {"depth": 1} if plugin is broken.Untyped else {}
    failure = failure_of("norms", plugin, check, options)
    assert given in failure.given and expected in failure.expected and got in failure.got


def test_randomness_is_the_likely_reason_of_other_results() -> None:
    failure = failure_of("norms", broken.DropsAtRandom, "gradients")
    assert failure.likely.startswith("it draws random numbers")


def test_averages_that_move_by_their_momentum_pass() -> None:
    dict(checks("norms", broken.Averaging))["running-statistics"]()


def test_a_failure_reads_as_input_expected_got_and_likely_reason() -> None:
    assert str(failure_of("norms", broken.DropsAPixel, "shapes")).splitlines() == [
        "check 'shapes' failed for the norm 'DropsAPixel'",
        "  input:    (2, 1, 5, 7) float32, in training",
        "  expected: (2, 1, 5, 7) float32",
        "  got:      (2, 1, 5, 6) float32",
        "  likely:   the output is built from a fixed size, or reduced over the wrong dimensions",
    ]


def test_a_sound_norm_passes_and_leaves_the_process_as_it_was() -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    verdicts = run_checks("norm", broken.Sound)
    assert [verdict.check for verdict in verdicts if verdict.state != "passed"] == []
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads


def test_the_seed_determines_the_inputs() -> None:
    def message(seed: int) -> str:
        check = dict(checks("norms", broken.BatchInEvaluation, seed=seed))["evaluation"]
        with pytest.raises(AssertionError) as caught:
            check()
        return str(caught.value)

    assert message(1) == message(1) != message(2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_norm_that_synchronises_cannot_be_captured() -> None:
    assert "captured in a CUDA graph" in failure_of("norms", broken.BreaksTheGraph, "cuda-graph").given


def test_gpu_checks_are_told_apart() -> None:
    found = {id for id, check in checks("norms", broken.Sound) if check.rule.gpu}
    assert found == {"cuda", "cuda-graph"}
    assert NotApplicable.__mro__[1].__name__ == "SkipTest"
