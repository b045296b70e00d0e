"""The ledger: all trials of a workspace in an Optuna storage, which are queued, which attempt at each counts.

Every condition is one Optuna study, `STUDY/LABEL@KEY` (LABEL as it is filed, without a sampler); its trials are queued
with their index (repeat or slot) and claimed by workers (`benchkit.ledger.claims`). One more Optuna study, named like
the benchkit study, holds the study itself and what is decided once for all its trials: one record for each decision,
by name, where the first sweep's word stands. A trial's files (`benchkit.ledger.trials`) are beside it;
`benchkit.ledger.readback` reads all of it back.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from benchkit import __version__
from benchkit.errors import LedgerError, StudyError
from benchkit.ledger.leases import LEASE, Holder, Sweep, sweeps_of
from benchkit.ledger.samplers import make_pruner
from benchkit.ledger.tables import (
    NewTrial,
    add_studies,
    add_trials,
    alone,
    attributes_of,
    chosen_params,
    is_on_server,
    open_file,
    open_storage,
    patient,
    stored_params,
    study_attributes,
    study_ids,
    trials_of,
)
from benchkit.ledger.trials import TrialFolder, numbers_of, occupied, state_of
from benchkit.locks import disk_of, held, place_of
from benchkit.plan import PHASES, Condition, Plan, default_params, grid_points, make_plan, search_of, typed_settings
from benchkit.results import Decision, Outcome, State, Trial
from benchkit.storage import decode, encode, no_folder, write_atomically
from benchkit.study import Study

LONGEST_LABEL = 120
"""Characters of a condition's label in the names of its Optuna study; its key tells it from all others."""


STUDY_FILE, CONDITION_FILE = "study.json", "condition.json"
"""The files beside trials that tell, together with each trial's own, what the ledger holds."""


