"""The ledger: all trials of a workspace in an Optuna storage, and their files beside it.

Every condition is one Optuna study, `STUDY/LABEL@KEY`; its trials are queued with their index (repeat or slot) and
claimed by workers (`benchkit.claims`). One more Optuna study, named like the benchkit study, holds the study itself.
"""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from benchkit.codec import decode, encode
from benchkit.errors import LedgerError, nearest
from benchkit.plan import PHASES, Condition, Plan, Unit, confirm_condition, default_params, grid_points, typed_settings
from benchkit.results import Outcome, State, StudyResults, Trial
from benchkit.samplers import make_pruner
from benchkit.study import Study
from benchkit.trialfolder import TrialFolder

HEARTBEAT = 120.0
"""Seconds after which a running trial of another machine, not heard of, counts as stale."""


class Ledger:
    """A workspace's trials. Several processes, on several machines with a shared storage, may use one at a time."""

    def __init__(self, workspace: Path, storage: str | None = None) -> None:
        """Open the ledger of `workspace`, made when absent; `storage` is an Optuna URL, default a SQLite file."""
        self.workspace = workspace
        try:
            workspace.mkdir(parents=True, exist_ok=True)
            url = storage or f"sqlite:///{(workspace / 'ledger.db').resolve()}"
            options = {"connect_args": {"timeout": 100}} if url.startswith("sqlite") else {}
            with FileLock(workspace / "open.lock"):
                self.storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
        except OSError as error:
            raise LedgerError(f"{workspace}: the workspace cannot be written: {error}") from error
        except Exception as error:
            raise LedgerError(
                f"{storage or workspace / 'ledger.db'}: the ledger cannot be opened: {type(error).__name__}: {error}",
                hint="give --storage a URL that Optuna accepts, such as postgresql://USER@HOST/NAME, or leave it out",
            ) from error

    def register(self, plan: Plan, data: Mapping[str, Any], command: str) -> None:
        """Write down what is about to be trained, so that a report can be made from the ledger alone."""
        entry = optuna.create_study(study_name=plan.study.name, storage=self.storage, load_if_exists=True)
        entry.set_user_attr("study", encode(plan.study))
        entry.set_user_attr("conditions", [condition.key for condition in plan.conditions])
        entry.set_user_attr("data", dict(data))
        entry.set_user_attr("command", command)
        entry.set_user_attr("updated", time.time())
        for condition in plan.conditions:
            self.open(plan.study, condition)

    def open(self, study: Study, condition: Condition) -> optuna.Study:
        """Return the Optuna study of a condition, made when absent."""
        search = study.search
        goals = search.goals if search else ()
        name = f"{study.name}/{condition.label}@{condition.key}"
        settings = typed_settings(condition.settings, study.seed)
        directions = [goal.direction for goal in goals] or ["minimize"]
        handle = optuna.create_study(
            study_name=name,
            storage=self.storage,
            load_if_exists=True,
            directions=directions,
            pruner=make_pruner(search, settings.train.epochs) if search and condition.kind == "search" else None,
        )
        if "condition" not in handle.user_attrs:
            handle.set_user_attr("condition", encode(condition))
        return handle

    def enqueue(self, plan: Plan, retry: Sequence[State] = ()) -> int:
        """Queue missing trials, and new attempts at those that ended in a `retry` state; return how many."""
        added = 0
        with FileLock(self.workspace / "queue.lock"):
            for condition in plan.conditions:
                handle = self.open(plan.study, condition)
                known = effective(handle.get_trials(deepcopy=False))
                for index in range(plan.count(condition)):
                    attempt = _next_attempt(known.get(index), retry)
                    if attempt is None:
                        continue
                    fixed = _fixed_params(plan, condition, index)
                    handle.enqueue_trial(fixed, user_attrs={"index": index, "attempt": attempt})
                    added += 1
        return added

    def folder(self, study: Study, condition: Condition, number: int) -> TrialFolder:
        """Return the folder of an Optuna trial of a condition."""
        slug = re.sub(r"[^A-Za-z0-9.=-]+", "-", condition.label).strip("-")[:60]
        return TrialFolder(self.workspace / "trials" / study.name / f"{slug}@{condition.key}" / f"{number:04d}")

    def studies(self) -> tuple[str, ...]:
        """Return the names of the benchkit studies in this ledger, the latest first."""
        entries = [entry for entry in optuna.get_all_study_summaries(self.storage) if "study" in entry.user_attrs]
        ordered = sorted(entries, key=lambda entry: -float(entry.user_attrs.get("updated", 0)))
        return tuple(entry.study_name for entry in ordered)

    def results(self, name: str | None = None) -> StudyResults:
        """Return all that the ledger holds of a study (default: the latest); raise `LedgerError` when it has none."""
        known = self.studies()
        if not known or (name is not None and name not in known):
            what = f"no study {name!r}{nearest(name or '', known)}" if name else "no studies yet"
            raise LedgerError(
                f"{self.workspace}: the ledger holds {what}",
                hint=f"known: {', '.join(known)}" if known else "train one first: benchkit sweep quickstart",
            )
        entry = optuna.load_study(study_name=name or known[0], storage=self.storage)
        attrs = entry.user_attrs
        study = decode(Study, attrs["study"])
        found = {condition.key: (condition, handle) for condition, handle in self._conditions(study)}
        planned = [key for key in attrs["conditions"] if key in found]
        plan = Plan(study=study, conditions=tuple(found[key][0] for key in planned))
        keys = [*planned, *(condition.key for condition in self.confirm(plan) if condition.key in found)]
        trials = [trial for key in keys for trial in self._trials(study, *found[key])]
        return StudyResults(
            study=study,
            conditions=tuple(found[key][0] for key in keys),
            trials=tuple(trials),
            class_names=tuple(attrs["data"].get("class_names", ())),
            data=attrs["data"],
            left_out=tuple(_left_out(found[key][0], found[key][1]) for key in found if key not in keys),
            workspace=str(self.workspace),
            command=attrs["command"],
        )

    def _conditions(self, study: Study) -> Iterable[tuple[Condition, optuna.Study]]:
        for name in optuna.get_all_study_names(self.storage):
            if name.startswith(f"{study.name}/"):
                handle = optuna.load_study(study_name=name, storage=self.storage)
                if "condition" in handle.user_attrs:
                    yield decode(Condition, handle.user_attrs["condition"]), handle

    def _trials(self, study: Study, condition: Condition, handle: optuna.Study) -> Iterable[Trial]:
        for frozen in effective(handle.get_trials(deepcopy=False)).values():
            yield self.read_trial(study, condition, frozen)

    def read_trial(self, study: Study, condition: Condition, frozen: FrozenTrial) -> Trial:
        """Return a trial as it stands now, its history and outcome read from its folder."""
        folder = self.folder(study, condition, frozen.number)
        outcome = folder.read_outcome() if frozen.state.is_finished() else None
        return Trial(
            condition=condition,
            phase=PHASES[condition.kind],
            index=int(frozen.user_attrs["index"]),
            attempt=int(frozen.user_attrs["attempt"]),
            number=frozen.number,
            state=state_of(frozen, folder),
            params=dict(frozen.params),
            history=folder.read_history(),
            outcome=outcome,
            folder=folder.path,
            started=frozen.datetime_start.timestamp() if frozen.datetime_start else 0.0,
            finished=frozen.datetime_complete.timestamp() if frozen.datetime_complete else 0.0,
        )

    def trials(self, plan: Plan) -> tuple[Trial, ...]:
        """Return the trials that count of a plan's conditions, as they stand now."""
        return tuple(
            trial
            for condition in plan.conditions
            for trial in self._trials(plan.study, condition, self.open(plan.study, condition))
        )

    def states(self, plan: Plan) -> Counter[str]:
        """Return how many of a plan's trials are in each state; those not queued yet are `missing`."""
        counted: Counter[str] = Counter()
        for condition in plan.conditions:
            found = effective(self.open(plan.study, condition).get_trials(deepcopy=False))
            wanted = {index: trial for index, trial in found.items() if index < plan.count(condition)}
            counted["missing"] += plan.count(condition) - len(wanted)
            for frozen in wanted.values():
                counted[state_of(frozen, self.folder(plan.study, condition, frozen.number))] += 1
        return counted

    def give_up(self, study: Study, condition: Condition, number: int, reason: str) -> None:
        """Record a running trial without a live owner as failed."""
        handle = self.open(study, condition)
        lock = self.folder(study, condition, number).own()
        if lock is None:
            return
        frozen = handle.get_trials(deepcopy=False)[number]
        if frozen.state is TrialState.RUNNING:
            self.folder(study, condition, number).write_outcome(Outcome(state="failed", reason=reason))
            trial = optuna.Trial(handle, frozen._trial_id)
            trial.set_user_attr("state", "failed")
            trial.set_user_attr("reason", reason)
            handle.tell(number, state=TrialState.FAIL)
        lock.release()

    def confirm(self, plan: Plan) -> tuple[Condition, ...]:
        """Return the conditions that train the best trial of each finished search again."""
        search = plan.study.search
        if search is None or plan.study.confirm < 1:
            return ()
        found = []
        for condition in plan.conditions:
            if condition.kind != "search":
                continue
            handle = self.open(plan.study, condition)
            done = [t for t in handle.get_trials(deepcopy=False) if t.state is TrialState.COMPLETE and t.values]
            if done:
                sign = 1 if search.goals[0].direction == "minimize" else -1
                best = min(done, key=lambda trial: (sign * trial.values[0], trial.number))
                found.append(confirm_condition(plan.study, condition, best.params))
        return tuple(found)


