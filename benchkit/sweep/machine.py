"""What workers may use of this machine: processor cores, a memory allocator, one GPU together. Imports no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


KEEP_FREED = "dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0"
"""What keeps jemalloc from giving every step's activations back to the system, which makes training slower than with
the C library's allocator (tcmalloc keeps them by itself)."""

NAMES: Mapping[str, Mapping[str, str]] = {
    "tcmalloc_minimal": {},
    "tcmalloc": {},
    "jemalloc": {"MALLOC_CONF": KEEP_FREED},
}
"""The libraries that would be preloaded, best first by their names to the dynamic loader, and their environment."""

FOLDERS = tuple(
    Path(folder)
    for folder in (
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
    )
)


def preloaded_allocator(folders: Sequence[Path] = FOLDERS) -> Path | None:
    """Return the allocator's library for LD_PRELOAD, or None where there is none.

    Only Linux is looked at; `BENCHKIT_MALLOC=system` keeps the C library's.
    """
    if sys.platform != "linux" or os.environ.get("BENCHKIT_MALLOC") == "system":
        return None
    found = (path for name in NAMES for folder in folders for path in sorted(folder.glob(f"lib{name}.so.*")))
    return next(found, None)


def preloading(library: Path | None) -> dict[str, str]:
    """Return the environment variables that make a process use an allocator's library; none without one."""
    if library is None:
        return {}
    own = next((settings for name, settings in NAMES.items() if library.name.startswith(f"lib{name}.so")), {})
    return {"LD_PRELOAD": str(library), **own}


def mps_runs() -> bool:
    """Return whether its control daemon can be reached: CUDA programs of this user then use it without being asked."""
    return Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control").exists()
