"""Optuna's storage: opened, its failures waited out, and its tables read and written for a study's conditions at once.

Each condition is an Optuna study; through Optuna's own interface each takes some ten transactions to be queued and five
queries to be read. What is written here is what `create_study` and `enqueue_trial` write. Last come the values of a
search as they stand there.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import logging
import re
import sqlite3
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.distributions import json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models  # the tables have no public home
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, insert, select
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from benchkit.errors import LedgerError, first_line
from benchkit.locks import held
from benchkit.study import Search, SearchRange

P = ParamSpec("P")
T = TypeVar("T")

DAMAGE = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, ArithmeticError, AttributeError,
          LookupError, TypeError, ValueError)  # fmt: skip
"""What reading a storage raises in which bytes were changed: its own errors, or those of whoever takes in nonsense."""

REBUILD = "if ledger.db is damaged, move it away: benchkit ledger rebuild makes it anew from the folders of trials"
AWAY = "the same command goes on when the database answers again"
CAUSES = {
    "disk is full|disk i/o": "make room on the disk of ledger.db; the same command then goes on where it stopped",
    "unable to open|readonly database": "is the workspace, or the file of --storage, where it was, may you write "
    "there, and is its path no longer than some 480 characters, as SQLite has it? the same command then goes on",
    "connection (is bad|failed|refused)|could not translate": "does the server run, and are user, host, port and name "
    "those in the URL? the same command then goes on",
}
"""What to do, by the words of an error of which the file is not to blame, nor the form of a URL."""

BUSY_SECONDS = 100
"""How long a process waits for the others to be done with a SQLite file."""

READING_SECONDS = 5.0
"""How long it waits where it only looks at one that is being written."""

OPENING_SECONDS = 15.0
"""How long a server is tried that is just starting, or whose tables others are just making."""

PATIENCE = 600.0
"""Seconds for which a sweep waits for a storage that does not answer."""

LONGEST_PAUSE = 5.0
"""Seconds between two tries, at the most."""

SERVER: Mapping[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_pre_ping": True, "pool_timeout": 60}
"""One connection a process, which is seen to be alive before each use."""

CONNECTION = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "options": "-c idle_in_transaction_session_timeout=60s -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10",
}
"""What PostgreSQL is asked for, where the URL says nothing else: a cut is noticed on both sides within a minute."""

ALONE = 0x62656E63686B6974
"""The number of the lock on PostgreSQL."""

PASSING = re.compile(
    "locked|disk i/o|too many|connection slots|starting up|shutting down|recovery mode|read-only transaction", re.I
)
"""Words of failures that end by themselves, where the kind of error does not tell."""

logger = logging.getLogger(__name__)


def is_on_server(url: str | None) -> bool:
    """Return whether a ledger is a server's, and no file's."""
    return bool(url) and not str(url).startswith("sqlite")


def open_file(path: Path) -> RDBStorage:
    """Return the storage in a SQLite file, whatever characters its path has: no URL is made of it."""
    file = path.resolve()
    return _opened(
        f"sqlite:///{path.name}",
        {"creator": lambda: sqlite3.connect(file, timeout=BUSY_SECONDS, check_same_thread=False)},
        str(path),
        REBUILD,
    )


def open_storage(url: str, patience: float = 0.0) -> RDBStorage:
    """Return the storage at a URL; its connections are closed as soon as nobody uses it any more.

    PostgreSQL is spoken to by psycopg 3, unless the URL names another driver. A server that is just starting, or has no
    room for another connection, is tried for `patience` seconds, some in any case. Raises `LedgerError` where the
    storage cannot be opened, or its driver is not installed.
    """
    shown = _without_password(url)
    hint = "give --storage a URL that Optuna accepts, such as postgresql://USER@HOST/NAME, or leave it out"
    if url.startswith("sqlite"):
        return _opened(url, {"connect_args": {"timeout": BUSY_SECONDS}}, shown, hint)
    url = _with_driver(url, shown)
    asked = {key: value for key, value in CONNECTION.items() if f"{key}=" not in url}
    connection = {"connect_args": asked} if url.startswith("postgresql") else {}
    # To look at its tables, Optuna takes two connections at a time; none of these is kept.
    storage = _opened(url, {**connection, "poolclass": NullPool}, shown, hint, patience)
    storage.engine = sqlalchemy.create_engine(storage.url, **connection, **SERVER)
    storage.scoped_session = scoped_session(sessionmaker(bind=storage.engine))
    weakref.finalize(storage, storage.engine.dispose)
    return storage


def file_of(url: str) -> Path | None:
    """Return the file of an SQLite URL; None for one of a server, of memory alone, or that is none."""
    try:
        found = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        return None
    named = found.database if found.get_backend_name() == "sqlite" else None
    return Path(named) if named and named != ":memory:" else None


def open_read_only(url: str | None, file: Path) -> RDBStorage:
    """Return a storage that writes nothing, not even the tables that an empty one lacks: the URL's, else the file's.

    Raises `LedgerError` where it cannot be opened.
    """
    if is_on_server(url):
        address = _with_driver(str(url), _without_password(str(url)))
        asked = {**CONNECTION, "options": f"{CONNECTION['options']} -c default_transaction_read_only=on"}
        options = {**SERVER, **({"connect_args": asked} if address.startswith("postgresql") else {})}
    else:
        path = (file_of(url) if url else None) or file
        uri = f"file:{quote(str(path.resolve()))}?mode=ro"
        # Each look opens the file anew: it may be another one by now.
        options = {"creator": lambda: sqlite3.connect(uri, uri=True, timeout=READING_SECONDS), "poolclass": NullPool}
        address = f"sqlite:///{file.name}"
    with storage_errors():
        storage = RDBStorage(address, engine_kwargs=options, skip_compatibility_check=True, skip_table_creation=True)
    weakref.finalize(storage, storage.engine.dispose)
    return storage


def _without_password(url: str) -> str:
    return re.sub(r"(://[^/@:]*:)[^@]*(?=@)|([?&]password=)[^&]*", r"\1\2***", url)


def _with_driver(url: str, shown: str) -> str:
    """Return a server's URL with the driver that is taken where it names none; raise `LedgerError` without that."""
    url = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)
    if url.startswith("postgresql+psycopg:") and importlib.util.find_spec("psycopg") is None:
        raise LedgerError(
            f"{shown}: PostgreSQL needs the package psycopg, which is not installed",
            hint="pip install 'benchkit[postgres]'",
        )
    return url


