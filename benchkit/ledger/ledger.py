"""The ledger: all trials of a workspace in an Optuna storage, and their files beside it.

Every condition is one Optuna study, `STUDY/LABEL@KEY` (LABEL as it is filed, without a sampler); its trials are queued
with their index (repeat or slot) and claimed by workers (`benchkit.ledger.claims`). One more Optuna study, named like
the benchkit study, holds the study itself. `benchkit.ledger.readback` reads all of it back.
"""

from __future__ import annotations

import re
import sqlite3
import time
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from benchkit.codec import decode, encode
from benchkit.errors import LedgerError, StudyError
from benchkit.ledger.attempts import Attempts, effective, next_attempt, state_of
from benchkit.ledger.samplers import chosen_params, make_pruner, stored_params
from benchkit.ledger.tables import NewTrial, add_studies, add_trials, study_attributes, study_ids, trials_of
from benchkit.ledger.trialfolder import TrialFolder
from benchkit.plan import PHASES, Condition, Plan, make_plan, typed_settings
from benchkit.results import Outcome, State, Trial
from benchkit.study import Study
from benchkit.study.search import default_params, grid_points

LONGEST_LABEL = 120
"""Characters of a condition's label in the names of its Optuna study; its key tells it from all others."""


BUSY_SECONDS = 100
"""How long a process waits for the others to be done with a SQLite file."""


