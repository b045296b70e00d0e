"""How long and how large a sweep will be: its plan against the ledger, and a short timed run. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from benchkit.checks import check_plan
from benchkit.errors import DataError
from benchkit.events import Probed, WorkerFailed, WorkerIdle, WorkerLost, WorkerReady
from benchkit.job import Job
from benchkit.ledger import Ledger
from benchkit.plan import Condition, Plan, make_plan, typed_settings
from benchkit.pool import Pool
from benchkit.registry import Registry
from benchkit.results import FINISHED
from benchkit.sweep import Request, prepare, worker_count

MOST_PROBES = 8
"""Conditions that are timed at the most; others take the mean of the timed ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionEstimate:
    """A condition's trials, how many of them are finished, and the seconds that one takes if known."""

    condition: Condition
    trials: int
    finished: int
    epochs: int
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a sweep takes: `seconds` and `bytes` for what is left, None with a `problem` where it cannot be told."""

    conditions: tuple[ConditionEstimate, ...]
    seconds: float | None
    bytes: float
    jobs: int
    device: str
    probed: int
    problem: str = ""


def estimate(request: Request, registry: Registry) -> Estimate:
    """Return what a sweep would take; raise `BenchkitError` for one that cannot be trained as asked."""
    plan = make_plan(request.study, only=request.only)
    check_plan(plan, registry)
    threads = max(typed_settings(c.settings, plan.study.seed).train.threads for c in plan.conditions)
    jobs = worker_count(request, plan, threads)
    finished = _finished(request, plan)
    try:
        prepare(plan, registry, request.data_root)
        probes, device = _probe(request, plan, threads)
        problem = ""
    except DataError as error:
        probes, device, problem = {}, request.device, str(error)
    mean = sum(one.seconds for one in probes.values()) / len(probes) if probes else None
    size = max((one.bytes for one in probes.values()), default=0)
    rows = tuple(_row(plan, c, finished.get(c.key, 0), probes.get(c.key), mean) for c in plan.conditions)
    extra = _confirm_trials(plan)
    total = None if mean is None else sum((r.trials - r.finished) * (r.seconds or 0) for r in rows)
    if total is not None and extra:
        total += extra * max(r.seconds or 0 for r in rows)
    left = sum(r.trials - r.finished for r in rows) + extra
    return Estimate(
        conditions=rows,
        seconds=None if total is None else total / jobs,
        bytes=size * left,
        jobs=jobs,
        device=device,
        probed=len(probes),
        problem=problem,
    )


def _confirm_trials(plan: Plan) -> int:
    return plan.study.confirm * sum(condition.kind == "search" for condition in plan.conditions)


def _finished(request: Request, plan: Plan) -> dict[str, int]:
    if not request.storage and not (request.workspace / "ledger.db").exists():
        return {}
    ledger = Ledger(request.workspace, request.storage or None)
    counts: dict[str, int] = {}
    for trial in ledger.trials(plan):
        counts[trial.condition.key] = counts.get(trial.condition.key, 0) + (trial.state in FINISHED)
    return counts


def _row(plan: Plan, condition: Condition, done: int, probed: Probed | None, mean: float | None) -> ConditionEstimate:
    epochs = typed_settings(condition.settings, plan.study.seed).train.epochs
    epoch = probed.seconds if probed else mean
    return ConditionEstimate(
        condition=condition,
        trials=plan.count(condition),
        finished=min(done, plan.count(condition)),
        epochs=epochs,
        seconds=None if epoch is None else epoch * epochs,
    )


def _probe(request: Request, plan: Plan, threads: int) -> tuple[dict[str, Probed], str]:
    """Time a short run of up to `MOST_PROBES` conditions in a worker; return the probes by key, and the device."""
    timed = [condition for condition in plan.conditions if condition.kind == "grid"][:MOST_PROBES]
    job = Job(
        task="probe",
        study=plan.study,
        conditions=tuple(timed),
        workspace=request.workspace,
        data_root=request.data_root,
        device=request.device,
        plugins=request.plugins,
    )
    found: dict[str, Probed] = {}
    device = request.device
    with Pool(1, threads, request.workspace / "logs") as pool:
        pool.give(0, job)
        while True:
            for _, event in pool.events(0.5):
                if isinstance(event, WorkerReady):
                    device = event.device
                elif isinstance(event, Probed):
                    found[event.key] = event
                elif isinstance(event, WorkerFailed):
                    raise DataError(f"the timed run failed: {event.message}")
                elif isinstance(event, WorkerLost):
                    raise DataError(f"the timed run's process ended with status {event.code}")
                elif isinstance(event, WorkerIdle):
                    return found, device
