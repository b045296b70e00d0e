"""Cores, allocator and MPS of this machine, and how many trials a device is best given at once. Imports no torch."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CGROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux shows the limits of containers and jobs, and which of them are this process's."""

MOST_CORES = 1e6
"""What stands for no limit."""


def available_cores(groups: Path = CGROUPS, own: Path = OWN_GROUPS) -> int:
    """Return the number of cores that this process may use, and that its container or Slurm job gives it time for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(_quota(groups, own))))


def control_groups(controllers: Collection[str], groups: Path, own: Path) -> Iterator[tuple[str, Path]]:
    """Yield the folders of this process's control groups and those above, each with its controllers ("" for all)."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, named, path in lines:
        if named in controllers:
            top, within = groups / named, Path(path.strip().lstrip("/"))
            yield from ((named, folder) for folder in (top / within, *(top / above for above in within.parents)))


def _quota(groups: Path, own: Path) -> float:
    """Return the least number of cores in the `cpu.max` of this process's control group and those above it."""
    least = MOST_CORES
    for _, folder in control_groups(("",), groups, own):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            least = min(least, float(quota) / float(period))
    return least


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


GAIN = 1.1
"""From this ratio of total rates on, more trials at once are worth it."""

SHARE = 0.8
"""The share of the free memory that trials may take together."""

WORTH = 60.0
"""Seconds of training left, one trial after another, below which looking for more speed is not worth it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLevel:
    """So many trials at once trained `rate` images per second together; 0 when they could not be trained."""

    at_once: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """What was measured on `device`: levels from one trial on, and of one trial its memory and images.

    `peak_bytes` is what one trial takes of the device's memory and `free_bytes` what was free before it, 0 where
    nobody knows. `images` is the number that it trains on in an epoch.
    """

    device: str = ""
    levels: tuple[ConcurrencyLevel, ...] = ()
    peak_bytes: int = 0
    free_bytes: int = 0
    images: int = 0

    def fitting(self) -> int:
        """Return how many trials fit into `SHARE` of the free memory, at least one."""
        if not self.peak_bytes or not self.free_bytes:
            return 2**31
        return max(1, int(SHARE * self.free_bytes / self.peak_bytes))


def next_level(concurrency: Concurrency, most: int, epochs: float = math.inf) -> int | None:
    """Return how many trials at once to measure next, None when enough is known.

    The number doubles, up to `most` and what fits into memory, while the total rate rises by a tenth each time, and
    only if training the `epochs` that are left, one trial after another, would take a while.
    """
    if not concurrency.levels:
        return 1
    last = concurrency.levels[-1]
    if last.rate <= 0 or not _rises(concurrency.levels):
        return None
    if concurrency.images * epochs / concurrency.levels[0].rate < WORTH:
        return None
    following = min(2 * last.at_once, most, concurrency.fitting())
    return following if following > last.at_once else None


def _rises(levels: Sequence[ConcurrencyLevel]) -> bool:
    return len(levels) < 2 or levels[-1].rate >= GAIN * levels[-2].rate


def best_count(concurrency: Concurrency, most: int) -> int:
    """Return the last number of trials at once that was a tenth faster than the one before it, 1 to `most`."""
    best = 1
    for place in range(1, len(concurrency.levels)):
        if not _rises(concurrency.levels[: place + 1]):
            break
        best = concurrency.levels[place].at_once
    return max(1, min(best, most))


def concurrency_text(concurrency: Concurrency, count: int) -> str:
    """Return the choice and what it rests on: `2 trials at once on cuda:0: probed 1: 900, 2: 1,700 images/s`."""
    rates = ", ".join(
        f"{one.at_once}: {one.rate:,.0f}" if one.rate else f"{one.at_once}: failed" for one in concurrency.levels
    )
    trials = "1 trial" if count == 1 else f"{count} trials"
    return f"{trials} at once on {concurrency.device}: probed {rates} images/s"