class Ledger:
    """A workspace's trials. Several processes, on several machines with a shared storage, may use one at a time."""

    def __init__(self, workspace: Path, storage: str | None = None) -> None:
        """Open the ledger of `workspace`, made when absent; `storage` is an Optuna URL, default a SQLite file.

        Raises `LedgerError` when the workspace cannot be written or the storage cannot be opened.
        """
        self.workspace = workspace
        self.shared = bool(storage) and not str(storage).startswith("sqlite")
        self._handles: dict[str, optuna.Study] = {}
        try:
            workspace.mkdir(parents=True, exist_ok=True)
            with FileLock(workspace / "open.lock"):
                self.storage = _open(storage) if storage else _open_file(workspace / "ledger.db")
        except OSError as error:
            raise LedgerError(
                f"{workspace}: the workspace cannot be written: {error}", hint="name another with --workspace"
            ) from error

    def register(
        self, plan: Plan, data: Mapping[str, Any], command: str, whole: Sequence[Condition] | None = None
    ) -> None:
        """Write down what is about to be trained, so that a report can be made from the ledger alone.

        `whole` are all conditions of the study, where the plan leaves some out and they are known already.
        """
        entry = optuna.create_study(study_name=plan.study.name, storage=self.storage, load_if_exists=True)
        whole = _whole(plan.study) if whole is None else whole
        planned = _planned(plan, whole, entry.user_attrs)
        now = {
            "study": encode(plan.study),
            "conditions": planned,
            "data": dict(data),
            "command": command,
            "updated": time.time(),
        }
        # A search that this sweep leaves out may have been that of the only sampler, and be that of one of several now.
        names, keys = study_ids(self.storage, f"{plan.study.name}/"), set(planned)
        kept = [one for one in whole if one.key in keys and _name(plan.study, one) in names]
        self._make(plan.study, (*plan.conditions, *kept))
        for key, value in now.items():
            entry.set_user_attr(key, value)

    def _make(self, study: Study, conditions: Iterable[Condition]) -> None:
        """Make the Optuna studies of conditions that have none, and say which sampler a search is by now."""
        wanted = {_name(study, condition): condition for condition in conditions}
        there = study_ids(self.storage, f"{study.name}/")
        new = {name: condition for name, condition in wanted.items() if name not in there}
        add_studies(
            self.storage,
            {name: (_directions(study, one), {"condition": encode(one)}) for name, one in new.items()},
        )
        for name, condition in wanted.items():
            if name in there and condition.kind == "search":
                self.open(study, condition)

    def open(self, study: Study, condition: Condition) -> optuna.Study:
        """Return the Optuna study of a condition, made when absent."""
        if condition.key not in self._handles:
            self._handles[condition.key] = self._create(study, condition)
        return self._handles[condition.key]

    def _create(self, study: Study, condition: Condition) -> optuna.Study:
        search = study.search if condition.kind == "search" else None
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if search:
            pruner = make_pruner(search, typed_settings(condition.settings, study.seed).train.epochs)
        handle = optuna.create_study(
            study_name=_name(study, condition),
            storage=self.storage,
            load_if_exists=True,
            directions=_directions(study, condition),
            sampler=optuna.samplers.RandomSampler(),
            pruner=pruner,
        )
        known = handle.user_attrs.get("condition")
        if known is None or known.get("sampler", "") != condition.sampler:
            handle.set_user_attr("condition", encode(condition))
        return handle

    def enqueue(self, plan: Plan, retry: Sequence[State] = ()) -> int:
        """Queue missing trials, and new attempts at those that ended in a `retry` state; return how many."""
        queued: list[NewTrial] = []
        with FileLock(self.workspace / "queue.lock"):
            self._make(plan.study, plan.conditions)
            attempts = self.attempts(plan.study)
            for condition in plan.conditions:
                known, name = attempts.counted(condition), _name(plan.study, condition)
                for index in range(plan.count(condition)):
                    attempt = next_attempt(known.get(index), retry)
                    if attempt is not None:
                        given = _given(plan, condition, index)
                        queued.append(_new_trial(name, index, attempt, given))
            add_trials(self.storage, queued)
        return len(queued)

    def enqueue_again(self, study: Study, condition: Condition, index: int, params: Mapping[str, Any]) -> None:
        """Queue one trial alone, in a search with the settings that were chosen for it elsewhere (`params`)."""
        given = stored_params(study.search, params) if study.search and condition.kind == "search" else {}
        self._make(study, (condition,))
        add_trials(self.storage, [_new_trial(_name(study, condition), index, 0, given)])

    def folder(self, study: Study, condition: Condition, number: int) -> TrialFolder:
        """Return the folder of an Optuna trial of a condition."""
        slug = re.sub(r"[^A-Za-z0-9.=-]+", "-", condition.storage_label).strip("-.")[:60]
        name = re.sub(r"[^\w.=-]+", "-", study.name)
        return TrialFolder(self.workspace / "trials" / name / f"{slug}@{condition.key}" / f"{number:04d}")

    def studies(self) -> tuple[str, ...]:
        """Return the names of the benchkit studies in this ledger, the latest first."""
        names = [name for name in optuna.get_all_study_names(self.storage) if "/" not in name]
        attrs = {name: optuna.load_study(study_name=name, storage=self.storage).user_attrs for name in names}
        found = [name for name in names if "study" in attrs[name] and "updated" in attrs[name]]
        return tuple(sorted(found, key=lambda name: -float(attrs[name]["updated"])))

    def conditions(self, study: Study) -> Iterable[Condition]:
        """Yield every condition of a study's name that the ledger holds, whatever version of the study it is of."""
        for value in study_attributes(self.storage, f"{study.name}/", "condition").values():
            yield decode(Condition, value)

    def attempts(self, study: Study) -> Attempts:
        """Return all attempts at a study's trials as they stand now."""
        found = trials_of(self.storage, f"{study.name}/")
        return Attempts(lambda condition: found.get(_name(study, condition), []))

    def trials(self, plan: Plan) -> tuple[Trial, ...]:
        """Return the trials that count of a plan's conditions, as they stand now."""
        ids = study_ids(self.storage, f"{plan.study.name}/")
        return tuple(
            self.read_trial(plan.study, condition, frozen)
            for condition in plan.conditions
            if (study_id := ids.get(_name(plan.study, condition))) is not None
            for frozen in effective(self.storage.get_all_trials(study_id, deepcopy=False)).values()
        )

    def outcomes(self, plan: Plan) -> Iterator[Outcome]:
        """Yield how the trials that count of a plan ended, those that have."""
        attempts = self.attempts(plan.study)
        for condition in plan.conditions:
            for frozen in attempts.finished(condition):
                if outcome := self.folder(plan.study, condition, frozen.number).read_outcome():
                    yield outcome

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
            params=chosen_params(study.search, frozen.params) if study.search else dict(frozen.params),
            history=folder.read_history(),
            outcome=outcome,
            folder=folder.path,
            started=frozen.datetime_start.timestamp() if frozen.datetime_start else 0.0,
            finished=frozen.datetime_complete.timestamp() if frozen.datetime_complete else 0.0,
        )

    def states(self, plan: Plan) -> Counter[str]:
        """Return how many of a plan's trials are in each state; those not queued yet are `missing`."""
        counted: Counter[str] = Counter()
        attempts = self.attempts(plan.study)
        for condition in plan.conditions:
            count = plan.count(condition)
            wanted = [trial for index, trial in attempts.counted(condition).items() if index < count]
            counted["missing"] += count - len(wanted)
            for frozen in wanted:
                counted[state_of(frozen, self.folder(plan.study, condition, frozen.number))] += 1
        return counted

    def give_up(self, study: Study, condition: Condition, number: int, reason: str) -> None:
        """Record a running trial without a live owner as failed."""
        handle = self.open(study, condition)
        folder = self.folder(study, condition, number)
        lock = folder.own()
        if lock is None:
            return
        frozen = handle.get_trials(deepcopy=False)[number]
        if frozen.state is TrialState.RUNNING:
            folder.write_outcome(Outcome(state="failed", reason=reason))
            trial = optuna.Trial(handle, frozen._trial_id)
            trial.set_user_attr("reason", reason)
            handle.tell(trial, state=TrialState.FAIL)
        lock.release()