def _opened(url: str, options: dict[str, Any], shown: str, hint: str, patience: float = 0.0) -> RDBStorage:
    end, pause = time.monotonic() + max(OPENING_SECONDS, patience), 0.1
    while True:
        try:
            storage = RDBStorage(url, engine_kwargs=options)
        except Exception as error:  # SQLAlchemy, drivers and Optuna raise many kinds, all for the same reason
            if _is_made_by_others(error) and time.monotonic() + pause < end:
                time.sleep(pause)
                pause = min(2 * pause, 1.0)
                continue
            raise LedgerError(
                f"{shown}: the ledger cannot be opened: {type(error).__name__}: {first_line(error)}",
                hint=_fitting(error, hint),
            ) from error
        weakref.finalize(storage, storage.engine.dispose)
        return storage


def _is_made_by_others(error: Exception) -> bool:
    """Return whether a storage could not be opened because others make its tables, or its server has no room yet."""
    words = str(error)
    raced = isinstance(error, sqlalchemy.exc.IntegrityError) or "already exists" in words
    return raced or (isinstance(error, sqlalchemy.exc.DBAPIError) and PASSING.search(words) is not None)


def _is_passing(error: BaseException) -> bool:
    """Return whether what a storage raised may end by itself: it does not answer, or somebody else is at it."""
    cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
    if isinstance(cause, sqlalchemy.exc.TimeoutError):
        return True
    if not isinstance(cause, sqlalchemy.exc.DBAPIError):
        return False
    if isinstance(cause.orig, sqlite3.Error):
        return PASSING.search(str(cause)) is not None
    gone = isinstance(cause, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError)
    return gone or cause.connection_invalidated or PASSING.search(str(cause)) is not None


@contextmanager
def alone(storage: RDBStorage, lock: Path) -> Iterator[None]:
    """Let one process at a time do what it reads and then writes: by a lock here, on PostgreSQL by one of the server.

    The server's lock is the connection's, of which a process has one alone.
    """
    with held(lock):
        if storage.engine.dialect.name != "postgresql":
            yield
            return
        _tell(storage, "select pg_advisory_lock")
        try:
            yield
        finally:
            with suppress(*DAMAGE):  # a connection that was cut has let go of it
                _tell(storage, "select pg_advisory_unlock")


