"""A memory allocator that keeps freed memory, for worker processes: jemalloc or tcmalloc where the system has one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

NAMES = ("jemalloc", "tcmalloc_minimal", "tcmalloc")
"""The libraries that would be preloaded, best first by their names to the dynamic loader."""

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
