"""Optuna's storage: opened, and its tables read and written for all conditions of a study at once.

Each condition is an Optuna study; through Optuna's own interface each takes some ten transactions to be queued and five
queries to be read. What is written here is what `create_study` and `enqueue_trial` write.
"""

from __future__ import annotations

import datetime
import json
import re
import socket
import sqlite3
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb import models  # the tables have no public home
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, insert, select

from benchkit.errors import LedgerError
from benchkit.ledger.files import TrialFile, TrialFolder, lost_or_changed, notes_of, trial_files
from benchkit.plan import Condition
from benchkit.results import EpochRecord, Outcome, State

HEARTBEAT = 120.0
"""Seconds after which a running trial of another machine, not heard of, counts as stale."""

STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.WAITING: "waiting",
}


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

    def __init__(self, read: Callable[[Condition], Sequence[FrozenTrial]]) -> None:
        """Take the attempts at a condition's trials, in the order in which they were queued, from `read`."""
        self.of = read

    def counted(self, condition: Condition) -> dict[int, FrozenTrial]:
        """Return the trial that counts for each index of a condition, by index."""
        return effective(self.of(condition))

    def finished(self, condition: Condition) -> list[FrozenTrial]:
        """Return the trials of a condition that count and have ended, in the order of their indices."""
        return [trial for trial in self.counted(condition).values() if trial.state.is_finished()]

    def ended(self, condition: Condition, count: int) -> int:
        """Return how many of the first `count` trials of a condition have ended."""
        return sum(int(trial.user_attrs["index"]) < count for trial in self.finished(condition))


def finished_state(trial: FrozenTrial) -> State:
    """Return how a finished trial ended; Optuna has no word of its own for diverged."""
    return STATES.get(trial.state) or ("diverged" if trial.user_attrs.get("state") == "diverged" else "failed")


def state_of(trial: FrozenTrial, folder: TrialFolder, *, files: bool = True) -> State:
    """Return the state of a trial in benchkit's words; a running trial whose owner is gone is stale.

    With `files`, a finished trial that lacks files, or has some of other sizes, is told so; contents are not read.
    """
    if trial.state is TrialState.RUNNING:
        return "running" if is_alive(trial, folder) else "stale"
    if files and trial.state.is_finished():
        broken = lost_or_changed(trial_files(folder.path, trial.user_attrs.get("files"), contents=False))
        return broken[0] if broken else finished_state(trial)
    return finished_state(trial)


def numbers_of(trial: FrozenTrial, folder: TrialFolder) -> tuple[State, tuple[EpochRecord, ...], Outcome | None]:
    """Return a trial's state, its history and its outcome, none of the last two where its files do not stand any more.

    Every file of a finished trial is held against its digest; the reason is then that of the outcome.
    """
    kept = trial.user_attrs.get("files")
    files = trial_files(folder.path, kept) if trial.state.is_finished() else ()
    state, broken = state_of(trial, folder, files=False), lost_or_changed(files)
    try:
        if broken is None and not trial.state.is_finished():
            return state, folder.read_history(), None
        if broken is None:
            return state, folder.read_history(), _noted(folder, files, kept)
    except LedgerError as error:
        broken = ("changed files" if trial.state.is_finished() else state), error.what
    return broken[0], (), Outcome(state=broken[0], reason=broken[1])


def _noted(folder: TrialFolder, files: Sequence[TrialFile], kept: object) -> Outcome | None:
    """Return the outcome on file, with a note of what is gone and of what only a newer version understands."""
    outcome = folder.read_outcome()
    if kept is None:
        folder.check_predictions()
    notes = notes_of(files)
    if newer := folder.newer_keys():
        notes = (*notes, f"written by a newer version: not read are {', '.join(newer)}")
    return replace(outcome, notes=(*outcome.notes, *notes)) if outcome and notes else outcome


def is_alive(trial: FrozenTrial, folder: TrialFolder) -> bool:
    """Return whether the owner of a running trial lives: by its lock here, by its heartbeat on another machine."""
    if "worker" not in trial.user_attrs and not folder.path.exists():  # claimed just now on another machine
        started = trial.datetime_start or datetime.datetime.fromtimestamp(0)
        return time.time() - started.timestamp() < HEARTBEAT
    return lives_elsewhere(trial) or folder.owned()


def lives_elsewhere(trial: FrozenTrial) -> bool:
    """Return whether a worker of another machine that has the trial gave a sign of life lately."""
    worker = trial.user_attrs.get("worker", {"host": socket.gethostname()})
    return worker["host"] != socket.gethostname() and time.time() - float(worker["seen"]) < HEARTBEAT


STUDIES = models.StudyModel.__table__
DIRECTIONS = models.StudyDirectionModel.__table__
STUDY_ATTRIBUTES = models.StudyUserAttributeModel.__table__
TRIALS = models.TrialModel.__table__
TRIAL_ATTRIBUTES = models.TrialUserAttributeModel.__table__
SYSTEM_ATTRIBUTES = models.TrialSystemAttributeModel.__table__

