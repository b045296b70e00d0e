"""Time and memory, as the engine measures them: the only place in `benchkit.train` that looks at a clock."""

from __future__ import annotations

import sys
import time

import torch

MEBIBYTE = 2**20


def now(device: torch.device) -> float:
    """Return monotonic seconds, once all work queued on the device is done (one synchronisation on CUDA)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def forget_peak(device: torch.device) -> None:
    """Start a new measurement of peak memory, where the device can: a process's peak on the CPU never falls."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> float:
    """Return peak memory in MiB: what CUDA allocated for tensors, or the process's largest resident set on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / MEBIBYTE
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEBIBYTE
