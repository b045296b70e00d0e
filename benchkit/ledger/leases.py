"""Leases: which sweep holds a trial, under which number, and until when by the clock of the ledger's database.

A sweep has a random id and one record in the ledger, which a thread of it renews: all trials that it holds are held for
as long as the record lasts. A trial's own record names its holder and a number that grows each time the trial is handed
out. Every change of hands is one transaction that compares what was read with what is there, so that of several takers
one wins, and a holder that slept meanwhile changes nothing any more.
"""

from __future__ import annotations

import datetime
import json
import logging
import secrets
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, insert, select, update

from benchkit.errors import first_line
from benchkit.ledger.tables import (
    DAMAGE,
    STUDIES,
    STUDY_ATTRIBUTES,
    TRIAL_ATTRIBUTES,
    TRIALS,
    VALUES,
    attribute_row,
    cause_of,
    patient,
    study_ids,
    unfinished_trials,
)

LEASE = 60.0
"""Seconds after which a sweep that was not heard of holds its trials no longer."""

RENEWALS = 6
"""How often a lease is renewed while it lasts."""

KEPT = 86400.0
"""Seconds for which the record of a sweep that ended is kept."""

KEY = "lease"
PREFIX = "sweep "
"""What the names of the records of sweeps begin with, among the attributes of the study."""

CLOCKS = {"mysql": "unix_timestamp(now(6))"}
CLOCK = "extract(epoch from clock_timestamp())"
"""Seconds since 1970 by the clock of the database's server."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A trial's record: how often it was handed out (its fencing token), and the id of the sweep that holds it."""

    number: int = 0
    owner: str = ""

    @property
    def text(self) -> str:
        """Return the record as it stands in the ledger."""
        return json.dumps(asdict(self))


def lease_of(trial: FrozenTrial) -> Lease | None:
    """Return a trial's record, None where it was last handed out by a version without leases, or never."""
    return Lease(**trial.user_attrs[KEY]) if KEY in trial.user_attrs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A sweep's record as it was read: its text, whether it lasts, and whether we see its locks and processes."""

    text: str
    lives: bool
    here: bool


def holding(trial: FrozenTrial, sweeps: Mapping[str, Sweep]) -> Sweep | None:
    """Return the record of the sweep that holds a trial, None where none of these does."""
    lease = lease_of(trial)
    return sweeps.get(lease.owner) if lease else None


def now_of(connection: Connection) -> float:
    """Return the seconds since 1970 by the database's clock; SQLite has that of the machine."""
    if connection.dialect.name == "sqlite":
        return time.time()
    clock = CLOCKS.get(connection.dialect.name, CLOCK)
    return float(connection.execute(sqlalchemy.text(f"select {clock}")).scalar_one())


def sweeps_of(storage: RDBStorage, study: str, place: str) -> dict[str, Sweep]:
    """Return the records of the sweeps of a study, by id; `place` is that of who asks."""
    query = (
        select(STUDY_ATTRIBUTES.c.key, STUDY_ATTRIBUTES.c.value_json)
        .join(STUDIES, STUDY_ATTRIBUTES.c.study_id == STUDIES.c.study_id)
        .where(STUDIES.c.study_name == study, STUDY_ATTRIBUTES.c.key.startswith(PREFIX))
    )
    with storage.engine.connect() as connection:
        rows = connection.execute(query).all()
        now = now_of(connection) if rows else 0.0
    read = [(key.removeprefix(PREFIX), text, json.loads(text)) for key, text in rows]
    return {
        key: Sweep(text=text, lives=told["until"] > now, here=told["place"] == place != "") for key, text, told in read
    }