def _name(study: Study, condition: Condition) -> str:
    """Return the name of a condition's Optuna study."""
    return f"{study.name}/{condition.storage_label[:LONGEST_LABEL]}@{condition.key}"


def _directions(study: Study, condition: Condition) -> list[Literal["minimize", "maximize"]]:
    search = study.search if condition.kind == "search" else None
    return [goal.direction for goal in search.goals] if search else ["minimize"]


def _new_trial(name: str, index: int, attempt: int, given: Mapping[str, Any]) -> NewTrial:
    attributes = {"index": index, "attempt": attempt, **({"given": dict(given)} if given else {})}
    return NewTrial(study=name, attributes=attributes, given=given)


def _open_file(path: Path) -> optuna.storages.RDBStorage:
    """Return the storage in a SQLite file, whatever characters its path has: no URL is made of it."""
    file = path.resolve()
    return _open(
        f"sqlite:///{path.name}",
        shown=str(path),
        creator=lambda: sqlite3.connect(file, timeout=BUSY_SECONDS, check_same_thread=False),
    )


def _open(url: str, *, shown: str = "", **options: Any) -> optuna.storages.RDBStorage:
    """Return the storage at a URL; its connections are closed as soon as nobody uses it any more."""
    if url.startswith("sqlite") and not options:
        options = {"connect_args": {"timeout": BUSY_SECONDS}}
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
    except Exception as error:  # SQLAlchemy, drivers and Optuna raise many kinds, all for the same reason
        first = str(error).strip().partition("\n")[0]
        raise LedgerError(
            f"{shown or _without_password(url)}: the ledger cannot be opened: {type(error).__name__}: {first}",
            hint="give --storage a URL that Optuna accepts, such as postgresql://USER@HOST/NAME, or leave it out",
        ) from error
    weakref.finalize(storage, storage.engine.dispose)
    return storage


def _without_password(url: str) -> str:
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", url)


def _whole(study: Study) -> tuple[Condition, ...]:
    """Return all conditions of a study, none when some cannot be trained: a sweep may leave those out."""
    try:
        return make_plan(study).conditions
    except StudyError:
        return ()


def _planned(plan: Plan, conditions: Sequence[Condition], before: Mapping[str, Any]) -> list[str]:
    """Return the keys of the study's conditions in report order: those of the plan, and those planned before.

    `conditions` are all of the study. A sweep of some does not make the report forget the others, as long as the study
    still has them.
    """
    now, whole = ([one.key for one in part] for part in (plan.conditions, conditions))
    known = before.get("conditions", [])
    if before.get("study") == encode(plan.study):
        kept = {*known, *now}
    else:
        kept = {key for key in known if key in whole} | set(now)
    return [key for key in dict.fromkeys([*whole, *known, *now]) if key in kept]


def _given(plan: Plan, condition: Condition, index: int) -> dict[str, Any]:
    """Return what a trial is queued with: a grid search's point, or the study's own settings as a search's first."""
    search = plan.search_of(condition)
    if search is None:
        return {}
    if search.sampler == "grid":
        return stored_params(search, grid_points(search)[index])
    return stored_params(search, default_params(search, condition.settings)) if index == 0 else {}
