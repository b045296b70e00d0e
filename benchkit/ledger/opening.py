"""Optuna's storage, opened: its URL or file, its driver, and what its failures are told as."""

from __future__ import annotations

import re
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy

from benchkit.errors import LedgerError

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
