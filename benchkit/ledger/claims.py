"""A worker's hold on one trial of the ledger: claim it, give signs of life, report its epochs, record its end."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from benchkit.ledger.leases import Holder, Lease, Sweep, holding
from benchkit.ledger.ledger import CONDITION_FILE, Ledger
from benchkit.ledger.samplers import make_sampler, record, sample
from benchkit.ledger.tables import chosen_params, patient
from benchkit.ledger.trials import TrialFolder, is_alive, occupied, write_list
from benchkit.locks import Lock
from benchkit.metrics import metric_names, metric_of
from benchkit.plan import PHASES, Condition, Phase, Plan, search_of
from benchkit.results import EpochRecord, Outcome
from benchkit.storage import encode, write_atomically

STATES = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a claim rests on: the sweep as holder, the trial's lease, and its folder's lock where disks have locks."""

    holder: Holder
    lease: Lease
    lock: Lock | None


class Claim:
    """A running trial that this sweep alone holds, until `finish` or `release`.

    `index` is the repeat or slot, `params` what the search chose (paths of settings to values, empty outside of one),
    `lease` the number under which the trial was handed out: it grows each time, and what is told under an older one
    counts no more.
    """

    def __init__(
        self, plan: Plan, condition: Condition, trial: optuna.Trial | FrozenTrial, folder: TrialFolder, held: Held
    ) -> None:
        """Take hold of a running trial, which was handed out to this sweep; one of a search is no frozen one."""
        self.plan = plan
        self.condition = condition
        self.trial = trial
        self.folder = folder
        self.index = int(trial.user_attrs["index"])
        self.phase: Phase = PHASES[condition.kind]
        self.lease = held.lease.number
        self._held = held
        self._frozen: FrozenTrial | None = None
        if isinstance(trial, optuna.Trial) and self.phase == "search":
            self._frozen = trial.storage.get_trial(trial._trial_id)  # it alone: reading a long queue takes its time
        self._reported = dict(self._frozen.intermediate_values) if self._frozen else {}
        self.params = self._suggest()
        self._describe()

    def holds(self) -> bool:
        """Return whether the trial is ours still: what is heard of it counts only then.

        The ledger is asked only where nothing was heard of it for as long as a lease lasts.
        """
        return self._held.holder.holds(self.trial._trial_id, self._held.lease)

    def note(self, key: str, value: Any) -> bool:
        """Write an attribute of the trial, a JSON value; return False when it is another sweep's by now."""
        return self._held.holder.note(self.trial._trial_id, self._held.lease, key, value)

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
                "lease": self.lease,
                **chosen,
                "started": started.timestamp() if started else 0.0,
                **ended,
            }
        )

    def _suggest(self) -> dict[str, Any]:
        """Return the searched settings of the trial; those chosen before an interruption stay.

        All are chosen before the first is recorded: a kill in between would make the rest depend on what is recorded.
        """
        search = search_of(self.plan.study, self.condition)
        if search is None or self._frozen is None or isinstance(self.trial, FrozenTrial):
            return {}
        self.trial.study.get_trials(deepcopy=False)  # Optuna's cache must have met the trial to record its settings
        chosen = self.trial.user_attrs.get("chosen")
        if chosen is None:
            sampler = make_sampler(search, self.plan.study.seed, self.condition.key, self.trial.number)
            self.trial.study._thread_local.cached_all_trials = None  # what has ended since counts
            chosen = sample(sampler, search, self.trial.study, self._frozen, self.trial.user_attrs.get("given", {}))
            self.trial.set_user_attr("chosen", chosen)
        record(self.trial.storage, self._frozen, search, chosen)
        return chosen_params(search, chosen)

    @property
    def asks(self) -> bool:
        """Return whether a pruner is asked after each epoch."""
        search = self.plan.search_of(self.condition)
        return search is not None and len(search.goals) == 1

    @property
    def patience(self) -> float:
        """Return for how many seconds the ledger is asked."""
        return self._held.holder.patience

    @patient
    def should_prune(self, record: EpochRecord) -> bool:
        """Tell the ledger of an epoch; return whether the study's pruner gives up this trial of a search."""
        search = self.plan.search_of(self.condition)
        if search is None or not self.asks:
            return False
        value = record.score(search.goals[0].metric)
        if math.isnan(value):
            return False
        if record.epoch not in self._reported:
            self.trial.report(value, step=record.epoch)
            self._reported[record.epoch] = value
        return bool(self.trial.should_prune())

    def finish(self, outcome: Outcome) -> bool:
        """Record how the trial ended, in its folder first and then in the ledger, and let go of it.

        Returns False, and records nothing, when another sweep has taken the trial meanwhile.
        """
        return self.write_end(outcome) and self.record_end(outcome)

    def write_end(self, outcome: Outcome) -> bool:
        """Write into the trial's folder how it ended: whoever takes it after a kill finds that there.

        Returns False, and writes nothing, when another sweep has taken the trial meanwhile.
        """
        if not self.holds():
            self._unlock()
            return False
        self._describe(finished=time.time(), values=self._values(outcome))
        self.folder.write_outcome(outcome)
        return True

    def record_end(self, outcome: Outcome) -> bool:
        """Record in the ledger what `write_end` wrote, and let go of the trial, as `finish` does.

        The checkpoint goes once the outcome is on disk: a kill at any point costs no epoch that was saved.
        """
        if not self.holds():
            self._unlock()
            return False
        self.folder.checkpoint.unlink(missing_ok=True)
        told = {**summary_of(outcome), "files": write_list(self.folder.path)}
        state = STATES.get(outcome.state, TrialState.FAIL)
        values = self._last_reported() if state is TrialState.PRUNED else self._values(outcome)
        ended = self._held.holder.end(self.trial._trial_id, self._held.lease, state, values, told)
        self._unlock()
        return ended

    def _last_reported(self) -> list[float] | None:
        """Return what a pruned trial of a search counts with, as Optuna has it: the last value that is a number."""
        last = self._reported[max(self._reported)] if self._reported else math.nan
        return None if math.isnan(last) else [last]

    def _values(self, outcome: Outcome) -> list[float] | None:
        if outcome.state != "done":
            return None
        search = self.plan.search_of(self.condition)
        goals = [goal.metric for goal in search.goals] if search else ["val.loss"]
        return [_counted(outcome, goal) for goal in goals]

    def release(self) -> None:
        """Let go of the trial as it is; an unfinished one is then stale, and the next worker goes on with it."""
        self._held.holder.let_go(self.trial._trial_id, self._held.lease)
        self._unlock()

    def _unlock(self) -> None:
        if self._held.lock is not None:
            self._held.lock.release()