class Holder:
    """A sweep as holder of trials of one study: it renews its record in the ledger from a thread of its own."""

    def __init__(
        self, storage: RDBStorage, study: str, place: str, seconds: float = LEASE, patience: float = 0.0
    ) -> None:
        """Write the record; `place` is the workspace and running system whose locks this sweep sees, "" for none."""
        self.patience = patience
        self.id = secrets.token_hex(8)
        self.place = place
        self.seconds = seconds
        self._storage = storage
        self._study = study
        self._study_id = study_ids(storage, study)[study]
        self._trials: dict[int, int] = {}
        self._until = self._sure_from = 0.0
        self._forget_old(sweeps_of(storage, study, place))
        self.renew()
        self._ended = threading.Event()
        weakref.finalize(self, self._ended.set)
        renewing = (weakref.ref(self), self._ended, seconds / RENEWALS)
        self._thread = threading.Thread(target=_renewing, args=renewing, daemon=True)
        self._thread.start()

    def _record(self, key: str, prefix: str = PREFIX) -> sqlalchemy.ColumnElement[bool]:
        found: sqlalchemy.ColumnElement[bool] = sqlalchemy.and_(
            STUDY_ATTRIBUTES.c.study_id == self._study_id, STUDY_ATTRIBUTES.c.key == prefix + key
        )
        return found

    def _write(self, connection: Connection, text: str, prefix: str = PREFIX) -> None:
        """Write a record of this sweep among the attributes of its study."""
        record = self._record(self.id, prefix)
        if not connection.execute(update(STUDY_ATTRIBUTES).where(record).values(value_json=text)).rowcount:
            row = {"study_id": self._study_id, "key": prefix + self.id, "value_json": text}
            connection.execute(insert(STUDY_ATTRIBUTES), [row])

    def show(self, prefix: str, value: Any) -> list[Any]:
        """Write what others may see of this sweep, JSON values, beside its record; return what they show by this name.

        Nobody waits for the storage: where it does not answer, they show nothing.
        """
        key = STUDY_ATTRIBUTES.c.key
        named = sqlalchemy.or_(key.startswith(PREFIX), key.startswith(prefix))
        query = select(key, STUDY_ATTRIBUTES.c.value_json).where(STUDY_ATTRIBUTES.c.study_id == self._study_id, named)
        try:
            with self._storage.engine.begin() as connection:
                self._write(connection, json.dumps(value), prefix)
                found = {name: text for name, text in connection.execute(query)}
                now = now_of(connection)
        except DAMAGE as error:
            logger.warning("what the sweep is at could not be written: %s", first_line(cause_of(error)))
            return []
        sweeps = {name.removeprefix(PREFIX): text for name, text in found.items() if name.startswith(PREFIX)}
        others = [one for one, text in sweeps.items() if one != self.id and json.loads(text)["until"] > now]
        return [json.loads(found[prefix + one]) for one in others if prefix + one in found]

    def _forget_old(self, sweeps: Mapping[str, Sweep]) -> None:
        """Remove the records of sweeps that ended long ago."""
        with self._storage.engine.begin() as connection:
            now = now_of(connection)
            for key, sweep in sweeps.items():
                if json.loads(sweep.text)["until"] < now - KEPT:
                    ended = (STUDY_ATTRIBUTES.c.study_id == self._study_id, STUDY_ATTRIBUTES.c.key.endswith(f" {key}"))
                    connection.execute(sqlalchemy.delete(STUDY_ATTRIBUTES).where(*ended))

    def renew(self) -> None:
        """Make the record last for another lease, and see which trials others took while it had run out."""
        began = _ticks()
        with self._storage.engine.begin() as connection:
            told = json.dumps({"until": now_of(connection) + self.seconds, "place": self.place})
            self._write(connection, told)
        if began >= self._until:
            self._look()
            self._sure_from = began + 2 * self.seconds / RENEWALS if self._until else began
        self._until = began + self.seconds

    @property
    def judges(self) -> bool:
        """Return whether we can tell that others are gone: not while a database was away for them as well as for us."""
        return self._sure_from <= _ticks() < self._until

    def _look(self) -> None:
        """Let go of the trials that are no longer ours; those taken meanwhile are left alone."""
        before = dict(self._trials)
        query = select(TRIAL_ATTRIBUTES.c.trial_id).where(
            TRIAL_ATTRIBUTES.c.key == KEY, TRIAL_ATTRIBUTES.c.value_json.contains(self.id)
        )
        if before:
            with self._storage.engine.connect() as connection:
                ours = set(connection.execute(query).scalars())
            for trial_id in before.keys() - ours:
                self._forget(trial_id, before[trial_id])

    def _forget(self, trial_id: int, number: int) -> None:
        if self._trials.get(trial_id) == number:
            del self._trials[trial_id]

    def holds(self, trial_id: int, lease: Lease) -> bool:
        """Return whether a trial is ours still under this lease; where the lease has run out, the ledger is asked."""
        if _ticks() >= self._until:
            patient(Holder.renew)(self)
        return self._trials.get(trial_id) == lease.number

    def has(self, trial: FrozenTrial) -> bool:
        """Return whether a trial, as it was read, is one of those that are ours."""
        read = lease_of(trial)
        return read is not None and read.owner == self.id and self._trials.get(trial._trial_id) == read.number

    @patient
    def has_all(self) -> bool:
        """Return whether all trials of the study that have not ended are ours: nothing is there to take."""
        found = unfinished_trials(self._storage, f"{self._study}/", KEY)
        return all(text == Lease(number=self._trials.get(one, 0), owner=self.id).text for one, text in found.items())

    @patient
    def take(self, trial: FrozenTrial, before: Sweep | None = None) -> Lease | None:
        """Hand a waiting trial out, or one whose holder is gone; return None when another was faster.

        `trial` is as it was read, and `before` the record of the sweep that holds it, if there is one: when either has
        changed since, nothing happens. A trial that was waiting then tells when it began.
        """
        read = lease_of(trial)
        lease = Lease(number=(read.number if read else 0) + 1, owner=self.id)
        try:
            with self._storage.engine.begin() as connection:
                taken = self._change_hands(connection, trial, before, read, lease)
                if not taken:
                    connection.rollback()
        except sqlalchemy.exc.IntegrityError:  # of two first records of a trial the second is refused
            taken = False
        if not taken and not self._is_recorded(trial._trial_id, lease):
            return None
        self._trials[trial._trial_id] = lease.number
        return lease

    def _change_hands(
        self, connection: Connection, trial: FrozenTrial, before: Sweep | None, read: Lease | None, lease: Lease
    ) -> bool:
        """Write what `take` changes, each change only on top of what was read; return whether all could be written.

        The first statement of each is a write: SQLite refuses a transaction that turns from reading to writing late.
        """
        if before is not None and read is not None:
            same = (self._record(read.owner), STUDY_ATTRIBUTES.c.value_json == before.text)
            # Until this transaction ends, that sweep can renew nothing.
            if not connection.execute(update(STUDY_ATTRIBUTES).where(*same).values(value_json=before.text)).rowcount:
                return False
        now = now_of(connection)
        began = {"datetime_start": _utc(now)} if trial.state is TrialState.WAITING else {}
        row = (TRIALS.c.trial_id == trial._trial_id, TRIALS.c.state == trial.state)
        if not connection.execute(update(TRIALS).where(*row).values(state=TrialState.RUNNING, **began)).rowcount:
            return False
        if began:
            trial.datetime_start = datetime.datetime.fromtimestamp(now)  # as Optuna tells it
        if read is None:
            connection.execute(insert(TRIAL_ATTRIBUTES), [attribute_row(trial._trial_id, KEY, asdict(lease))])
            return True
        return _replace(connection, trial._trial_id, read, lease)

    def _is_recorded(self, trial_id: int, lease: Lease) -> bool:
        """Return whether a lease is on record: the answer to a try before may have been lost."""
        with self._storage.engine.connect() as connection:
            return (
                connection.execute(select(TRIAL_ATTRIBUTES.c.trial_id).where(*_told(trial_id, lease))).first()
                is not None
            )

    def let_go(self, trial_id: int, lease: Lease) -> None:
        """Give a trial back as it is: whoever comes next may take it at once, or when the lease has run out.

        The ledger is asked once: who lets go is about to end.
        """
        self._forget(trial_id, lease.number)
        try:
            with self._storage.engine.begin() as connection:
                _replace(connection, trial_id, lease, Lease(number=lease.number))
        except DAMAGE as error:
            logger.warning(
                "a trial could not be given back: it is free when its lease is over: %s",
                first_line(cause_of(error)),
            )

    @patient
    def end(
        self,
        trial_id: int,
        lease: Lease,
        state: TrialState,
        values: Sequence[float] | None,
        attributes: Mapping[str, Any],
    ) -> bool:
        """Record the end of a trial; return False, and write nothing, when another sweep has taken it meanwhile."""
        self._forget(trial_id, lease.number)
        ended = Lease(number=lease.number)
        with self._storage.engine.begin() as connection:
            if not _replace(connection, trial_id, lease, ended):
                return _is_finished(connection, trial_id, ended)
            write_attributes(connection, trial_id, attributes)
            for objective, value in enumerate(values or ()):
                stored, kind = models.TrialValueModel.value_to_stored_repr(value)
                given = {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}
                connection.execute(insert(VALUES), [given])
            done = {"state": state, "datetime_complete": _utc(now_of(connection))}
            connection.execute(update(TRIALS).where(TRIALS.c.trial_id == trial_id).values(**done))
        return True

    @patient
    def note(self, trial_id: int, lease: Lease, key: str, value: Any) -> bool:
        """Write an attribute of a trial that is ours; return False, and write nothing, when it is another's by now."""
        with self._storage.engine.begin() as connection:
            if not _replace(connection, trial_id, lease, lease):
                return False
            write_attributes(connection, trial_id, {key: value})
        return True


