"""How long and how large a sweep will be: its plan against the ledger, and a short timed run. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchkit.analysis.candidates import Standing
from benchkit.data.dataset import warnings_of
from benchkit.errors import DataError, UnfitDataError
from benchkit.ledger import Ledger
from benchkit.ledger.readback import UntouchedLedger, confirm_conditions, is_there
from benchkit.plan import Condition, Plan, make_plan
from benchkit.registry import Registry
from benchkit.study.checks import check_plan
from benchkit.study.study import UNTIL_DECIDED
from benchkit.sweep.decided import decided_device, refuse_other_decisions
from benchkit.sweep.devices import Devices
from benchkit.sweep.messages import Probed, WorkerFailed, WorkerLost, WorkerReady
from benchkit.sweep.orchestration import Request, devices_of, prepare, refuse_broken_networks, threads_of, worker_count
from benchkit.sweep.pool import Pool, answers
from benchkit.sweep.until_decided import standing_of

MOST_PROBES = 8
"""Conditions that are timed at the most; others take the mean of the timed ones."""

MOST_SECONDS = 60.0
"""Seconds after which no further condition is timed, for a slow or busy machine; those timed by then speak for all."""

HISTORY_BYTES = 4096
"""What a trial of a search leaves on disk, about: its history and its outcome, no weights and no predictions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionEstimate:
    """A condition's trials, how many of them are finished, and the seconds that one takes if known."""

    condition: Condition
    trials: int
    finished: int
    epochs: int
    seconds: float | None = None

    @property
    def left(self) -> int:
        """Return how many trials are to be trained."""
        return self.trials - self.finished


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepEstimate:
    """What a sweep takes: `seconds` and `bytes` for what is left, None with a `problem` where it cannot be told.

    `confirms` counts the trials that will confirm searches whose best is not known yet; those of finished searches
    are among the `conditions`. `further` is how many trials may come on top, at the most, until it is decided which
    condition is best.
    """

    conditions: tuple[ConditionEstimate, ...]
    confirms: int
    seconds: float | None
    bytes: float | None
    jobs: int
    device: str
    probed: int
    problem: str = ""
    further: int = 0

    @property
    def left(self) -> int:
        """Return how many trials are to be trained."""
        return self.confirms + sum(row.left for row in self.conditions)


def estimate(request: Request, registry: Registry, say: Callable[[str], None] = lambda message: None) -> SweepEstimate:
    """Return what a sweep would take, after telling `say` what is tried for it and for how long at the most.

    Raises `BenchkitError` for a sweep that cannot be trained as asked.
    """
    plan = make_plan(request.study, only=request.only)
    check_plan(plan, registry)
    if is_there(request.workspace, request.storage):
        ledger = UntouchedLedger(request.workspace, request.storage or None)
        refuse_other_decisions(ledger, request)
        request = replace(request, device=decided_device(ledger, request))
        state = standing_of(ledger, plan.study) if request.adding else None
        plan, finished = _progress(ledger, plan, state)
    else:
        state, finished = None, {}
    rows = tuple(
        ConditionEstimate(
            condition=condition,
            trials=plan.count(condition),
            finished=finished.get(condition.key, 0),
            epochs=plan.settings_of(condition).train.epochs,
        )
        for condition in plan.conditions
    )
    confirms = plan.study.confirm * sum(row.condition.kind == "search" and row.left > 0 for row in rows)
    devices = devices_of(request)
    probes, device, problem = _probes(request, plan, registry, devices, rows, say)
    timed = tuple(_timed(row, probes) for row in rows)
    jobs = worker_count(request, plan, devices)
    return SweepEstimate(
        conditions=timed,
        confirms=confirms,
        seconds=None if problem else _seconds(timed, confirms) / jobs,
        bytes=None if problem else _bytes(timed, confirms, jobs, probes),
        jobs=jobs,
        device=device,
        probed=len(probes),
        problem=problem,
        further=_further(request, rows, state),
    )


def _further(request: Request, rows: Sequence[ConditionEstimate], state: Standing | None) -> int:
    """Return how many trials may come on top, at the most, until it is decided which condition is best."""
    if state is not None:
        return sum(state.plan[-1].n - state.asked[key] for key in state.open) if state.next else 0
    most = (request.most or request.study.most or UNTIL_DECIDED) if request.adding else 0
    return sum(max(0, most - row.trials) for row in rows if row.condition.kind != "search")