def _tell(storage: RDBStorage, words: str) -> None:
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"{words}({ALONE})"))


class Asks(Protocol):
    """Whoever asks the storage."""

    @property
    def patience(self) -> float:
        """Return for how many seconds a storage that does not answer is asked again, 0 for one try."""
        ...


A = TypeVar("A", bound=Asks)


def patient(function: Callable[Concatenate[A, P], T]) -> Callable[Concatenate[A, P], T]:
    """Call a function or method again while the storage of its first argument fails for the time being.

    The pauses grow; when patience is at an end, and for other failures, `LedgerError` is raised. What a call changes, a
    second one must not change again: a cut connection leaves open whether it did.
    """

    @wraps(function)
    def asked(who: A, /, *args: P.args, **kwargs: P.kwargs) -> T:
        end, pause, told = time.monotonic() + who.patience, 0.05, False
        with storage_errors():
            while True:
                try:
                    return function(who, *args, **kwargs)
                except DAMAGE as error:
                    if not _is_passing(error) or time.monotonic() + pause >= end:
                        raise
                    if not told:
                        words = "the ledger does not answer and is asked again for up to %.0f s: %s"
                        logger.warning(words, who.patience, first_line(cause_of(error)))
                    told = True
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    return asked


def _fitting(error: BaseException, otherwise: str) -> str:
    """Return what is to be done about an error."""
    return next((hint for words, hint in CAUSES.items() if re.search(words, str(error), re.I)), otherwise)


def cause_of(error: BaseException) -> BaseException:
    """Return what a storage's error is about, without what it is wrapped in."""
    return error.__cause__ or error


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn what a damaged or unreachable storage raises into one `LedgerError`; also a decorator."""
    try:
        yield
    except DAMAGE as error:
        cause = cause_of(error)
        raise LedgerError(
            f"the ledger cannot be read or written: {type(cause).__name__}: {first_line(cause)}",
            hint=AWAY if _is_passing(error) else _fitting(cause, REBUILD),
        ) from error


STUDIES = models.StudyModel.__table__
DIRECTIONS = models.StudyDirectionModel.__table__
STUDY_ATTRIBUTES = models.StudyUserAttributeModel.__table__
TRIALS = models.TrialModel.__table__
TRIAL_ATTRIBUTES = models.TrialUserAttributeModel.__table__
SYSTEM_ATTRIBUTES = models.TrialSystemAttributeModel.__table__

VALUES = models.TrialValueModel.__table__
PARAMS = models.TrialParamModel.__table__
TIMES = ("datetime_start", "datetime_complete")

READ = ("index", "attempt", "state", "lease", "files")
"""The attributes of trials that are read for all at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTrial:
    """A trial to queue in the Optuna study of this name, with what it is to be given of a search's settings."""

    study: str
    attributes: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict)


def study_ids(storage: RDBStorage, prefix: str) -> dict[str, int]:
    """Return the ids of the Optuna studies whose name begins with `prefix`, by name."""
    with storage.engine.connect() as connection:
        return _ids(connection, prefix)


def attributes_of(storage: RDBStorage, study: str) -> dict[str, Any]:
    """Return all user attributes of an Optuna study, none of one that is not there."""
    query = (
        select(STUDY_ATTRIBUTES.c.key, STUDY_ATTRIBUTES.c.value_json)
        .join(STUDIES, STUDY_ATTRIBUTES.c.study_id == STUDIES.c.study_id)
        .where(STUDIES.c.study_name == study)
    )
    with storage.engine.connect() as connection:
        return {key: json.loads(text) for key, text in connection.execute(query)}


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


