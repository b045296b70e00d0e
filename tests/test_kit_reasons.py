"""The likely reason that the kit gives: whose line raised an error, and one cause told once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from broken_regularizers import Sound
from kit_failures import failure_of
from torch import nn

from benchkit.cli import main
from benchkit.testing import checks, run_checks
from benchkit.testing.kit import folded

BY_PLUGIN = "the plugin raised this error itself: its message and line say more"
BY_OTHERS = "benchkit or a library raised it, calling the plugin or using what it returned: see benchkit/protocols.py"


class Refuses(nn.Module):
    """Refuse every number of channels."""

    def __init__(self, num_channels: int, device: object = None, dtype: object = None) -> None:
        raise ValueError("eps must be positive")


class Breaks(nn.Module):
    """Raise what PyTorch raises, too."""

    def __init__(self, num_channels: int, device: object = None, dtype: object = None) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("boom")


class Flattens(Breaks):
    """View maps as if they were contiguous, which PyTorch refuses in this line."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(len(x), -1).view(x.shape)


class DividesByZero(Breaks):
    """Return no finite number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 0.0


def not_a_module(num_channels: int, device: object = None, dtype: object = None) -> Any:
    """Return a function."""
    return lambda x: x


def takes_channels_alone(num_channels: int) -> nn.Module:
    """Return a module, and take neither device nor dtype."""
    return nn.Identity()


@dataclass(frozen=True)
class ReturnsNothing:
    """A penalty without `return`."""

    def penalty(self, model: nn.Module) -> None:
        sum(weight.abs().sum() for weight in model.parameters())


@dataclass(frozen=True)
class OtherNames:
    """Averages that fit no model."""

    def averaged(self, model: nn.Module) -> dict[str, torch.Tensor]:
        return {"wieght": torch.zeros(3)}


class NoDataclass:
    """A class whose attributes may change."""

    def penalty(self, model: nn.Module) -> torch.Tensor:
        return torch.zeros(())


class WantsClosure(torch.optim.Optimizer):
    """Take no step without a closure."""

    def step(self, closure: Any) -> Any:  # type: ignore[override]
        return closure()


@dataclass(frozen=True)
class WantsLabels:
    """Compute on labels where probabilities are given, which PyTorch refuses in this line."""

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, targets.long())


@dataclass(frozen=True)
class NoRates:
    """A course without `return`."""

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Any:
        return lambda step: None


@dataclass(frozen=True)
class NoBatch:
    """Return the images alone."""

    def augment(self, batch: Any, generator: torch.Generator) -> Any:
        return batch.images


class Widens(Breaks):
    """Return float64."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double()


@pytest.mark.parametrize(
    ("kind", "plugin", "check", "likely"),
    [
        ("norms", Refuses, "shapes", BY_PLUGIN),
        ("norms", Breaks, "gradients", BY_PLUGIN),
        ("norms", Breaks, "recorded", BY_PLUGIN),
        ("norms", Flattens, "channels-last", "view or reshape assumes contiguous maps"),
        ("norms", takes_channels_alone, "timm", "timm calls norm_layer(channels, device=..., dtype=...)"),
        ("norms", not_a_module, "gradients", "a `return` is missing, or it returns a function"),
        ("norms", DividesByZero, "evaluation", "a division by 0"),
        ("norms", DividesByZero, "gradients", "a division by 0"),
        ("models", lambda classes, shape, norm: None, "trains", "a `return` is missing"),
        ("regularizers", ReturnsNothing, "hooks", "a hook has no `return`"),
        ("regularizers", ReturnsNothing, "deterministic", BY_OTHERS),
        ("regularizers", NoDataclass, "hooks", "write @dataclass(frozen=True"),
        ("optimizers", lambda groups, lr: None, "state", "derive it from torch.optim.Optimizer"),
        ("optimizers", lambda groups, lr: WantsClosure(groups, {"lr": lr}), "state", "step() wants a closure"),
        ("losses", WantsLabels, "scalar", BY_PLUGIN),
        ("schedules", NoRates, "pure", "the course has no `return`, or returns no float"),
        ("regularizers", NoBatch, "targets", "augment returns a Batch"),
        ("norms", Widens, "shapes", "it computes in a wider type and does not go back"),
    ],
)
def test_the_reason_fits_what_happened(kind: str, plugin: Any, check: str, likely: str) -> None:
    assert failure_of(kind, plugin, check).likely.startswith(likely)


def test_no_line_of_pythons_own_is_the_place() -> None:
    failure = failure_of("regularizers", OtherNames, "deterministic")
    assert failure.got == "KeyError: 'stem.0.weight'"  # raised behind contextlib's __enter__


def test_a_class_that_is_no_dataclass_is_called_so() -> None:
    assert failure_of("regularizers", NoDataclass, "hooks").got == "no dataclass"


def test_one_cause_is_told_once() -> None:
    verdicts = run_checks("norms", DividesByZero)
    (first, others), *more = folded(verdicts)
    failed = [verdict.check for verdict in verdicts if verdict.state == "failed"]
    assert first.check == "shapes" and {"batch-of-one", "evaluation", "gradients", "bf16", "channels-last"} < {*others}
    told = [first.check, *others, *(name for one, names in more for name in (one.check, *names))]
    assert sorted(told) == sorted(failed) and len(told) - len(others) <= 3


FILE = """
from torch import nn

def Bad(num_channels, device=None, dtype=None):
    "A function for a module."
    return lambda x: x

PLUGINS = {"benchkit.norms": {"bad": Bad}}
"""


def test_the_terminal_tells_a_cause_once_and_all_with_verbose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "bad.py"
    path.write_text(FILE)
    assert main(["plugins", "check", "bad", "--plugin", str(path)]) == 1
    told = capsys.readouterr().out
    assert told.count("  got:      function\n") == 1 and "the same in 15 more, which --verbose tells in full: " in told
    assert "benchkit_file_" not in told and "TypeError: Bad.<locals>.<lambda> is not a Module subclass" in told
    assert main(["plugins", "check", "bad", "--plugin", str(path), "--verbose"]) == 1
    told = capsys.readouterr().out
    assert told.count("  got:      function\n") == 16 and "the same in" not in told


def sgd(parameters: Any, lr: float, /) -> torch.optim.Optimizer:
    """Return plain SGD."""
    return torch.optim.SGD(parameters, lr=lr)


def test_what_a_check_asks_for_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dict(checks("optimizers", sgd))["rehearsed"]()
        dict(checks("regularizers", Sound))["recorded"]()
    assert caplog.messages == []