def effective(trials: Iterable[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Return the trial that counts for each index: the latest attempt, and of two queued at once the first.

    Trials without an index (created by Optuna when two workers asked for the last queued one) never count.
    """
    found: dict[int, FrozenTrial] = {}
    for trial in trials:
        if "index" not in trial.user_attrs or trial.user_attrs.get("state") == "superseded":
            continue
        index, attempt = trial.user_attrs["index"], trial.user_attrs["attempt"]
        current = found.get(index)
        if current is None or (attempt, -trial.number) > (current.user_attrs["attempt"], -current.number):
            found[index] = trial
    return dict(sorted(found.items()))


def state_of(frozen: FrozenTrial, folder: TrialFolder) -> State:
    """Return the state of a trial in benchkit's words; a running trial whose owner is gone is stale."""
    if frozen.state is TrialState.COMPLETE:
        return "done"
    if frozen.state is TrialState.PRUNED:
        return "pruned"
    if frozen.state is TrialState.FAIL:
        return "diverged" if frozen.user_attrs.get("state") == "diverged" else "failed"
    if frozen.state is TrialState.WAITING:
        return "waiting"
    return "running" if is_alive(frozen, folder) else "stale"


def is_alive(frozen: FrozenTrial, folder: TrialFolder) -> bool:
    """Return whether the owner of a running trial lives: by its lock here, by its heartbeat on another machine."""
    worker = frozen.user_attrs.get("worker", {})
    if worker.get("host", socket.gethostname()) == socket.gethostname():
        return folder.owned()
    return time.time() - float(worker.get("seen", 0)) < HEARTBEAT


def _next_attempt(frozen: FrozenTrial | None, retry: Sequence[State]) -> int | None:
    if frozen is None:
        return 0
    if not frozen.state.is_finished():
        return None
    state = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned"}.get(frozen.state)
    state = state or frozen.user_attrs.get("state", "failed")
    return int(frozen.user_attrs["attempt"]) + 1 if state in retry else None


def _fixed_params(plan: Plan, condition: Condition, index: int) -> dict[str, Any]:
    """Return what a trial is queued with: a grid search's point, or the study's own settings as a search's first."""
    search = plan.study.search
    if search is None or condition.kind != "search":
        return {}
    if search.sampler == "grid":
        return grid_points(search)[index]
    return default_params(search, condition.settings) if index == 0 else {}


def _left_out(condition: Condition, handle: optuna.Study) -> str:
    finished = sum(trial.state.is_finished() for trial in handle.get_trials(deepcopy=False))
    return f"{condition.label}: {finished} finished trials of another version of this study (key {condition.key})"


def read_results(workspace: Path, study: str | None = None, storage: str | None = None) -> StudyResults:
    """Return what a workspace's ledger holds of a study, or of its latest; raise `LedgerError` when nothing."""
    if storage is None and not (workspace / "ledger.db").exists():
        raise LedgerError(
            f"{workspace}: there is no ledger here",
            hint="name its folder with --workspace, or run benchkit sweep first",
        )
    return Ledger(workspace, storage).results(study)


__all__ = ["Ledger", "Unit", "effective", "is_alive", "read_results", "state_of"]
