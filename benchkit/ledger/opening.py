"""Optuna's storage, opened: its URL or file, its driver, and how long its failures are waited out."""

from __future__ import annotations

import importlib.util
import logging
import re
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from benchkit.errors import LedgerError
from benchkit.locks import held

P = ParamSpec("P")
T = TypeVar("T")

DAMAGE = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, ArithmeticError, AttributeError,
          LookupError, TypeError, ValueError)  # fmt: skip
"""What reading a storage raises in which bytes were changed: its own errors, or those of whoever takes in nonsense."""

REBUILD = "if ledger.db is damaged, move it away: benchkit ledger rebuild makes it anew from the folders of trials"
AWAY = "the same command goes on when the database answers again"

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


def open_read_only(url: str | None, file: Path) -> RDBStorage:
    """Return a storage that writes nothing, not even the tables that an empty one lacks: the URL's, else the file's.

    Raises `LedgerError` where it cannot be opened.
    """
    if is_on_server(url):
        address = _with_driver(str(url), _without_password(str(url)))
        asked = {**CONNECTION, "options": f"{CONNECTION['options']} -c default_transaction_read_only=on"}
        options = {**SERVER, **({"connect_args": asked} if address.startswith("postgresql") else {})}
    else:
        path = Path(sqlalchemy.make_url(url).database or "") if url else file
        uri = f"file:{quote(str(path.resolve()))}?mode=ro"
        # Each look opens the file anew: it may be another one by now.
        options = {"creator": lambda: sqlite3.connect(uri, uri=True, timeout=READING_SECONDS), "poolclass": NullPool}
        address = f"sqlite:///{file.name}"
    with storage_errors():
        storage = RDBStorage(address, engine_kwargs=options, skip_compatibility_check=True, skip_table_creation=True)
    weakref.finalize(storage, storage.engine.dispose)
    return storage


def _without_password(url: str) -> str:
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", url)


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
            first = str(error).strip().partition("\n")[0]
            raise LedgerError(
                f"{shown}: the ledger cannot be opened: {type(error).__name__}: {first}", hint=hint
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


class Patience:
    """How long a storage that does not answer is asked again: `seconds`, 0 for one try."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    def __call__(self, ask: Callable[[], T]) -> T:
        """Return what `ask` does; it is called again, with growing pauses, while the storage fails for the time being.

        What it changes, a second call must not change again: a cut connection leaves open whether it did.
        """
        end, pause, told = time.monotonic() + self._seconds, 0.05, False
        while True:
            try:
                return ask()
            except DAMAGE as error:
                if not _is_passing(error) or time.monotonic() + pause >= end:
                    raise
                if not told:
                    logger.warning(
                        "the ledger does not answer and is asked again for up to %.0f s: %s",
                        self._seconds,
                        first_line(error),
                    )
                told = True
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


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
    """Whoever asks the storage, and how long."""

    @property
    def patience(self) -> Patience:
        """Return how long."""
        ...


A = TypeVar("A", bound=Asks)


def patient(method: Callable[Concatenate[A, P], T]) -> Callable[Concatenate[A, P], T]:
    """Let a method be called again while the storage fails, and raise `LedgerError` when patience is at an end."""

    @wraps(method)
    def asked(self: A, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with storage_errors():
            return self.patience(lambda: method(self, *args, **kwargs))

    return asked


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn what a damaged or unreachable storage raises into one `LedgerError`; also a decorator."""
    try:
        yield
    except DAMAGE as error:
        cause = error.__cause__ or error
        raise LedgerError(
            f"the ledger cannot be read or written: {type(cause).__name__}: {first_line(cause)}",
            hint=AWAY if _is_passing(error) else REBUILD,
        ) from error


def first_line(error: BaseException) -> str:
    """Return what a storage's error says, without what it is wrapped in and what its driver adds."""
    return str(error.__cause__ or error).strip().partition("\n")[0]
