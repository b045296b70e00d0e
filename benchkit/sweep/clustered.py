"""A sweep on a cluster: Ray is looked for, the nodes are told what the study needs, their seats are offered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from benchkit.errors import TrainingError
from benchkit.ledger import Ledger
from benchkit.ledger.ledger import decide, decisions_of
from benchkit.plan import Plan
from benchkit.registry import Registry
from benchkit.sweep.concurrency_search import concurrency_search, trials_at_once
from benchkit.sweep.decided import asked_once
from benchkit.sweep.devices import Device
from benchkit.sweep.pool import Pool
from benchkit.sweep.progress import View
from benchkit.sweep.shipping import cargo_of, needs_of
from benchkit.sweep.starts import Memory

if TYPE_CHECKING:
    from benchkit.sweep.orchestration import Request
    from benchkit.sweep.ray_nodes import RayCluster

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
}
"""What keeps Ray, once it is imported, from reporting to its makers, from warning of what seats do themselves, from
starting a cluster for whoever asks it something after the end, and from aborting this process at SIGTERM."""

DEVICES = ("auto", "cpu", "cuda")
"""What `--device` may say on a cluster, where nobody knows the numbers of its GPUs."""


def check_cluster(request: Request) -> None:
    """Raise `TrainingError` for a device that a cluster does not know, and where Ray is not installed."""
    if request.device not in DEVICES:
        raise TrainingError(
            f"--device {request.device}: on a cluster it is one of {', '.join(DEVICES)}",
            hint="which GPUs a node gives away is said to Ray when it starts there",
        )
    os.environ.update(QUIET)
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise TrainingError(
            f"--cluster {request.cluster}: Ray cannot be imported: {error}", hint="pip install 'benchkit[ray]'"
        ) from error


class Noting(View):
    """A view that tells in words what was measured."""

    def __init__(self, note: Callable[[str], None]) -> None:
        """Tell `note`."""
        self._note = note

    def say(self, words: str) -> None:
        """Note what was found."""
        self._note(words)


def _measured(cluster: RayCluster, request: Request, plan: Plan, missing: int, device: Device, cores: int) -> int:
    """Return how many trials a GPU of a node takes at once, timed there by workers on shares of it."""
    job = request.job("concurrency", plan.conditions)
    search = concurrency_search(job, plan, device, missing=missing, cores=cores)
    search = replace(search, device=replace(device, at_once=max(1, search.most)))
    return trials_at_once(search, request.workspace, Noting(cluster.note), cluster.open_line)


@contextmanager
def pool_of_cluster(
    request: Request,
    registry: Registry,
    ledger: Ledger,
    plan: Plan,
    data: Mapping[str, Any],
    say: Callable[[str], None],
) -> Iterator[tuple[Pool, Callable[[int], Memory]]]:
    """Join the cluster that is asked for and look at its nodes; yield its workers once a node can train the study.

    With them comes what tells of their limit of memory. `data` are the facts of the plan's data sets. Raises
    `TrainingError` where there is no such cluster, or no such node.
    """
    from benchkit.sweep.ray_cluster import joined
    from benchkit.sweep.ray_nodes import RayCluster, gpus_of_cluster, kind_of

    needs = needs_of(plan, registry, request.plugins, [one["fingerprint"] for one in data["sets"]])
    needs = replace(needs, allow_shadow=request.allow_shadow)
    known = decisions_of(ledger, plan.study.name).get("precision")
    asked = asked_once(plan.study).get("precision", "float32")
    with joined(request.cluster) as found:
        needs = replace(needs, kind=kind_of(request.device), precision=known.value if known else asked)
        gpus = gpus_of_cluster() if needs.kind == "cuda" else 0
        cluster = RayCluster(
            cluster=found,
            needs=needs,
            cargo=cargo_of(plan, registry, needs, request.data_root, code=request.ship_code),
            at_most=min(request.jobs or len(plan.units()), len(plan.units())),
            same_hardware=request.same_hardware,
            silence=request.lease,
            at_once=-(-request.jobs // gpus) if gpus else 1,
        )
        cluster.measure = partial(_measured, cluster, request, plan, -(-len(plan.units()) // max(1, gpus)))
        try:
            cluster.start(say)
            if needs.precision == "auto":
                value = cluster.settle_precision()
                decide(ledger, plan.study.name, "precision", value, "train.precision = auto on the cluster's nodes")

            def offered() -> Sequence[Device]:
                for words in cluster.news():
                    say(words)
                return cluster.seats()

            logs = request.workspace / "logs"
            with Pool(cluster.seats(), needs.threads, logs, cluster.open_line, offered) as pool:
                yield pool, cluster.memory
        finally:
            cluster.close()
