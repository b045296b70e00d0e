"""What a step changes, kept aside and put back in place: tensors keep their addresses, which a captured step knows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch

from benchkit.train.randomness import global_state, set_global_state
from benchkit.train.run import Run

PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTensor:
    """A tensor that lies in `home` under `name`, and a copy of it."""

    owner: str
    home: dict[str, Any]
    name: str
    tensor: torch.Tensor
    copy: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAttribute:
    """A plain attribute of a model's layer or of a plugin; of a list its items."""

    owner: Any
    name: str
    value: Any
    copy: Any


class Snapshot:
    """A run at one moment, while its random numbers are in charge (see `Randomness`)."""

    def __init__(self, run: Run) -> None:
        """Copy all that a step may change: tensors, moments, random states, and plain attributes of plugins."""
        self._run = run
        self._tensors = list(_tensors(run))
        self._moments = {
            (parameter, name): value.clone()
            for parameter, moments in run.optimizer.state.items()
            for name, value in moments.items()
            if isinstance(value, torch.Tensor)
        }
        self._attributes = list(_attributes(run))
        self._steady: list[Any] = []
        self._unsteady: KeptAttribute | None = None
        self._scaler = run.precision.scaler.state_dict() if run.precision.scaler else {}
        self._augment = run.randomness.augment.get_state()
        self._layers = global_state(run.device)
        self._python, self._numpy = random.getstate(), np.random.get_state()

    def look(self) -> None:
        """Look at the attributes after a step: what each sets to the same value, a replay need not set again."""
        found = [_value(kept.owner, kept.name) for kept in self._attributes]
        self._steady = self._steady or found
        pairs = zip(self._attributes, self._steady, found, strict=True)
        self._unsteady = self._unsteady or next((kept for kept, first, now in pairs if first != now), None)

    def changed(self) -> str:
        """Return what the steps that were looked at change and no device can change by itself, in words, or nothing."""
        if random.getstate() != self._python:
            return "a step draws Python's random numbers"
        if repr(np.random.get_state()) != repr(self._numpy):
            return "a step draws NumPy's random numbers"
        if self._run.device.type != "cpu" and not torch.equal(torch.get_rng_state(), self._layers[0]):
            return "a step draws random numbers on the processor"
        for kept in self._tensors:
            if kept.home.get(kept.name) is not kept.tensor:
                return f"{kept.owner} replaces its tensor {kept.name} in each step"
        if self._unsteady is not None:
            return f"{type(self._unsteady.owner).__name__} changes its attribute {self._unsteady.name} in each step"
        return ""

    @property
    def nbytes(self) -> int:
        """Return the bytes of the copies."""
        return sum(copy.nbytes for copy in (*(kept.copy for kept in self._tensors), *self._moments.values()))

    def put_back(self) -> None:
        """Make everything as it was; moments that were not there yet become zero, gradients are dropped."""
        with torch.no_grad():
            for kept in self._tensors:
                kept.tensor.copy_(kept.copy)
                kept.home[kept.name] = kept.tensor
            for parameter, name, value in self._present_moments():
                before = self._moments.get((parameter, name))
                value.zero_() if before is None else value.copy_(before)
        self._run.optimizer.zero_grad(set_to_none=True)
        for attribute in self._attributes:
            _set(attribute)
        self._steady = []
        if self._run.precision.scaler:
            self._run.precision.scaler.load_state_dict(self._scaler)
        self._run.randomness.augment.set_state(self._augment)
        set_global_state(self._layers, self._run.device)
        random.setstate(self._python)
        np.random.set_state(self._numpy)

    def drop_new_moments(self) -> None:
        """Forget the moments that were not there yet, so that the optimizer's next step is its first."""
        for parameter, name, _ in list(self._present_moments()):
            if (parameter, name) not in self._moments:
                self._run.optimizer.state.pop(parameter, None)

    def _present_moments(self) -> Iterator[tuple[Any, str, torch.Tensor]]:
        for parameter, moments in self._run.optimizer.state.items():
            for name, value in moments.items():
                if isinstance(value, torch.Tensor):
                    yield parameter, name, value


def _tensors(run: Run) -> Iterator[KeptTensor]:
    """Yield parameters, buffers, and tensors that are mere attributes of layers, and those of regularizers' states."""
    for module in (*run.model.modules(), *run.hooks.modules()):
        for home in (module._parameters, module._buffers, vars(module)):
            for name, tensor in home.items():
                if isinstance(tensor, torch.Tensor):
                    copy = tensor.detach().clone()
                    yield KeptTensor(owner=type(module).__name__, home=home, name=name, tensor=tensor, copy=copy)


def _attributes(run: Run) -> Iterator[KeptAttribute]:
    """Yield the plain attributes of layers, of their hooks, of the loss and of the regularizers in steps."""
    modules = list(run.model.modules())
    hooks = [hook for layer in modules for hook in (*layer._forward_hooks.values(), *layer._forward_pre_hooks.values())]
    bound = run.hooks
    methods = (*bound.augments, *bound.losses, *bound.penalties, *bound.clips, *bound.afters)
    for owner in (
        *modules,
        *hooks,
        *bound.modules(),
        run.loss,
        *(getattr(method, "__self__", None) for method in methods),
    ):
        for name in _names(owner):
            value = getattr(owner, name, None)
            items = value if isinstance(value, list) else [value]
            if all(isinstance(item, PLAIN) for item in items):
                yield KeptAttribute(owner=owner, name=name, value=value, copy=_value(owner, name))


def _names(owner: Any) -> list[str]:
    slots = [slot.name for slot in fields(owner)] if is_dataclass(owner) else []
    return [*getattr(owner, "__dict__", ()), *slots]


def _value(owner: Any, name: str) -> Any:
    value = getattr(owner, name, None)
    return list(value) if isinstance(value, list) else value


def _set(kept: KeptAttribute) -> None:
    if isinstance(kept.value, list):
        kept.value[:] = kept.copy
    if getattr(kept.owner, kept.name, None) is not kept.value:
        object.__setattr__(kept.owner, kept.name, kept.value)  # plugins may be frozen
