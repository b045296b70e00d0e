"""A worker's hold on one trial of the ledger: claim it, report its epochs, record its end."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from benchkit.codec import encode
from benchkit.ledger import Ledger, effective, is_alive
from benchkit.plan import PHASES, Condition, Phase, Plan
from benchkit.results import EpochRecord, Outcome
from benchkit.samplers import make_sampler, suggest
from benchkit.trialfolder import TrialFolder

SPLIT_METRICS = ("loss", "accuracy", "micro_f1", "macro_f1", "calibration_error")
HEARTBEAT_EVERY = 30.0
"""Seconds between signs of life in the ledger, for workers on other machines."""


class Claim:
    """A running trial that this process alone holds, until `finish` or `release`."""

    def __init__(
        self, plan: Plan, condition: Condition, trial: optuna.Trial, lock: FileLock, folder: TrialFolder
    ) -> None:
        """Take hold of a trial whose lock this process has."""
        self.plan = plan
        self.condition = condition
        self.trial = trial
        self.folder = folder
        self.index = int(trial.user_attrs["index"])
        self.phase: Phase = PHASES[condition.kind]
        self._lock = lock
        self._reported = set(_frozen(trial).intermediate_values)
        self._seen = 0.0
        self._heartbeat()
        self.params = self._suggest()

    def _suggest(self) -> dict[str, Any]:
        """Return the searched settings of the trial; those chosen before an interruption stay."""
        search = self.plan.study.search
        if search is None or self.phase != "search":
            return {}
        number = self.trial.number
        self.trial.study.sampler = make_sampler(search, self.plan.study.seed, self.condition.key, number)
        return {one.path: suggest(self.trial, one) for one in search.space}

    def _heartbeat(self) -> None:
        if time.time() - self._seen > HEARTBEAT_EVERY:
            self._seen = time.time()
            worker = {"host": socket.gethostname(), "pid": os.getpid(), "seen": self._seen}
            self.trial.set_user_attr("worker", worker)

    def should_prune(self, record: EpochRecord) -> bool:
        """Tell the ledger of an epoch; return whether the study's pruner gives up this trial of a search."""
        self._heartbeat()
        search = self.plan.study.search
        if self.phase != "search" or search is None or len(search.goals) > 1:
            return False
        value = getattr(record, search.goals[0].metric.replace(".", "_"), None)
        if value is None:
            return False
        if record.epoch not in self._reported:
            self._reported.add(record.epoch)
            self.trial.report(value, step=record.epoch)
        return bool(self.trial.should_prune())

    def finish(self, outcome: Outcome) -> None:
        """Record how the trial ended, in its folder first and then in the ledger, and let go of it."""
        self.folder.write_outcome(outcome)
        for key, value in _summary(outcome).items():
            self.trial.set_user_attr(key, value)
        values = self._values(outcome) if outcome.state == "done" else None
        states = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        self.trial.study.tell(self.trial.number, values, state=states.get(outcome.state, TrialState.FAIL))
        self.release()

    def _values(self, outcome: Outcome) -> list[float]:
        search = self.plan.study.search
        goals = [goal.metric for goal in search.goals] if search else ["val.loss"]
        return [score_of(outcome, goal) for goal in goals]

    def release(self) -> None:
        """Let go of the trial as it is; an unfinished one is then stale, and the next worker goes on with it."""
        self._lock.release()


def score_of(outcome: Outcome, metric: str) -> float:
    """Return `val.loss`, `cost.seconds` and the like of a done trial."""
    group, _, name = metric.partition(".")
    source = outcome.cost if group == "cost" else outcome.metrics[group]  # type: ignore[index]
    return float(getattr(source, name))


def _summary(outcome: Outcome) -> Mapping[str, Any]:
    """Return what a dashboard shows of an outcome."""
    scores = {
        f"{split}.{name}": getattr(metrics, name)
        for split, metrics in outcome.metrics.items()
        for name in SPLIT_METRICS
    }
    cost = encode(outcome.cost) if outcome.cost else {}
    return {"state": outcome.state, "reason": outcome.reason, "scores": scores, "cost": cost}


def claim_next(ledger: Ledger, plan: Plan, order: list[Condition]) -> Claim | None:
    """Return a hold on the next trial to train, or None when all are taken or finished.

    `order` lists a condition once for each of its trials; conditions are taken off it as they run dry, so that a long
    queue is walked once.
    """
    while order:
        condition = order[0]
        claim = _claim(ledger, plan, condition)
        if claim is not None:
            order.pop(0)
            return claim
        order[:] = [other for other in order if other.key != condition.key]
    return None


def claim_stale(ledger: Ledger, plan: Plan) -> Claim | None:
    """Return a hold on an interrupted trial whose owner is gone, or None."""
    for condition in plan.conditions:
        handle = ledger.open(plan.study, condition)
        for frozen in effective(handle.get_trials(deepcopy=False, states=(TrialState.RUNNING,))).values():
            folder = ledger.folder(plan.study, condition, frozen.number)
            if is_alive(frozen, folder):
                continue
            claim = _take(plan, condition, handle, frozen, folder)
            if claim is not None:
                return claim
    return None


def _take(
    plan: Plan, condition: Condition, handle: optuna.Study, frozen: FrozenTrial, folder: TrialFolder
) -> Claim | None:
    lock = folder.own()
    if lock is None:
        return None
    current = handle.get_trials(deepcopy=False)[frozen.number]
    if current.state is not TrialState.RUNNING:
        lock.release()
        return None
    # Optuna has no public way back to a running trial; its constructor is documented, the id of a frozen trial is not.
    return Claim(plan, condition, optuna.Trial(handle, current._trial_id), lock, folder)


def _claim(ledger: Ledger, plan: Plan, condition: Condition) -> Claim | None:
    handle = ledger.open(plan.study, condition)
    while handle.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        trial = handle.ask()
        if "index" not in trial.user_attrs:
            trial.set_user_attr("state", "superseded")
            handle.tell(trial, state=TrialState.FAIL)
            continue
        folder = ledger.folder(plan.study, condition, trial.number)
        lock = folder.own()
        if lock is None:
            continue
        counted = effective(handle.get_trials(deepcopy=False))[trial.user_attrs["index"]]
        if counted.number != trial.number:
            trial.set_user_attr("state", "superseded")
            handle.tell(trial, state=TrialState.FAIL)
            lock.release()
            continue
        return Claim(plan, condition, trial, lock, folder)
    return None


def _frozen(trial: optuna.Trial) -> FrozenTrial:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trial.study.get_trials(deepcopy=False)[trial.number]
