"""How fast a device multiplies matrices and copies memory: measured in a blink, kept in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator

import torch

from benchkit.storage import cache_folder, write_atomically
from benchkit.train.device import now

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

LONG_ENOUGH = 0.02
"""Seconds of a single product at which larger matrices would tell nothing new."""


def matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """Return the floating-point operations per second of a product of two square matrices, 2 n^3 of them each.

    The best of all products within about `seconds`, over sides n of 256 to 8192 that grow until one product takes
    long enough to be timed: what the device reaches at its best in this process, with its threads. On CUDA, float32
    factors are rounded as convolutions round them.
    """
    with rounding_of_convolutions(device):
        return _best_rate(device, dtype, seconds)


@contextlib.contextmanager
def rounding_of_convolutions(device: torch.device) -> Iterator[None]:
    """Let float32 products of matrices on CUDA round their factors as convolutions do there: PyTorch's default is TF32.

    Training in float32 would otherwise use more than all of the rate that it is held against.
    """
    if device.type != "cuda":
        yield
        return
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    try:
        yield
    finally:
        products.fp32_precision = before


def _best_rate(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    best, began, side = 0.0, time.perf_counter(), 256
    own = torch.Generator(device).manual_seed(0)  # nothing that is trained draws other numbers because of this
    while True:
        # A GPU that saves power on equal numbers would multiply ones faster than anything that is trained.
        a, b = torch.randn((2, side, side), device=device, generator=own).to(dtype).unbind()
        out = torch.empty_like(a)
        taken = _quickest(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device, seconds / 4)  # type: ignore[misc]
        best = max(best, 2 * side**3 / taken)
        if taken > LONG_ENOUGH or side >= 8192 or time.perf_counter() - began > 2 * seconds:
            return best
        side *= 2


def copy_rate(device: torch.device, seconds: float = 0.2) -> float:
    """Return the bytes per second that a copy reads and writes, from one large tensor of the device to another."""
    size = 2**29 if device.type == "cuda" else 2**27
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * size / _quickest(lambda: target.copy_(source), device, seconds)


def _quickest(action: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the seconds of the quickest of at least two calls within about `seconds`, after one that warms up."""
    action()
    times: list[float] = []
    while len(times) < 2 or sum(times) < seconds:
        start = now(device)
        action()
        times.append(now(device) - start)
    return min(times)


def known_matrix_rate(
    device: torch.device, name: str, precision: str, *, busy: bool = False, reached: float = 0.0
) -> float:
    """Return the matrix rate of the device called `name` in float32, bf16 or fp16, in operations per second.

    It is measured once for a device, its CPU threads and the version of PyTorch, and then read from the user's cache,
    so that all trials are held against one number; again where training `reached` more, which shows that the device was
    held up then: the larger one is kept. A cache that cannot be written costs a measurement each time. On a `busy`
    device nothing is measured: an unknown rate is 0 then, as where the measurement fails.
    """
    key = f"{name}, {precision}, torch {torch.__version__}"
    path = cache_folder() / f"matrix-rate-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"
    rate = known = 0.0
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # absent or damaged: measured anew
        kept = json.loads(path.read_text(encoding="utf-8"))
        rate = float(kept["rate"])
        known = max(rate, float(kept.get("reached", 0)))
    if busy or (known and known >= reached):
        return rate
    try:
        rate = max(rate, matrix_rate(device, DTYPES[precision]))
    except RuntimeError:  # the device has no room left for it, say; no trial is lost for a number beside it
        return rate
    with contextlib.suppress(OSError):
        write_atomically(path, json.dumps({"device": key, "rate": rate, "reached": reached}).encode())
    return rate