def _counted(outcome: Outcome, goal: str) -> float:
    """Return what a search counts a done trial with: where its goal is undefined, worse than any value."""
    worst = math.inf if metric_of(goal).lower_is_better else -math.inf
    return worst if (value := outcome.value(goal)) is None else value


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
        self._sweeps: Mapping[str, Sweep] = {}
        self._holder: Holder | None = None

    def forget(self) -> None:
        """Look at the ledger anew before the next trial, since one was given back."""
        self._seen.clear()

    def next(self, wanted: Callable[[Condition], bool] = lambda condition: True) -> Claim | None:
        """Return a hold on the next trial to train, or None when all are taken or finished, or of no wanted condition.

        Those that are passed over keep their places.
        """
        for look in (False, True):
            if look:
                self._seen.extend(self._look())
            passed: list[tuple[Condition, FrozenTrial]] = []
            claim = None
            while self._seen and claim is None:
                condition, trial = self._seen.popleft()
                if wanted(condition):
                    claim = self._take(condition, trial)
                else:
                    passed.append((condition, trial))
            self._seen.extendleft(reversed(passed))
            if claim is not None or passed:
                return claim
        return None

    def _look(self) -> list[tuple[Condition, FrozenTrial]]:
        """Return what the ledger has to take. Where many seats idle, we are asked often, and hold all that is left."""
        if self._holder is not None and self._holder.has_all():
            return []
        attempts = self._ledger.attempts(self._plan.study)
        self._sweeps = attempts.sweeps
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
        if self._holder is not None and self._holder.has(trial):
            return True
        return is_alive(trial, self._ledger.folder(self._plan.study, condition, trial.number), self._sweeps)

    def _take(self, condition: Condition, trial: FrozenTrial) -> Claim | None:
        """Return a hold on one trial, or None where another sweep was faster.

        The folder's lock is a second fence, beside the lease: a sweep on another machine whose lease has run out may
        hold it still, where disks are shared.
        """
        folder = self._ledger.folder(self._plan.study, condition, trial.number)
        lock = folder.own() if self._ledger.place else None
        before = holding(trial, self._sweeps)
        if lock is None and self._ledger.place and (before is None or before.here):
            return None
        held = None
        try:
            held = self._handed_out(trial, before, folder, lock)
        finally:
            if held is None and lock is not None:
                lock.release()
        return _claim(self._ledger, self._plan, condition, trial, folder, held) if held else None

    def _handed_out(
        self, trial: FrozenTrial, before: Sweep | None, folder: TrialFolder, lock: Lock | None
    ) -> Held | None:
        if trial.state is TrialState.WAITING and (results := folder.results()):
            # Under the folder's lock no other worker can be about to start it: it waits still, or has been trained.
            if self._ledger.is_waiting(trial):
                raise occupied(folder.path, results)
            return None
        self._holder = holder = self._ledger.holder(self._plan.study)
        lease = holder.take(trial, before)
        return Held(holder=holder, lease=lease, lock=lock) if lease else None


@patient
def _claim(
    ledger: Ledger, plan: Plan, condition: Condition, trial: FrozenTrial, folder: TrialFolder, held: Held
) -> Claim:
    """Return the hold on a trial that was handed out to us."""
    if PHASES[condition.kind] != "search" and held.lease.number == 1:
        return Claim(plan, condition, trial, folder, held)  # all that counts of it was read with the queue
    # Optuna has no public way back to a running trial: its constructor is documented, a frozen trial's id is not.
    return Claim(plan, condition, optuna.Trial(ledger.open(plan.study, condition), trial._trial_id), folder, held)
