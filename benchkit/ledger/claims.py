"""A worker's hold on one trial of the ledger: claim it, give signs of life, report its epochs, record its end."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from benchkit.ledger.files import TrialFolder, write_list
from benchkit.ledger.ledger import CONDITION_FILE, Ledger, occupied
from benchkit.ledger.samplers import Chosen, chosen_params, make_sampler, sample, suggest
from benchkit.ledger.tables import is_alive, lives_elsewhere
from benchkit.metrics import metric_names
from benchkit.plan import PHASES, Condition, Phase, Plan
from benchkit.results import EpochRecord, Outcome
from benchkit.storage import encode, write_atomically

EVERY = 30.0
"""Seconds between signs of life."""


class Heartbeat:
    """Tells who works on a trial, at once and every `every` seconds from a thread of its own, until it is stopped."""

    def __init__(self, tell: Callable[[str, Any], None], *, every: float = EVERY) -> None:
        """Tell by `tell("worker", {host, pid, seen})`."""
        self._tell = tell
        self._every = every
        self._stopped = threading.Event()
        self._beat()
        threading.Thread(target=self._go_on, daemon=True).start()

    def _beat(self) -> None:
        self._tell("worker", {"host": socket.gethostname(), "pid": os.getpid(), "seen": time.time()})

    def _go_on(self) -> None:
        while not self._stopped.wait(self._every):
            self._beat()

    def stop(self) -> None:
        """Tell nothing any more."""
        self._stopped.set()


STATES = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


class Claim:
    """A running trial that this process alone holds, until `finish` or `release`.

    `index` is the repeat or slot, `params` what the search chose (paths of settings to values, empty outside of one).
    """

    def __init__(
        self,
        plan: Plan,
        condition: Condition,
        trial: optuna.Trial,
        lock: FileLock,
        folder: TrialFolder,
        *,
        shared: bool,
    ) -> None:
        """Take hold of a running trial whose lock this process has; `shared` tells that other machines look at it."""
        self.plan = plan
        self.condition = condition
        self.trial = trial
        self.folder = folder
        self.index = int(trial.user_attrs["index"])
        self.phase: Phase = PHASES[condition.kind]
        self._lock = lock
        # Workers of this machine see by the lock that we live, and a write to SQLite costs them all some time.
        self._heartbeat = Heartbeat(trial.set_user_attr) if shared else None
        self._frozen = _frozen(trial) if self.phase == "search" else None
        self._reported = set(self._frozen.intermediate_values) if self._frozen else set()
        self.params = self._suggest()
        self._describe()

    def _describe(self, **ended: Any) -> None:
        """Write into the trial's folder what the ledger holds of it, so that the folder can stand for the ledger."""
        described = self.folder.path.parent / CONDITION_FILE
        if not described.exists():
            write_atomically(described, json.dumps(encode(self.condition)).encode())
        started = self.trial.datetime_start
        chosen = {"chosen": self.trial.user_attrs["chosen"]} if self._frozen is not None else {}
        self.folder.write_description(
            {
                "number": self.trial.number,
                "index": self.index,
                "attempt": int(self.trial.user_attrs["attempt"]),
                **chosen,
                "started": started.timestamp() if started else 0.0,
                **ended,
            }
        )

    def _suggest(self) -> dict[str, Any]:
        """Return the searched settings of the trial; those chosen before an interruption stay.

        All are chosen before the first is recorded: a kill in between would make the rest depend on what is recorded.
        """
        search = self.plan.search_of(self.condition)
        if search is None or self._frozen is None:
            return {}
        self.trial.study.get_trials(deepcopy=False)  # Optuna's cache must have met the trial to record its settings
        chosen = self.trial.user_attrs.get("chosen")
        if chosen is None:
            sampler = make_sampler(search, self.plan.study.seed, self.condition.key, self.trial.number)
            chosen = sample(sampler, search, self.trial.study, self._frozen, self.trial.user_attrs.get("given", {}))
            self.trial.set_user_attr("chosen", chosen)
        self.trial.study.sampler = Chosen(chosen)
        return chosen_params(search, {one.path: suggest(self.trial, one) for one in search.space})

    def should_prune(self, record: EpochRecord) -> bool:
        """Tell the ledger of an epoch; return whether the study's pruner gives up this trial of a search."""
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
        """Record how the trial ended, in its folder first and then in the ledger, and let go of it.

        The checkpoint goes once the outcome is on disk: a kill at any point costs no epoch that was saved.
        """
        values = self._values(outcome) if outcome.state == "done" else None
        self._describe(finished=time.time(), values=values)
        self.folder.write_outcome(outcome)
        self.folder.checkpoint.unlink(missing_ok=True)
        self._stop_heartbeat()
        for key, value in {**summary_of(outcome), "files": write_list(self.folder.path)}.items():
            self.trial.set_user_attr(key, value)
        self.trial.study.tell(self.trial, values, state=STATES.get(outcome.state, TrialState.FAIL))
        self.release()

    def _values(self, outcome: Outcome) -> list[float]:
        search = self.plan.study.search
        goals = [goal.metric for goal in search.goals] if search and self.phase == "search" else ["val.loss"]
        return [score_of(outcome, goal) for goal in goals]

    def release(self) -> None:
        """Let go of the trial as it is; an unfinished one is then stale, and the next worker goes on with it."""
        self._stop_heartbeat()
        self._lock.release()

    def _stop_heartbeat(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()


def score_of(outcome: Outcome, metric: str) -> float:
    """Return `val.loss`, `cost.seconds` and the like of a done trial."""
    group, _, name = metric.partition(".")
    if group == "cost":
        return float(getattr(outcome.cost, name))
    value = outcome.metrics[group].value(name)  # type: ignore[index]
    if value is None:
        raise KeyError(metric)
    return value


def scores_of(outcome: Outcome) -> dict[str, float]:
    """Return all scores of a trial by `split.metric`."""
    return {
        f"{split}.{name}": value
        for split, metrics in outcome.metrics.items()
        for name in metric_names()
        if (value := metrics.value(name)) is not None
    }


def summary_of(outcome: Outcome) -> Mapping[str, Any]:
    """Return what a dashboard shows of an outcome."""
    if outcome.state != "done":
        return {"state": outcome.state, "reason": outcome.reason}
    return {"outcome": {**scores_of(outcome), "cost": encode(outcome.cost)}}


class Queue:
    """The trials of a plan that are there to take: interrupted ones first, then those waiting, in the plan's order.

    The ledger is read once for many trials; what another worker took meanwhile is passed over.
    """

    def __init__(self, ledger: Ledger, plan: Plan) -> None:
        """Look at nothing yet."""
        self._ledger = ledger
        self._plan = plan
        self._seen: deque[tuple[Condition, FrozenTrial]] = deque()

    def next(self) -> Claim | None:
        """Return a hold on the next trial to train, or None when all are taken or finished."""
        for _ in range(2):
            while self._seen:
                claim = self._take(*self._seen.popleft())
                if claim is not None:
                    return claim
            self._seen.extend(self._look())
        return None

    def _look(self) -> list[tuple[Condition, FrozenTrial]]:
        attempts = self._ledger.attempts(self._plan.study)
        trials = {condition.key: attempts.counted(condition) for condition in self._plan.conditions}
        units = [(unit.condition, trials[unit.condition.key].get(unit.index)) for unit in self._plan.units()]
        queued = [(condition, trial) for condition, trial in units if trial is not None]
        stale = [
            (condition, trial)
            for condition, trial in queued
            if trial.state is TrialState.RUNNING and not self._is_alive(condition, trial)
        ]
        return [*stale, *(pair for pair in queued if pair[1].state is TrialState.WAITING)]

    def _is_alive(self, condition: Condition, trial: FrozenTrial) -> bool:
        return is_alive(trial, self._ledger.folder(self._plan.study, condition, trial.number))

    def _take(self, condition: Condition, trial: FrozenTrial) -> Claim | None:
        folder = self._ledger.folder(self._plan.study, condition, trial.number)
        lock = folder.own()
        if lock is None:
            return None
        if trial.state is TrialState.WAITING and (results := folder.results()):
            # Under the folder's lock no other worker can be about to start it: it waits still, or has been trained.
            waits = self._ledger.storage.get_trial(trial._trial_id).state is TrialState.WAITING
            lock.release()
            if waits:
                raise occupied(folder.path, results)
            return None
        if not self._is_ours(condition, trial):
            lock.release()
            return None
        # Optuna has no public way back to a running trial: its constructor is documented, a frozen trial's id is not.
        running = optuna.Trial(self._ledger.open(self._plan.study, condition), trial._trial_id)
        return Claim(self._plan, condition, running, lock, folder, shared=self._ledger.shared)

    def _is_ours(self, condition: Condition, seen: FrozenTrial) -> bool:
        """Return whether a trial whose lock we hold is to be trained by us, and set it running if it waited."""
        if seen.state is TrialState.WAITING:
            return _start(self._ledger.storage, seen)
        current = self._ledger.storage.get_trial(seen._trial_id)
        return current.state is TrialState.RUNNING and not lives_elsewhere(current)


def _start(storage: optuna.storages.BaseStorage, trial: FrozenTrial) -> bool:
    """Set a waiting trial running; return False when another worker did so first, or finished it even."""
    try:
        return storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING)
    except optuna.exceptions.UpdateFinishedTrialError:
        return False


def _frozen(trial: optuna.Trial) -> FrozenTrial:
    """Return what is recorded of a trial; of it alone, because reading a long queue takes its time."""
    return trial.storage.get_trial(trial._trial_id)