def _renewing(holder: weakref.ref[Holder], ended: threading.Event, every: float) -> None:
    """Renew a holder's record until nobody uses the holder; what a storage refuses is tried again, and sooner."""
    pause = every
    while not ended.wait(pause):
        held = holder()
        if held is None:
            return
        try:
            held.renew()
            pause = every
        except DAMAGE as error:
            pause = every / RENEWALS
            logger.warning("the lease could not be renewed, which is tried again: %s", first_line(cause_of(error)))
        del held


def _replace(connection: Connection, trial_id: int, old: Lease, new: Lease) -> bool:
    """Put a trial's record in the place of the old one; return False when that is not there any more."""
    changed = update(TRIAL_ATTRIBUTES).where(*_told(trial_id, old)).values(value_json=new.text)
    return bool(connection.execute(changed).rowcount)


def _told(trial_id: int, lease: Lease) -> tuple[sqlalchemy.ColumnElement[bool], ...]:
    """Return the conditions that a trial's record is this one."""
    return (
        TRIAL_ATTRIBUTES.c.trial_id == trial_id,
        TRIAL_ATTRIBUTES.c.key == KEY,
        TRIAL_ATTRIBUTES.c.value_json == lease.text,
    )


def _is_finished(connection: Connection, trial_id: int, lease: Lease) -> bool:
    """Return whether the end under this lease is on record already: its answer was lost, and it is told again."""
    query = (
        select(TRIALS.c.state)
        .join(TRIAL_ATTRIBUTES, TRIAL_ATTRIBUTES.c.trial_id == TRIALS.c.trial_id)
        .where(*_told(trial_id, lease))
    )
    state = connection.execute(query).scalar_one_or_none()
    return state is not None and state.is_finished()


def write_attributes(connection: Connection, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Set user attributes of a trial."""
    before = (TRIAL_ATTRIBUTES.c.trial_id == trial_id, TRIAL_ATTRIBUTES.c.key.in_(attributes))
    connection.execute(sqlalchemy.delete(TRIAL_ATTRIBUTES).where(*before))
    rows = [attribute_row(trial_id, key, value) for key, value in attributes.items()]
    connection.execute(insert(TRIAL_ATTRIBUTES), rows)


def _ticks() -> float:
    """Return seconds that go on while the machine sleeps, where its system counts these."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).replace(tzinfo=None)