def _progress(ledger: Ledger, plan: Plan, state: Standing | None) -> tuple[Plan, Mapping[str, int]]:
    """Return the plan with what confirms its finished searches, and the number of finished trials by condition."""
    known = {condition.key for condition in ledger.conditions(plan.study)}
    begun = replace(plan, conditions=tuple(one for one in plan.conditions if one.key in known))
    confirms = confirm_conditions(ledger, begun, finished=True)
    plan = replace(plan, conditions=(*plan.conditions, *confirms), more=state.asked if state else {})
    attempts = ledger.attempts(plan.study)
    return plan, {one.key: attempts.ended(one, plan.count(one)) for one in plan.conditions}


def _timed(row: ConditionEstimate, probes: Mapping[str, Probed]) -> ConditionEstimate:
    """Return a condition with the seconds of a trial: as timed, as its search's frame was, or the mean of all."""
    if not probes:
        return row
    mean = sum(one.seconds for one in probes.values()) / len(probes)
    probe = probes.get(row.condition.key) or probes.get(row.condition.parent)
    return replace(row, seconds=row.epochs * (probe.seconds if probe else mean))


def _seconds(rows: Sequence[ConditionEstimate], confirms: int) -> float:
    slowest = max((row.seconds or 0.0 for row in rows), default=0.0)
    return sum(row.left * (row.seconds or 0.0) for row in rows) + confirms * slowest


def _bytes(rows: Sequence[ConditionEstimate], confirms: int, jobs: int, probes: Mapping[str, Probed]) -> float:
    kept = max((one.kept_bytes for one in probes.values()), default=0)
    checkpoint = max((one.checkpoint_bytes for one in probes.values()), default=0)
    searched = sum(row.left for row in rows if row.condition.kind == "search")
    scored = confirms + sum(row.left for row in rows) - searched
    return scored * kept + (scored + searched) * HISTORY_BYTES + min(jobs, scored + searched) * checkpoint


def _probes(
    request: Request,
    plan: Plan,
    registry: Registry,
    devices: Devices,
    rows: Sequence[ConditionEstimate],
    say: Callable[[str], None],
) -> tuple[dict[str, Probed], str, str]:
    """Return the probes by key, the device, and what stands in the way of them if anything."""
    left = [row.condition for row in rows if row.left]
    if not left:
        return {}, request.device, ""
    grid = [condition for condition in left if condition.kind == "grid"]
    try:
        data = prepare(plan, registry, request.data_root)
        for words in (words for one in data["sets"] for words in warnings_of(one, plan.study.splits == "folds")):
            say(f"warning: {words}")
        timed = (grid or left)[:MOST_PROBES]
        named = f"{timed[0].display_label}{f' and {len(timed) - 1} more' if len(timed) > 1 else ''}"
        say(f"trying the networks, then timing a few steps of {named}, for {MOST_SECONDS:.0f} seconds at the most")
        probes, device = _probe(request, plan, devices, left, timed, say)
    except UnfitDataError:
        raise
    except DataError as error:
        return {}, request.device, str(error)
    return probes, device, ""


def _probe(
    request: Request,
    plan: Plan,
    devices: Devices,
    left: Sequence[Condition],
    timed: Sequence[Condition],
    say: Callable[[str], None],
) -> tuple[dict[str, Probed], str]:
    """Try the networks of what is left in a worker, and time short runs there of some conditions.

    Return the probes by key, and the device.
    """
    found: dict[str, Probed] = {}
    device = request.device
    with TemporaryDirectory() as logs, Pool(devices.seats(1), threads_of(plan), Path(logs)) as pool:
        for words in refuse_broken_networks(pool, request, left).warnings:
            say(f"warning: {words}")
        for event in answers(pool, request.job("probe", timed), MOST_SECONDS):
            if isinstance(event, WorkerReady):
                device = event.device
            elif isinstance(event, Probed):
                found[event.key] = event
            elif isinstance(event, WorkerFailed):
                raise DataError(f"the timed run failed: {event.message}")
            elif isinstance(event, WorkerLost):
                raise DataError(f"the timed run's process ended with status {event.code}")
    if not found:
        raise DataError(f"no condition was timed within {MOST_SECONDS:.0f} seconds")
    return found, device