READ = ("index", "attempt", "state", "worker", "files")
"""The attributes of trials that are read for all at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTrial:
    """A trial to queue in the Optuna study of this name, with what it is to be given of a search's settings."""

    study: str
    attributes: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict)


DAMAGE = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, ArithmeticError, AttributeError,
          LookupError, TypeError, ValueError)  # fmt: skip
"""What reading a storage raises in which bytes were changed: its own errors, or those of whoever takes in nonsense."""


REBUILD = "if ledger.db is damaged, move it away: benchkit ledger rebuild makes it anew from the folders of trials"

BUSY_SECONDS = 100
"""How long a process waits for the others to be done with a SQLite file."""


def open_file(path: Path) -> optuna.storages.RDBStorage:
    """Return the storage in a SQLite file, whatever characters its path has: no URL is made of it."""
    file = path.resolve()
    return open_storage(
        f"sqlite:///{path.name}",
        shown=str(path),
        creator=lambda: sqlite3.connect(file, timeout=BUSY_SECONDS, check_same_thread=False),
    )


def open_storage(url: str, *, shown: str = "", **options: Any) -> optuna.storages.RDBStorage:
    """Return the storage at a URL; its connections are closed as soon as nobody uses it any more."""
    if url.startswith("sqlite") and not options:
        options = {"connect_args": {"timeout": BUSY_SECONDS}}
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
    except Exception as error:  # SQLAlchemy, drivers and Optuna raise many kinds, all for the same reason
        first = str(error).strip().partition("\n")[0]
        raise LedgerError(
            f"{shown or _without_password(url)}: the ledger cannot be opened: {type(error).__name__}: {first}",
            hint=REBUILD
            if shown
            else "give --storage a URL that Optuna accepts, such as postgresql://USER@HOST/NAME, or leave it out",
        ) from error
    weakref.finalize(storage, storage.engine.dispose)
    return storage


def _without_password(url: str) -> str:
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", url)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn what a damaged or unreachable storage raises into one `LedgerError`; also a decorator."""
    try:
        yield
    except DAMAGE as error:
        cause = error.__cause__ or error
        first = str(cause).strip().partition("\n")[0]
        raise LedgerError(
            f"the ledger cannot be read or written: {type(cause).__name__}: {first}",
            hint=REBUILD,
        ) from error


def study_ids(storage: RDBStorage, prefix: str) -> dict[str, int]:
    """Return the ids of the Optuna studies whose name begins with `prefix`, by name."""
    with storage.engine.connect() as connection:
        return _ids(connection, prefix)


def study_attributes(storage: RDBStorage, prefix: str, key: str) -> dict[str, Any]:
    """Return a user attribute of the Optuna studies whose name begins with `prefix`, by name, in order of creation."""
    query = (
        select(STUDIES.c.study_name, STUDY_ATTRIBUTES.c.value_json)
        .join(STUDY_ATTRIBUTES, STUDY_ATTRIBUTES.c.study_id == STUDIES.c.study_id)
        .where(_named(prefix), STUDY_ATTRIBUTES.c.key == key)
        .order_by(STUDIES.c.study_id)
    )
    with storage.engine.connect() as connection:
        return {name: json.loads(text) for name, text in connection.execute(query) if name.startswith(prefix)}


def trials_of(storage: RDBStorage, prefix: str) -> dict[str, list[FrozenTrial]]:
    """Return the trials of the Optuna studies whose name begins with `prefix`, by the study's name, in their order.

    They hold number, state, start and the attributes of `READ`; no values, parameters or reported epochs.
    """
    trials = (
        select(STUDIES.c.study_name, TRIALS.c.trial_id, TRIALS.c.number, TRIALS.c.state, TRIALS.c.datetime_start)
        .join(TRIALS, TRIALS.c.study_id == STUDIES.c.study_id)
        .where(_named(prefix))
        .order_by(TRIALS.c.trial_id)
    )
    attributes = (
        select(TRIAL_ATTRIBUTES.c.trial_id, TRIAL_ATTRIBUTES.c.key, TRIAL_ATTRIBUTES.c.value_json)
        .join(TRIALS, TRIALS.c.trial_id == TRIAL_ATTRIBUTES.c.trial_id)
        .join(STUDIES, TRIALS.c.study_id == STUDIES.c.study_id)
        .where(_named(prefix), TRIAL_ATTRIBUTES.c.key.in_(READ))
    )
    told: dict[int, dict[str, Any]] = defaultdict(dict)
    found: dict[str, list[FrozenTrial]] = defaultdict(list)
    with storage.engine.connect() as connection:
        rows = connection.execute(trials).all()
        for trial_id, key, text in connection.execute(attributes):
            told[trial_id][key] = json.loads(text)
    for name, trial_id, number, state, started in rows:
        if name.startswith(prefix):
            found[name].append(_frozen(trial_id, number, state, started, told[trial_id]))
    return dict(found)


