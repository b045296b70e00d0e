"""A sweep: worker processes that train what a study lacks, and what is told of it."""

from benchkit.sweep.orchestration import Request, View, prepare, sweep, threads_of, worker_count

__all__ = ["Request", "View", "prepare", "sweep", "threads_of", "worker_count"]
