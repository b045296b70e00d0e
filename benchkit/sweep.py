"""A sweep: plan, check, prepare the data, queue what is missing, and let workers train it until all is done."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchkit.binding import load_data
from benchkit.checks import check_plan
from benchkit.datafacts import facts_of
from benchkit.errors import BenchkitError, LedgerError
from benchkit.events import Event, TrialStarted, WorkerFailed, WorkerIdle, WorkerLost
from benchkit.job import Job
from benchkit.ledger import Ledger
from benchkit.plan import Condition, Plan, make_plan, typed_settings
from benchkit.pool import Pool
from benchkit.registry import Registry
from benchkit.results import State
from benchkit.study import Study

PATIENCE = 2
"""How often a trial may take its worker's process down before it is recorded as failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a sweep is asked for. `jobs` 0 takes as many trials at once as the machine has cores for."""

    study: Study
    workspace: Path
    data_root: Path
    storage: str = ""
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    jobs: int = 0
    device: str = "auto"
    retry: tuple[State, ...] = ()
    command: str = ""
    plugins: tuple[Path, ...] = ()


class View(Protocol):
    """Whoever watches a sweep."""

    def stage(self, title: str, states: Mapping[str, int], total: int) -> None:
        """Show that a stage begins, of `total` trials, some of them in a state already."""
        ...

    def event(self, worker: int, event: Event) -> None:
        """Show an event of a worker."""
        ...

    def tick(self) -> None:
        """Refresh what changes with time."""
        ...


def sweep(request: Request, registry: Registry, view: View) -> Counter[str]:
    """Train everything that a study lacks; return how many of its trials ended in each state.

    Raises `BenchkitError` for a study that cannot be trained as asked, before anything is trained.
    """
    plan = make_plan(request.study, only=request.only)
    check_plan(plan, registry)
    threads = max(typed_settings(c.settings, plan.study.seed).train.threads for c in plan.conditions)
    ledger = Ledger(request.workspace, request.storage or None)
    data = prepare(plan, registry, request.data_root)
    refuse_changed_data(ledger, plan, data)
    ledger.register(plan, data, request.command)
    ledger.enqueue(plan, request.retry)
    if not _missing(ledger, plan) and not plan.study.search:
        return ledger.states(plan)
    with Pool(worker_count(request, plan, threads), threads, request.workspace / "logs") as pool:
        _Stage(request, ledger, pool, view).train(plan, "training")
        confirms = ledger.confirm(plan)
        if confirms:
            plan = Plan(study=plan.study, conditions=(*plan.conditions, *confirms))
            ledger.enqueue(plan, request.retry)
            _Stage(request, ledger, pool, view).train(plan, "confirming the searches' best")
    return ledger.states(plan)


def prepare(plan: Plan, registry: Registry, root: Path) -> dict[str, Any]:
    """Prepare every data set that a plan needs; return the facts of the first, and of all under `sets`."""
    refs = {
        repr(ref): ref for ref in (typed_settings(c.settings, plan.study.seed).data.dataset for c in plan.conditions)
    }
    sets = [facts_of(ref, load_data(registry, ref, root)) for ref in refs.values()]
    return {**sets[0], "sets": sets}


def refuse_changed_data(ledger: Ledger, plan: Plan, data: Mapping[str, Any]) -> None:
    """Raise `LedgerError` when trials of these conditions were trained on other data of the same name."""
    now = {one["fingerprint"] for one in data["sets"]}
    for trial in ledger.trials(plan):
        if trial.outcome and trial.outcome.data_fingerprint and trial.outcome.data_fingerprint not in now:
            raise LedgerError(
                f"{ledger.workspace}: {plan.study.name} was trained on other data: fingerprint "
                f"{trial.outcome.data_fingerprint[:12]}, now {', '.join(one[:12] for one in sorted(now))}",
                hint="choose a new --workspace, or prepare the data as they were",
            )


def worker_count(request: Request, plan: Plan, threads: int) -> int:
    """Return how many trials to train at once: as asked, else one per `threads` cores (one for a CUDA device)."""
    on_cuda = request.device.startswith("cuda") or (request.device == "auto" and Path("/dev/nvidia0").exists())
    default = 1 if on_cuda else max(1, available_cores() // threads)
    return min(request.jobs or default, max(1, len(plan.units())))


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _missing(ledger: Ledger, plan: Plan) -> bool:
    states = ledger.states(plan)
    return any(states[state] for state in ("waiting", "stale", "running"))


class _Stage:
    """Workers on one plan, from the first claim to the last trial's end."""

    def __init__(self, request: Request, ledger: Ledger, pool: Pool, view: View) -> None:
        self._request = request
        self._ledger = ledger
        self._pool = pool
        self._view = view
        self._at: dict[int, TrialStarted] = {}
        self._deaths: Counter[tuple[str, int]] = Counter()

    def train(self, plan: Plan, title: str) -> None:
        """Return when every trial of the plan has ended, by our workers or by another sweep's."""
        job = Job(
            task="train",
            study=plan.study,
            conditions=plan.conditions,
            workspace=self._request.workspace,
            storage=self._request.storage,
            data_root=self._request.data_root,
            device=self._request.device,
            plugins=self._request.plugins,
        )
        self._view.stage(title, self._ledger.states(plan), len(plan.units()))
        while _missing(self._ledger, plan):
            busy = set(range(self._pool.size))
            for number in busy:
                self._pool.give(number, job)
            while busy:
                for number, event in self._pool.events(0.25):
                    self._hear(plan, job, busy, number, event)
                    if not busy:
                        break
                self._view.tick()
            if _missing(self._ledger, plan):
                time.sleep(1)

    def _hear(self, plan: Plan, job: Job, busy: set[int], number: int, event: Event) -> None:
        if isinstance(event, TrialStarted):
            self._at[number] = event
        elif isinstance(event, WorkerIdle):
            busy.discard(number)
        elif isinstance(event, WorkerFailed):
            raise BenchkitError(
                f"a worker cannot go on: {event.message}",
                hint=f"the whole story is in {self._request.workspace / 'logs'}",
            )
        elif isinstance(event, WorkerLost):
            self._mourn(plan, number, event)
            self._pool.give(number, job)
        self._view.event(number, event)

    def _mourn(self, plan: Plan, number: int, event: WorkerLost) -> None:
        """Count a worker's death against the trial it was at; a trial that kills again and again is a failed one."""
        trial = self._at.pop(number, None)
        if trial is None:
            raise BenchkitError(
                f"a worker ended with status {event.code} before it trained anything",
                hint=f"the whole story is in {self._request.workspace / 'logs'}",
            )
        self._deaths[trial.key, trial.number] += 1
        if self._deaths[trial.key, trial.number] >= PATIENCE:
            condition = next(c for c in plan.conditions if c.key == trial.key)
            reason = f"its process ended with status {event.code}, {PATIENCE} times"
            if event.code == -9:
                reason += "; killed from outside, most likely out of memory: try a smaller train.batch_size or --jobs"
            self._ledger.give_up(plan.study, condition, trial.number, reason)


__all__ = ["Condition", "Request", "View", "available_cores", "sweep", "worker_count"]
