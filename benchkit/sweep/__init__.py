"""A sweep: workers that train what a study lacks, and what is told of it.

The names are imported when they are first asked for: a worker is part of this package and needs no ledger.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchkit.sweep.orchestration import Request, View, prepare, sweep, threads_of, worker_count

__all__ = ["Request", "View", "prepare", "sweep", "threads_of", "worker_count"]


def __getattr__(name: str) -> Any:
    """Return one of the names."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("benchkit.sweep.orchestration"), name)
