"""The random numbers of a run: one generator for each purpose, none shared with the rest of the process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(slots=True, kw_only=True)
class Randomness:
    """`order` (CPU) shuffles images, `augment` (on the device) changes them; `layers` is PyTorch's global state.

    Dropout and its like draw from PyTorch's global generators, so that state is put in place while the run trains and
    taken out afterwards: nothing else in the process disturbs a run, and a run disturbs nothing else.
    """

    device: torch.device
    order: torch.Generator
    augment: torch.Generator
    layers: list[torch.Tensor]

    @contextmanager
    def in_charge(self) -> Iterator[None]:
        """Let layers draw from the run's own random state while the context lasts."""
        before = global_state(self.device)
        set_global_state(self.layers, self.device)
        try:
            yield
        finally:
            self.layers = global_state(self.device)
            set_global_state(before, self.device)

    def state(self) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Return all generators' states."""
        return {"order": self.order.get_state(), "augment": self.augment.get_state(), "layers": list(self.layers)}

    def restore(self, state: dict[str, torch.Tensor | list[torch.Tensor]]) -> None:
        """Continue where `state` was taken."""
        order, augment, layers = state["order"], state["augment"], state["layers"]
        assert isinstance(order, torch.Tensor) and isinstance(augment, torch.Tensor) and isinstance(layers, list)
        self.order.set_state(order)
        self.augment.set_state(augment)
        self.layers = layers


def randomness(seeds: Mapping[str, int], device: torch.device) -> Randomness:
    """Return the generators of one trial, from its seeds for order, augment and dropout (`study.seeds.trial_seeds`)."""
    with seeded(seeds["dropout"], device):
        layers = global_state(device)
    return Randomness(
        device=device,
        order=torch.Generator().manual_seed(seeds["order"]),
        augment=torch.Generator(device).manual_seed(seeds["augment"]),
        layers=layers,
    )


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's global generators while the context lasts, and put them back as they were."""
    before = global_state(device)
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)  # the others of the machine, of which torch.manual_seed makes a note
    else:
        torch.manual_seed(seed)
    try:
        yield
    finally:
        set_global_state(before, device)


def global_state(device: torch.device) -> list[torch.Tensor]:
    """Return the state of the CPU's global generator and, on a GPU, of the device's."""
    state = [torch.get_rng_state()]
    if device.type == "mps":
        return [*state, torch.mps.get_rng_state()]
    return [*state, torch.cuda.get_rng_state(device)] if device.type == "cuda" else state


def set_global_state(state: list[torch.Tensor], device: torch.device) -> None:
    """Put back what `global_state` returned."""
    torch.set_rng_state(state[0])
    if device.type == "mps":
        torch.mps.set_rng_state(state[1])
    elif device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