def _frozen(
    trial_id: int, number: int, state: TrialState, started: datetime.datetime | None, attributes: dict[str, Any]
) -> FrozenTrial:
    local = started and started.replace(tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)  # as Optuna tells it
    return FrozenTrial(
        number=number,
        trial_id=trial_id,
        state=state,
        value=None,
        datetime_start=local,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs=attributes,
        system_attrs={},
        intermediate_values={},
    )


def add_studies(storage: RDBStorage, studies: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]]) -> None:
    """Make Optuna studies of these names, directions and user attributes, those that are there already left out."""
    if not studies:
        return
    prefix = _prefix(studies)
    with storage.engine.begin() as connection:
        there = _ids(connection, prefix)
        new = [name for name in studies if name not in there]
        if not new:
            return
        connection.execute(insert(STUDIES), [{"study_name": name} for name in new])
        ids = _ids(connection, prefix)
        directions = [
            {"study_id": ids[name], "objective": objective, "direction": StudyDirection[direction.upper()]}
            for name in new
            for objective, direction in enumerate(studies[name][0])
        ]
        connection.execute(insert(DIRECTIONS), directions)
        attributes = [
            {"study_id": ids[name], "key": key, "value_json": json.dumps(value)}
            for name in new
            for key, value in studies[name][1].items()
        ]
        if attributes:
            connection.execute(insert(STUDY_ATTRIBUTES), attributes)


def add_trials(storage: RDBStorage, trials: Sequence[NewTrial]) -> None:
    """Queue trials, in their order, behind those that their Optuna studies have."""
    if not trials:
        return
    prefix = _prefix([trial.study for trial in trials])
    with storage.engine.begin() as connection:
        numbered = _numbered(connection, _ids(connection, prefix, lock=True), prefix, trials)
        rows = [{"study_id": study_id, "number": number, "state": TrialState.WAITING} for study_id, number in numbered]
        connection.execute(insert(TRIALS), rows)
        query = (
            select(TRIALS.c.study_id, TRIALS.c.number, TRIALS.c.trial_id)
            .join(STUDIES, TRIALS.c.study_id == STUDIES.c.study_id)
            .where(_named(prefix))
        )
        trial_ids = {(study_id, number): trial_id for study_id, number, trial_id in connection.execute(query)}
        made = [(trial_ids[place], trial) for place, trial in zip(numbered, trials, strict=True)]
        attributes = [_attribute(at, key, value) for at, trial in made for key, value in trial.attributes.items()]
        connection.execute(insert(TRIAL_ATTRIBUTES), attributes)
        fixed = [_attribute(at, "fixed_params", dict(trial.given)) for at, trial in made]
        connection.execute(insert(SYSTEM_ATTRIBUTES), fixed)


def set_times(
    storage: RDBStorage, trial_id: int, started: datetime.datetime | None, finished: datetime.datetime | None
) -> None:
    """Set when a trial began and ended, in this machine's time as Optuna tells it."""
    values = {"datetime_start": started, "datetime_complete": finished}
    stored = {name: value and value.astimezone(datetime.UTC).replace(tzinfo=None) for name, value in values.items()}
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.update(TRIALS).where(TRIALS.c.trial_id == trial_id).values(**stored))


def _numbered(
    connection: Connection, ids: Mapping[str, int], prefix: str, trials: Sequence[NewTrial]
) -> list[tuple[int, int]]:
    """Return the Optuna study and the number that each trial gets in it."""
    query = (
        select(TRIALS.c.study_id, sqlalchemy.func.count())
        .join(STUDIES, TRIALS.c.study_id == STUDIES.c.study_id)
        .where(_named(prefix))
        .group_by(TRIALS.c.study_id)
    )
    following = defaultdict(int, {study_id: count for study_id, count in connection.execute(query)})
    numbered = []
    for trial in trials:
        study_id = ids[trial.study]
        numbered.append((study_id, following[study_id]))
        following[study_id] += 1
    return numbered


def _attribute(trial_id: int, key: str, value: Any) -> dict[str, Any]:
    return {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}


def _ids(connection: Connection, prefix: str, *, lock: bool = False) -> dict[str, int]:
    query = select(STUDIES.c.study_name, STUDIES.c.study_id).where(_named(prefix))
    rows = connection.execute(query.with_for_update() if lock else query)
    return {name: study_id for name, study_id in rows if name.startswith(prefix)}


def _named(prefix: str) -> sqlalchemy.ColumnElement[bool]:
    """Return the condition on names; SQLite looks away from capitals, so that readers look at the names again."""
    named: sqlalchemy.ColumnElement[bool] = STUDIES.c.study_name.startswith(prefix, autoescape=True)
    return named


def _prefix(names: Iterable[str]) -> str:
    """Return the study's part that all names have in common, its stroke included."""
    return next(iter(names)).partition("/")[0] + "/"