def trials_of(storage: RDBStorage, prefix: str, *, scored: bool = False) -> dict[str, list[FrozenTrial]]:
    """Return the trials of the Optuna studies whose name begins with `prefix`, by the study's name, in their order.

    They hold number, state, times and the attributes of `READ`, and, where they are `scored`, values and parameters; no
    reported epochs.
    """
    trials = (
        select(STUDIES.c.study_name, *(TRIALS.c[name] for name in ("trial_id", "number", "state", *TIMES)))
        .join(TRIALS, TRIALS.c.study_id == STUDIES.c.study_id)
        .where(_named(prefix))
        .order_by(TRIALS.c.trial_id)
    )
    values = defaultdict[int, list[float]](list)
    attributes, params, drawn_from = (defaultdict[int, dict[str, Any]](dict) for _ in range(3))
    with storage.engine.connect() as connection:
        rows = connection.execute(trials).all()
        beside = _beside(prefix, TRIAL_ATTRIBUTES, "key", "value_json").where(TRIAL_ATTRIBUTES.c.key.in_(READ))
        for trial_id, key, text in connection.execute(beside):
            attributes[trial_id][key] = json.loads(text)
        if scored:
            for trial_id, value, kind in connection.execute(
                _beside(prefix, VALUES, "value", "value_type").order_by(VALUES.c.objective)
            ):
                values[trial_id].append(models.TrialValueModel.stored_repr_to_value(value, kind))
            for trial_id, key, value, text in connection.execute(
                _beside(prefix, PARAMS, "param_name", "param_value", "distribution_json").order_by(PARAMS.c.param_id)
            ):
                known = _distribution(text)
                drawn_from[trial_id][key], params[trial_id][key] = known, known.to_external_repr(value)
    found: dict[str, list[FrozenTrial]] = defaultdict(list)
    for name, trial_id, number, state, started, finished in rows:
        if not name.startswith(prefix):
            continue
        trial = FrozenTrial(
            number=number,
            trial_id=trial_id,
            state=state,
            value=None,
            values=values.get(trial_id),
            datetime_start=_local(started),
            datetime_complete=_local(finished),
            params=params[trial_id],
            distributions=drawn_from[trial_id],
            user_attrs=attributes[trial_id],
            system_attrs={},
            intermediate_values={},
        )
        found[name].append(trial)
    return dict(found)


def unfinished_trials(storage: RDBStorage, prefix: str, key: str) -> dict[int, str | None]:
    """Return the ids of the trials that have not ended, of Optuna studies as `trials_of` takes them.

    Each with its attribute `key` as it is stored, None where it has none.
    """
    told = sqlalchemy.and_(TRIAL_ATTRIBUTES.c.trial_id == TRIALS.c.trial_id, TRIAL_ATTRIBUTES.c.key == key)
    query = (
        select(TRIALS.c.trial_id, TRIAL_ATTRIBUTES.c.value_json)
        .join(STUDIES, TRIALS.c.study_id == STUDIES.c.study_id)
        .outerjoin(TRIAL_ATTRIBUTES, told)
        .where(_named(prefix), TRIALS.c.state.in_((TrialState.WAITING, TrialState.RUNNING)))
    )
    with storage.engine.connect() as connection:
        return {trial_id: text for trial_id, text in connection.execute(query)}


def _beside(prefix: str, table: sqlalchemy.Table, *columns: str) -> sqlalchemy.Select[Any]:
    """Return what asks for the rows of a table that belong to trials: their trials' ids and these columns."""
    return (
        select(table.c.trial_id, *(table.c[name] for name in columns))
        .join(TRIALS, TRIALS.c.trial_id == table.c.trial_id)
        .join(STUDIES, TRIALS.c.study_id == STUDIES.c.study_id)
        .where(_named(prefix))
    )


_distribution = lru_cache(maxsize=1024)(json_to_distribution)


def _local(stored: datetime.datetime | None) -> datetime.datetime | None:
    """Return a stored time as Optuna tells it: this machine's."""
    return stored and stored.replace(tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)


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
        attributes = [attribute_row(at, key, value) for at, trial in made for key, value in trial.attributes.items()]
        connection.execute(insert(TRIAL_ATTRIBUTES), attributes)
        fixed = [attribute_row(at, "fixed_params", dict(trial.given)) for at, trial in made]
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


def attribute_row(trial_id: int, key: str, value: Any) -> dict[str, Any]:
    """Return the row of a trial's attribute, a JSON value."""
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


def stored(one: SearchRange, value: Any) -> Any:
    """Return a value as Optuna stores it: where a choice is a table or a list, all choices of its range are JSON."""
    plain = all(choice is None or isinstance(choice, bool | int | float | str) for choice in one.choices)
    return value if plain else json.dumps(value, sort_keys=True)


def stored_params(search: Search, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by path as Optuna stores them."""
    ranges = {one.path: one for one in search.space}
    return {path: stored(ranges[path], value) for path, value in params.items()}


def chosen_params(search: Search, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by path for what Optuna stored."""
    choices = {(one.path, repr(stored(one, value))): value for one in search.space for value in one.choices}
    return {path: choices.get((path, repr(value)), value) for path, value in params.items()}
