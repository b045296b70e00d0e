"""What PyTorch, NumPy and Python keep for a whole process, kept apart for trials that take turns in one."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

Flag = tuple[Callable[[], Any], Callable[[Any], object]]
Kept = tuple[tuple[torch.Tensor, Any, Any], list[Any]]


def _attribute(owner: Any, name: str) -> Flag:
    return (lambda: getattr(owner, name)), (lambda value: setattr(owner, name, value))


def _of_compiler() -> Flag:
    """Return whether compiled code is to be deterministic: the compiler, if it was imported, keeps that by itself."""

    def read() -> bool:
        return bool(getattr(sys.modules.get(COMPILER), "deterministic", False))

    def write(value: bool) -> None:
        sys.modules[COMPILER].deterministic = value  # type: ignore[attr-defined]

    return read, write


COMPILER = "torch._inductor.config"

FLAGS: Sequence[Flag] = (
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    _of_compiler(),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.autograd.set_detect_anomaly(*value),
    ),
    _attribute(torch.utils.deterministic, "fill_uninitialized_memory"),
    _attribute(torch.backends.cudnn, "deterministic"),
    _attribute(torch.backends.cudnn, "benchmark"),
    _attribute(torch.backends.cudnn.conv, "fp32_precision"),  # type: ignore[attr-defined]
    _attribute(torch.backends.cuda.matmul, "fp32_precision"),
    _attribute(torch.backends.mkldnn.conv, "fp32_precision"),  # type: ignore[attr-defined]
    _attribute(torch.backends.mkldnn.matmul, "fp32_precision"),  # type: ignore[attr-defined]
)
"""What changes how all that follows in the process is computed: how each is read, and set."""


TURN = 0.02
"""Seconds of a turn, in which the processor queues more steps than a device takes: changing turns is then cheap."""


class Surroundings:
    """The process as one trial finds and leaves it: random numbers, flags, threads; on CUDA its stream, if it has one.

    What a trial leaves behind at the end of its turn is there again at its next one, and no other trial finds it.
    """

    def __init__(self, stream: torch.cuda.Stream | None = None) -> None:
        """Begin as the process is now, with a random state of its own on the device of the stream."""
        self._stream = stream
        self._device_random: Any = None if stream is None else _generator(stream).clone_state()
        self._kept = _now()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the process as the trial left it, and put it back as it is now."""
        before = _now()
        _put(self._kept)
        try:
            with self._on_stream():
                yield
        finally:
            self._kept = _now()
            _put(before)

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        """Queue work on the trial's stream, and draw from its own state there.

        A recorded step reads the state object that was the device's when it was recorded: two trials must never have
        the same, nor queue on one stream, whose libraries' memory a dying graph would take along.
        """
        if self._stream is None:
            yield
            return
        generator = _generator(self._stream)
        before = generator.graphsafe_get_state()
        generator.graphsafe_set_state(self._device_random)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            self._device_random = generator.graphsafe_get_state()
            generator.graphsafe_set_state(before)


def own_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return a stream for one of several trials on a CUDA device, None on others."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _generator(stream: torch.cuda.Stream) -> torch.Generator:
    return torch.cuda.default_generators[stream.device_index]


def _now() -> Kept:
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()
    return drawn, [read() for read, _ in FLAGS]


def _put(kept: Kept) -> None:
    (drawn, drawn_by_python, drawn_by_numpy), flags = kept
    for (read, write), value in zip(FLAGS, flags, strict=True):
        if read() != value:
            write(value)
    torch.set_rng_state(drawn)
    random.setstate(drawn_by_python)
    np.random.set_state(drawn_by_numpy)