class Ledger:
    """A workspace's trials. Several processes, on several machines with a shared storage, may use one at a time."""

    def __init__(
        self, workspace: Path, storage: str | None = None, *, lease: float = LEASE, patience: float = 0.0
    ) -> None:
        """Open the ledger of `workspace`, made when absent; `storage` is an Optuna URL, default a SQLite file.

        Trials that are taken from it are held for `lease` seconds after the last sign of life; a storage that does not
        answer is asked again for `patience` seconds. Raises `LedgerError` when the workspace cannot be written, its
        disk has no locks for a SQLite file, or the storage cannot be opened.
        """
        self.workspace = workspace
        self.on_server = is_on_server(storage)
        self.lease = lease
        self.patience = patience
        self._holders: dict[str, Holder] = {}
        self._handles: dict[str, optuna.Study] = {}
        self._folders: dict[str, str] = {}
        self.place, self.storage = self._opened(storage, patience)

    def _opened(self, storage: str | None, patience: float) -> tuple[str, RDBStorage]:
        """Return the place whose locks we see, "" for none, and the storage."""
        workspace = self.workspace
        try:
            workspace.mkdir(parents=True, exist_ok=True)
            place = place_of(workspace, workspace / "place.lock", copies=bool(storage))
            if not place and not self.on_server:
                raise LedgerError(
                    f"{workspace}: locks on its disk ({disk_of(workspace)}) keep nobody out, and a ledger in SQLite "
                    f"needs them",
                    hint="name a --workspace on another disk, or a ledger by --storage postgresql://USER@HOST/NAME",
                )
            with held(workspace / "open.lock"):
                return place, open_storage(storage, patience) if storage else open_file(workspace / "ledger.db")
        except OSError as error:
            there = no_folder(workspace)
            why = f"it is {there}" if there else str(error)
            raise LedgerError(
                f"{workspace}: the workspace cannot be written: {why}", hint="name another with --workspace"
            ) from error

    def alone(self) -> AbstractContextManager[None]:
        """Let one process at a time change what a study is and what is queued."""
        return alone(self.storage, self.workspace / "queue.lock")

    @patient
    def register(
        self, plan: Plan, data: Mapping[str, Any], command: str, whole: Sequence[Condition] | None = None
    ) -> None:
        """Write down what is about to be trained, so that a report can be made from the ledger alone.

        `whole` are all conditions of the study, where the plan leaves some out and they are known already.
        """
        study = plan.study
        whole = whole_of(study) if whole is None else whole
        with self.alone():
            keys = planned(plan, whole, attributes_of(self.storage, study.name))
            # A search that this sweep leaves out may have been that of the only sampler, and be one of several's now.
            names, known = study_ids(self.storage, f"{study.name}/"), set(keys)
            kept = [one for one in whole if one.key in known and optuna_name(study, one) in names]
            self._make(study, (*plan.conditions, *kept))
            told = {"conditions": keys, "data": dict(data), "command": command, "updated": time.time()}
            self.register_as(study, {"study": encode(study), **told})

    @patient
    def register_as(self, study: Study, entry: Mapping[str, Any]) -> None:
        """Write a study down, as another ledger may hold it, and where its trials' files are here."""
        own = optuna.create_study(study_name=study.name, storage=self.storage, load_if_exists=True)
        now = {**entry, "folder": self._study_folder(study).name}
        for key, value in now.items():
            own.set_user_attr(key, value)
        write_atomically(self._study_folder(study) / STUDY_FILE, json.dumps(now).encode())

    def _make(self, study: Study, conditions: Iterable[Condition]) -> None:
        """Make the Optuna studies of conditions that have none, and say which sampler a search is by now."""
        wanted = {optuna_name(study, condition): condition for condition in conditions}
        there = study_ids(self.storage, f"{study.name}/")
        new = {name: condition for name, condition in wanted.items() if name not in there}
        add_studies(
            self.storage,
            {name: (_directions(study, one), {"condition": encode(one)}) for name, one in new.items()},
        )
        for name, condition in wanted.items():
            if name in there and condition.kind == "search":
                known = attributes_of(self.storage, name).get("condition")
                if known is None or known.get("sampler", "") != condition.sampler:
                    self.open(study, condition)

    @patient
    def open(self, study: Study, condition: Condition) -> optuna.Study:
        """Return the Optuna study of a condition, made when absent."""
        name = optuna_name(study, condition)
        if name not in self._handles:
            self._handles[name] = self._create(study, condition)
        return self._handles[name]

    def _create(self, study: Study, condition: Condition) -> optuna.Study:
        search = search_of(study, condition)
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if search:
            pruner = make_pruner(search, typed_settings(condition.settings, study.seed).train.epochs)
        handle = optuna.create_study(
            study_name=optuna_name(study, condition),
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

    @patient
    def enqueue(self, plan: Plan, retry: Sequence[State] = ()) -> int:
        """Queue missing trials, and new attempts at those that ended in a `retry` state; return how many."""
        queued: list[NewTrial] = []
        with self.alone():
            self._make(plan.study, plan.conditions)
            attempts = self.attempts(plan.study)
            for condition in plan.conditions:
                known, name = attempts.counted(condition), optuna_name(plan.study, condition)
                for index in range(plan.count(condition)):
                    before = known.get(index)
                    if before is None:
                        queued.append(new_trial(name, index, 0, given_of(plan, condition, index)))
                    elif again := self._again(plan, condition, before, retry):
                        queued.append(again)
            self._refuse_occupied(plan, attempts, Counter(trial.study for trial in queued))
            add_trials(self.storage, queued)
        return len(queued)

    def _refuse_occupied(self, plan: Plan, attempts: Attempts, queued: Mapping[str, int]) -> None:
        """Raise `LedgerError` where the folder of a trial that is to be queued holds the results of another."""
        try:
            there = set(os.listdir(self._study_folder(plan.study)))
        except FileNotFoundError:
            return
        for condition in plan.conditions:
            first, count = len(attempts.of(condition)), queued.get(optuna_name(plan.study, condition), 0)
            if self.folder(plan.study, condition, 0).path.parent.name in there:
                for number in range(first, first + count):
                    folder = self.folder(plan.study, condition, number)
                    if results := folder.results():
                        raise occupied(folder.path, results)

    def _again(self, plan: Plan, condition: Condition, before: FrozenTrial, retry: Sequence[State]) -> NewTrial | None:
        """Return a new attempt at a trial that ended in a `retry` state, its files read to the last byte; else None.

        A done one, whose numbers were lost, is queued with its settings again.
        """
        if not retry or not before.state.is_finished():
            return None
        state, _, _ = numbers_of(before, self.folder(plan.study, condition, before.number), {})
        if state not in retry:
            return None
        index = int(before.user_attrs["index"])
        given = given_of(plan, condition, index)
        if before.state is TrialState.COMPLETE:
            given = dict(self.storage.get_trial(before._trial_id).params)
        return new_trial(optuna_name(plan.study, condition), index, int(before.user_attrs["attempt"]) + 1, given)

    @patient
    def queue_attempt(
        self, study: Study, condition: Condition, index: int, attempt: int, params: Mapping[str, Any]
    ) -> FrozenTrial:
        """Queue one attempt at a trial and return it; in a search with the `params` that were chosen elsewhere."""
        search = search_of(study, condition)
        given = stored_params(search, params) if search else {}
        self._make(study, (condition,))
        add_trials(self.storage, [new_trial(optuna_name(study, condition), index, attempt, given)])
        return self.attempts_at(study, condition)[-1]

    @patient
    def is_waiting(self, trial: FrozenTrial) -> bool:
        """Return whether nobody has taken a trial yet."""
        return bool(self.storage.get_trial(trial._trial_id).state is TrialState.WAITING)

    def attempts_at(self, study: Study, condition: Condition) -> list[FrozenTrial]:
        """Return the attempts at one condition's trials, as `attempts` reads those at all of them."""
        name = optuna_name(study, condition)
        return trials_of(self.storage, name).get(name, [])

    def folder(self, study: Study, condition: Condition, number: int) -> TrialFolder:
        """Return the folder of an Optuna trial of a condition."""
        slug = re.sub(r"[^A-Za-z0-9.=-]+", "-", condition.storage_label).strip("-.")[:60]
        return TrialFolder(self._study_folder(study) / f"{slug}@{condition.key}" / f"{number:04d}")

    def _study_folder(self, study: Study) -> Path:
        """Return the folder of a study's trials: its name, or with a digest where the name itself can be no folder.

        A study that an earlier version began keeps the folder that it has: its name made readable, nothing more.
        """
        if study.name not in self._folders:
            readable = re.sub(r"[^\w.=-]+", "-", study.name)
            self._folders[study.name] = readable
            if readable != study.name:
                own = f"{readable}~{hashlib.sha256(study.name.encode()).hexdigest()[:12]}"
                known = attributes_of(self.storage, study.name)
                self._folders[study.name] = known.get("folder") or (readable if "study" in known else own)
        return self.workspace / "trials" / self._folders[study.name]

    @patient
    def has(self, study: Study) -> bool:
        """Return whether anything of a study's name is here: what is decided for it, or conditions."""
        return bool(attributes_of(self.storage, study.name) or study_ids(self.storage, f"{study.name}/"))

    @patient
    def studies(self) -> tuple[str, ...]:
        """Return the names of the benchkit studies in this ledger, the latest first."""
        known, updated = (study_attributes(self.storage, "", key) for key in ("study", "updated"))
        return tuple(sorted((name for name in known if name in updated), key=lambda name: -float(updated[name])))

    @patient
    def conditions(self, study: Study) -> list[Condition]:
        """Return every condition of a study's name that the ledger holds, whatever version of the study it is of."""
        found = study_attributes(self.storage, f"{study.name}/", "condition")
        return [decode(Condition, value, name, error=LedgerError) for name, value in found.items()]

    @patient
    def attempts(self, study: Study, *, scored: bool = False) -> Attempts:
        """Return all attempts at a study's trials as they stand now; if asked, `scored`: with values and settings."""
        found = trials_of(self.storage, f"{study.name}/", scored=scored)
        sweeps = self.sweeps(study, [trial for trials in found.values() for trial in trials])
        return Attempts(lambda condition: found.get(optuna_name(study, condition), []), sweeps)

    @patient
    def sweeps(self, study: Study, trials: Sequence[FrozenTrial]) -> Mapping[str, Sweep]:
        """Return the records of a study's sweeps, by their ids, where any of some trials runs; else none.

        After a database was away, each sweep has some time to renew its record before another takes it for gone.
        """
        if not any(trial.state is TrialState.RUNNING for trial in trials):
            return {}
        found, ours = sweeps_of(self.storage, study.name, self.place), self._holders.get(study.name)
        if ours is None or ours.judges:
            return found
        return {key: replace(sweep, lives=True) for key, sweep in found.items()}

    @patient
    def shown(self, study: str, prefix: str) -> list[Any]:
        """Return what the sweeps of a study that are under way show under this name (`Holder.show`)."""
        lives = [key for key, sweep in sweeps_of(self.storage, study, self.place).items() if sweep.lives]
        found = attributes_of(self.storage, study)
        return [found[prefix + key] for key in lives if prefix + key in found]

    @patient
    def holder(self, study: Study) -> Holder:
        """Return this process as holder of a study's trials; the study must be registered."""
        if study.name not in self._holders:
            self._holders[study.name] = Holder(self.storage, study.name, self.place, self.lease, self.patience)
        return self._holders[study.name]

    def trials(self, plan: Plan) -> tuple[Trial, ...]:
        """Return the trials that count of a plan's conditions, as they stand now."""
        return self.trials_and_earlier(plan)[0]

    @patient
    def trials_and_earlier(
        self, plan: Plan, attempts: Attempts | None = None
    ) -> tuple[tuple[Trial, ...], tuple[Trial, ...]]:
        """Return the trials that count, and the finished attempts that do not; `attempts` (scored) as read before."""
        attempts = attempts or self.attempts(plan.study, scored=True)
        counted, earlier = list[Trial](), list[Trial]()
        for condition in plan.conditions:
            counting = attempts.counted(condition)
            numbers = {trial.number for trial in counting.values()}
            before = [t for t in attempts.of(condition) if "index" in t.user_attrs and t.number not in numbers]
            read = partial(self.read_trial, plan.study, condition, sweeps=attempts.sweeps)
            counted += map(read, counting.values())
            earlier += [read(trial) for trial in before if trial.state.is_finished()]
        return tuple(counted), tuple(earlier)

    def outcomes(self, plan: Plan, attempts: Attempts | None = None) -> Iterator[Outcome]:
        """Yield how the trials that count of a plan ended, those that have and whose outcome can be read.

        `attempts` are those of its study where they were read before.
        """
        attempts = attempts or self.attempts(plan.study)
        for condition in plan.conditions:
            for frozen in attempts.finished(condition):
                try:
                    outcome = self.folder(plan.study, condition, frozen.number).read_outcome()
                except LedgerError:
                    continue  # its trial has the state "changed files", with this as its reason
                if outcome:
                    yield outcome

    def read_trial(self, study: Study, condition: Condition, frozen: FrozenTrial, sweeps: Mapping[str, Sweep]) -> Trial:
        """Return a trial as it stands now, its history and outcome read from its folder.

        A finished trial whose files were lost or changed has that state and the reason, and no numbers.
        """
        folder = self.folder(study, condition, frozen.number)
        state, history, outcome = numbers_of(frozen, folder, sweeps)
        return Trial(
            condition=condition,
            phase=PHASES[condition.kind],
            index=int(frozen.user_attrs["index"]),
            attempt=int(frozen.user_attrs["attempt"]),
            number=frozen.number,
            state=state,
            params=chosen_params(study.search, frozen.params) if study.search else dict(frozen.params),
            history=history,
            outcome=outcome,
            folder=folder.path,
            started=frozen.datetime_start.timestamp() if frozen.datetime_start else 0.0,
            finished=frozen.datetime_complete.timestamp() if frozen.datetime_complete else 0.0,
        )

    @patient
    def states(self, plan: Plan, *, files: bool = True) -> Counter[str]:
        """Return how many of a plan's trials are in each state; those not queued yet are `missing`.

        Without `files` nobody looks whether the files of finished trials are still there.
        """
        counted: Counter[str] = Counter()
        attempts = self.attempts(plan.study)
        for condition in plan.conditions:
            count = plan.count(condition)
            wanted = [trial for index, trial in attempts.counted(condition).items() if index < count]
            counted["missing"] += count - len(wanted)
            for frozen in wanted:
                folder = self.folder(plan.study, condition, frozen.number)
                counted[state_of(frozen, folder, attempts.sweeps, files=files)] += 1
        return counted

    def missing(self, plan: Plan) -> int:
        """Return how many trials of a plan have not ended."""
        attempts = self.attempts(plan.study)
        return sum(plan.count(one) - attempts.ended(one, plan.count(one)) for one in plan.conditions)

    def unfinished(self, plan: Plan) -> list[Condition]:
        """Return the conditions of a plan that have trials to be trained."""
        attempts = self.attempts(plan.study)
        return [one for one in plan.conditions if attempts.ended(one, plan.count(one)) < plan.count(one)]

    def is_unfinished(self, plan: Plan) -> bool:
        """Return whether any trial that was queued has not ended."""
        attempts = self.attempts(plan.study)
        return any(
            index < plan.count(condition) and not trial.state.is_finished()
            for condition in plan.conditions
            for index, trial in attempts.counted(condition).items()
        )


def effective(trials: Iterable[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Return the trial that counts for each index, by index: the latest attempt, and of two queued at once the first.

    Trials without an index, which others put into the storage, never count.
    """
    counted: dict[int, FrozenTrial] = {}
    for trial in trials:
        if "index" not in trial.user_attrs:
            continue
        index, attempt = trial.user_attrs["index"], trial.user_attrs["attempt"]
        current = counted.get(index)
        if current is None or (attempt, -trial.number) > (current.user_attrs["attempt"], -current.number):
            counted[index] = trial
    return dict(sorted(counted.items()))


class Attempts:
    """All attempts at a study's trials, read at one time."""

    def __init__(self, read: Callable[[Condition], Sequence[FrozenTrial]], sweeps: Mapping[str, Sweep]) -> None:
        """Take the attempts at a condition's trials, in the order in which they were queued, from `read`."""
        self.of = read
        self.sweeps = sweeps

    def counted(self, condition: Condition) -> dict[int, FrozenTrial]:
        """Return the trial that counts for each index of a condition, by index."""
        return effective(self.of(condition))

    def finished(self, condition: Condition) -> list[FrozenTrial]:
        """Return the trials of a condition that count and have ended, in the order of their indices."""
        return [trial for trial in self.counted(condition).values() if trial.state.is_finished()]

    def ended(self, condition: Condition, count: int) -> int:
        """Return how many of the first `count` trials of a condition have ended."""
        return sum(int(trial.user_attrs["index"]) < count for trial in self.finished(condition))


def optuna_name(study: Study, condition: Condition) -> str:
    """Return the name of a condition's Optuna study."""
    return f"{study.name}/{condition.storage_label[:LONGEST_LABEL]}@{condition.key}"


def _directions(study: Study, condition: Condition) -> list[Literal["minimize", "maximize"]]:
    search = search_of(study, condition)
    return [goal.direction for goal in search.goals] if search else ["minimize"]


def whole_of(study: Study) -> tuple[Condition, ...]:
    """Return all conditions of a study, none when some cannot be trained: a sweep may leave those out."""
    try:
        return make_plan(study).conditions
    except StudyError:
        return ()


def planned(plan: Plan, conditions: Sequence[Condition], before: Mapping[str, Any]) -> list[str]:
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


def new_trial(name: str, index: int, attempt: int, given: Mapping[str, Any]) -> NewTrial:
    """Return an attempt at a trial of the Optuna study of this name."""
    attributes = {"index": index, "attempt": attempt, **({"given": dict(given)} if given else {})}
    return NewTrial(study=name, attributes=attributes, given=given)


def given_of(plan: Plan, condition: Condition, index: int) -> dict[str, Any]:
    """Return what a trial is queued with: a grid search's point, or the study's own settings as a search's first."""
    search = search_of(plan.study, condition)
    if search is None:
        return {}
    if search.sampler == "grid":
        return stored_params(search, grid_points(search)[index])
    return stored_params(search, default_params(search, condition.settings)) if index == 0 else {}


DECISIONS_FILE = "decisions.json"
"""The file in the folder of a study's trials from which a lost ledger has its decisions again."""

DECIDED = "decided "
"""What the names of the records in the ledger begin with."""


@patient
def decisions_of(ledger: Ledger, study: str) -> dict[str, Decision]:
    """Return what is decided of a study, by name; nothing of a study that is not registered."""
    attributes = attributes_of(ledger.storage, study)
    records = ((key, attributes[key]) for key in sorted(attributes) if key.startswith(DECIDED))
    return {key.removeprefix(DECIDED): decode(Decision, value, key, error=LedgerError) for key, value in records}


@patient
def decide(ledger: Ledger, study: str, name: str, value: str, why: str) -> Decision:
    """Return what is decided: the ledger's record where it has one, else this value, recorded from now on.

    The study must be registered.
    """
    with ledger.alone():
        known = decisions_of(ledger, study).get(name)
        if known is None:
            known = Decision(name=name, value=value, why=why, version=__version__)
            entry = optuna.load_study(study_name=study, storage=ledger.storage)
            entry.set_user_attr(f"{DECIDED}{name}", encode(known))
            decided = {key: value for key, value in entry.user_attrs.items() if key.startswith(DECIDED)}
            folder = ledger.workspace / "trials" / entry.user_attrs["folder"]
            write_atomically(folder / DECISIONS_FILE, json.dumps(decided).encode())
    return known


def refuse_otherwise(ledger: Ledger, study: str, name: str, asked: str, option: str) -> None:
    """Raise `LedgerError` when a study's record says otherwise than `option` asks for, both named."""
    known = decisions_of(ledger, study).get(name)
    if known is not None and known.value != asked:
        raise LedgerError(
            f"{option}: {study} has been decided to have the {name} {known.value!r} ({known.why}; benchkit "
            f"{known.version}), asked for is {asked!r}",
            hint="leave the option out, or choose a new --workspace: it holds for all trials of a study",
        )
