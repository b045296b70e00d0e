"""Where a tensor lies: the one question by which code takes the way of a GPU or of a processor. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_standing_in = False


def is_cpu(tensor: torch.Tensor) -> bool:
    """Return whether a processor computes with `tensor`: there, looking at its numbers holds up nobody.

    Ask this, not `tensor.is_cuda` or its device's type, before what only a CPU or only a GPU does well: where the
    conformance kit lets a CPU stand in for a GPU, it is false, so that the GPU's way is tried without one.
    """
    return tensor.is_cpu and not _standing_in


@contextmanager
def standing_in() -> Iterator[None]:
    """Let the CPU stand in for a GPU while the context lasts: `is_cpu` is false."""
    global _standing_in
    before, _standing_in = _standing_in, True
    try:
        yield
    finally:
        _standing_in = before
