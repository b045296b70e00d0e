"""Regularizers that each break one promise, for the tests of the conformance kit."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from benchkit import Batch, PluginError, Range, card
from benchkit.results import EpochRecord

STRENGTH = {"strength": Range(low=0.0, high=1.0)}


@card(title="Sound", summary="Noise on images.", ranges=STRENGTH)
@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """Noise of `strength`."""

    strength: float = 0.1

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        if self.strength == 0:
            return batch
        noise = torch.randn(batch.images.shape, generator=generator)
        return replace(batch, images=(batch.images + self.strength * noise).clamp(0, 1))


@dataclass
class NotFrozen:
    """Not frozen."""

    strength: float = 0.1

    def penalty(self, model: nn.Module) -> Tensor:
        return torch.zeros(())


@dataclass(frozen=True)
class Misspelt:
    """A hook that nobody calls."""

    strength: float = 0.1

    def penality(self, model: nn.Module) -> Tensor:
        return torch.zeros(())


@dataclass(frozen=True)
class PenaltyForEach:
    """A penalty that is no scalar."""

    strength: float = 0.1

    def penalty(self, model: nn.Module) -> Tensor:
        return self.strength * torch.stack([p.abs().sum() for p in model.parameters()])


@dataclass(frozen=True)
class StopsOnce:
    """A decision that depends on how often it was asked."""

    calls: list[int] = field(default_factory=list)

    def stop(self, history: Sequence[EpochRecord]) -> bool:
        self.calls.append(1)
        return len(self.calls) > 2


@card(title="T", summary="S.", ranges=STRENGTH)
@dataclass(frozen=True)
class RoundsAtZero:
    """Strength zero changes the last bits."""

    strength: float = 0.1

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, images=(batch.images + 1.0 + self.strength - 1.0).clamp(0, 1))


@card(title="T", summary="S.", ranges={"size": Range(low=1, high=2)})
@dataclass(frozen=True)
class CannotBeOff:
    """There is no setting without it."""

    size: int = 1

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, images=batch.images / 2)


@dataclass(frozen=True)
class ActsInEvaluation:
    """Doubles the input of the classifier, always."""

    def prepare(self, model: nn.Module) -> nn.Module:
        model.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
        return model


@dataclass(frozen=True)
class PythonRandom:
    """Draws from `random`."""

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, images=batch.images * random.random())


@dataclass(frozen=True)
class GlobalTorch:
    """Draws from PyTorch's global generator."""

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, images=batch.images * torch.rand(()))


@dataclass(frozen=True)
class CountsSteps:
    """Clips harder with each step it has seen."""

    seen: list[int] = field(default_factory=list)

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        self.seen.append(1)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.div_(len(self.seen))


@dataclass(frozen=True)
class HalfTargets:
    """Targets whose rows sum to one half."""

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, targets=batch.targets / 2)


@dataclass(frozen=True)
class BrightImages:
    """Images beyond 1."""

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, images=batch.images * 3)


@dataclass(frozen=True)
class NoRange:
    """A number without a range."""

    strength: float = 0.1

    def penalty(self, model: nn.Module) -> Tensor:
        return torch.zeros(())


@card(title="T", summary="S.", ranges={"strength": Range(low=0.0, high=2.0)})
@dataclass(frozen=True, kw_only=True)
class RefusesItsRange:
    """A range that the constructor does not know of."""

    strength: float = 0.1

    def __post_init__(self) -> None:
        if self.strength > 1:
            raise PluginError(f"strength = {self.strength}: expected 0 to 1")

    def penalty(self, model: nn.Module) -> Tensor:
        return self.strength * next(model.parameters()).square().sum()


@card(title="T", summary="S.", ranges={"strength": Range(low=0.0, high=1.0, log=True)})
@dataclass(frozen=True)
class LogFromZero:
    """A logarithmic range from 0."""

    strength: float = 0.1

    def penalty(self, model: nn.Module) -> Tensor:
        return torch.zeros(())


@card(title="T", summary="S.", ranges={"strength": Range(low=0.5, high=1.0)})
@dataclass(frozen=True)
class DefaultOutside:
    """A default below the range."""

    strength: float = 0.1

    def penalty(self, model: nn.Module) -> Tensor:
        return torch.zeros(())


@card(title="T", summary="S.", ranges=STRENGTH)
@dataclass(frozen=True)
class RaisesAtZero:
    """A division that strength zero does not survive."""

    strength: float = 0.1

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, images=batch.images * (1 // self.strength))


STEPS: list[int] = []


@card(title="T", summary="S.", ranges={"steps": Range(low=1, high=10)})
@dataclass(frozen=True)
class TakesSteps:
    """A penalty that takes as many steps as it is told to."""

    steps: int = 3

    def penalty(self, model: nn.Module) -> Tensor:
        STEPS.append(self.steps)
        return sum((next(model.parameters()).square().sum() for _ in range(self.steps)), torch.zeros(()))


@dataclass(frozen=True)
class Endless:
    """A loop without end, in which errors are caught."""

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        while True:
            try:
                sum(range(1000))
            except Exception:  # noqa: BLE001 - what this regularizer is made for
                continue


@card(title="T", summary="S.", ranges=STRENGTH, choices={"kind": ("soft", "hard")})
@dataclass(frozen=True)
class SeldomRun:
    """A choice that does not work, and names of layers."""

    strength: float = 0.1
    kind: str = "soft"
    layers: tuple[str, ...] = ()

    def penalty(self, model: nn.Module) -> Tensor:
        return self.strength * {"soft": torch.zeros(())}[self.kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateOfNumbers:
    """A state that cannot be kept."""

    def start(self, model: nn.Module, steps_per_epoch: int, epochs: int) -> dict[str, int]:
        return {"steps": 0}

    def after_step(self, model: nn.Module, state: dict[str, int]) -> None:
        state["steps"] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesTooFew:
    """An image of each class and no more."""

    def batch_sampling(self, labels: Tensor, classes: int, size: int, generator: torch.Generator) -> Tensor:
        return torch.arange(classes)


class Steps(nn.Module):
    """A count that its state dict may lack."""

    def __init__(self, kept: bool) -> None:
        super().__init__()
        self.register_buffer("taken", torch.zeros(()), persistent=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragesWeightsAlone:
    """An average without the statistics of batches."""

    def start(self, model: nn.Module, steps_per_epoch: int, epochs: int) -> Steps:
        return Steps(kept=True)

    def averaged(self, model: nn.Module, state: Steps) -> dict[str, Tensor]:
        return dict(model.named_parameters())


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetsItsState:
    """A penalty that grows by a count which is in no checkpoint."""

    def start(self, model: nn.Module, steps_per_epoch: int, epochs: int) -> Steps:
        return Steps(kept=False)

    def penalty(self, model: nn.Module, state: Steps) -> Tensor:
        return 0.01 * state.get_buffer("taken") * next(model.parameters()).square().sum()

    def after_step(self, model: nn.Module, state: Steps) -> None:
        state.get_buffer("taken").add_(1)
