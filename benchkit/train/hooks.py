"""What regularizers do at the moments of training: their methods, with the state that some keep from step to step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchkit.errors import TrainingError
from benchkit.protocols import ALONE, Batch, clashes_of
from benchkit.results import EpochRecord

Named = Sequence[tuple[str, Any]]
"""Regularizers by their ids, in the study's order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A regularizer's method that gets its state as the last argument."""

    method: Callable[..., Any]
    state: Any

    def __call__(self, *given: Any) -> Any:
        """Return what the method returns."""
        return self.method(*given, self.state)

    @property
    def __self__(self) -> Any:
        """Return the regularizer."""
        return self.method.__self__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """The hooks of one run by their moments, as `protocols.Regularizer` describes them, without the last argument.

    `states` are what regularizers keep while they train, by id; `notes` what these say for the report.
    """

    augments: tuple[Callable[[Batch, torch.Generator], Batch], ...] = ()
    losses: tuple[Callable[..., torch.Tensor], ...] = ()
    penalties: tuple[Callable[[nn.Module], torch.Tensor], ...] = ()
    around: Callable[..., None] | None = None
    clips: tuple[Callable[..., None], ...] = ()
    afters: tuple[Callable[[nn.Module], None], ...] = ()
    averaged: Callable[[nn.Module], Mapping[str, torch.Tensor]] | None = None
    stops: tuple[Callable[[Sequence[EpochRecord]], bool], ...] = ()
    states: Mapping[str, Any] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """Return what the states say before anything is trained."""
        return [words for state in self.states.values() for words in getattr(state, "warnings", ())]

    @property
    def notes(self) -> list[str]:
        """Return what the states say for the report, their warnings among it."""
        return [note for state in self.states.values() for note in getattr(state, "notes", ())] + self.warnings

    def modules(self) -> Iterator[nn.Module]:
        """Yield the modules that states are made of."""
        for state in self.states.values():
            if isinstance(state, nn.Module):
                yield from state.modules()

    def tensors(self) -> Iterator[torch.Tensor]:
        """Yield the tensors of states that are modules."""
        for module in self.modules():
            yield from module.parameters(recurse=False)
            yield from module.buffers(recurse=False)

    def obstacle(self, precision: str) -> str:
        """Return why steps with them must be taken one operation at a time in a precision; else nothing.

        Raise `TrainingError` for a precision in which they cannot be taken at all.
        """
        if self.around is not None and precision == "fp16":
            raise TrainingError(
                "train.precision = fp16 with a regularizer that takes each step in two passes",
                hint="take bf16 or float32: loss scaling may skip one pass and not the other",
            )
        if self.around is not None:
            return f"{type(self.around.__self__).__name__} takes each step in two passes"  # type: ignore[attr-defined]
        foreign = [name for name, state in self.states.items() if not isinstance(state, nn.Module)]
        if foreign:
            return f"the state of {foreign[0]} is no torch.nn.Module"
        if precision == "fp16" and self.states:
            return f"the state of {next(iter(self.states))} stays where fp16 skips a step"
        return ""

    def state(self) -> dict[str, Any]:
        """Return the states, as tensors, numbers and text."""
        return {name: state.state_dict() for name, state in self.states.items()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Put the states back in place; raise `TrainingError` when they are of other regularizers."""
        if sorted(saved) != sorted(self.states):
            there, wanted = (", ".join(sorted(names)) or "none" for names in (saved, self.states))
            raise TrainingError(f"the checkpoint has the states of other regularizers: {there}, expected {wanted}")
        for name, state in self.states.items():
            state.load_state_dict(saved[name])


def started(named: Named, model: nn.Module, steps_per_epoch: int, epochs: int) -> Hooks:
    """Return the hooks of regularizers, whose states are made for a training of so many optimizer steps.

    Raise `TrainingError` where two do what only one can.
    """
    if problems := clashes(named):
        raise TrainingError("two regularizers do what one alone can", problems=problems)
    states = {name: one.start(model, steps_per_epoch, epochs) for name, one in named if has(one, "start")}
    for name, state in states.items():
        if not has(state, "state_dict") or not has(state, "load_state_dict"):
            raise TrainingError(
                f"the regularizer {name!r}, start: returned a {type(state).__name__}, expected a torch.nn.Module or "
                "what has state_dict and load_state_dict"
            )

    def bound(method: str) -> tuple[Callable[..., Any], ...]:
        return tuple(_bound(one, method, name, states) for name, one in named if has(one, method))

    return Hooks(
        augments=bound("augment"),
        losses=bound("loss"),
        penalties=bound("penalty"),
        around=next(iter(bound("around_step")), None),
        clips=bound("clip"),
        afters=bound("after_step"),
        averaged=next(iter(bound("averaged")), None),
        stops=bound("stop"),
        states=states,
    )


def clashes(named: Named) -> list[str]:
    """Return a line for each thing that more than one of the regularizers would do, and only one can."""
    return clashes_of({name: [method for method in ALONE if has(one, method)] for name, one in named})


def sampling_of(named: Named) -> tuple[str, Callable[..., torch.Tensor] | None]:
    """Return the id of the regularizer that chooses the images of an epoch and its method; neither where none does."""
    return next(((name, one.batch_sampling) for name, one in named if has(one, "batch_sampling")), ("", None))


def has(one: Any, method: str) -> bool:
    """Return whether a regularizer has a method: an option may have its name."""
    return callable(getattr(one, method, None))


def _bound(one: Any, method: str, name: str, states: Mapping[str, Any]) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(one, method)
    return Hook(method=found, state=states[name]) if name in states else found


@contextlib.contextmanager
def judged(model: nn.Module, hooks: Hooks) -> Iterator[None]:
    """Let the model hold the weights that are judged, in place: the average, where a regularizer keeps one."""
    if hooks.averaged is None:
        yield
        return
    trained = {name: tensor.clone() for name, tensor in held(model).items()}
    put(model, hooks.averaged(model))
    try:
        yield
    finally:
        put(model, trained)


@torch.no_grad()
def put(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy weights and buffers into a model's own tensors, by their names in its state dict."""
    for name, tensor in held(model).items():
        tensor.copy_(weights[name])


def held(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of a model's state dict, detached, by name."""
    return {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}
