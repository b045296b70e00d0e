"""Locks between processes: each on a file, and freed by the operating system when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

TAKEN = (errno.EAGAIN, errno.EACCES)
NONE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""What the system says where a disk has no locks."""


class Lock:
    """The lock on a file, which is made when absent. Each object excludes all others, those of this process too."""

    def __init__(self, path: Path) -> None:
        """Hold nothing yet."""
        self._path = path
        self._file: int | None = None

    def acquire(self, *, wait: bool = True) -> bool:
        """Return whether the lock is ours now; without `wait` it is not when another one holds it.

        Raises `OSError` where the file cannot be made, or its disk has no locks.
        """
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:
            os.close(file)
            if isinstance(error, OSError) and error.errno in TAKEN:
                return False
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Let go of the lock, if it is ours."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Lock:
        """Wait until the lock is ours."""
        self.acquire()
        return self

    def __exit__(self, *raised: object) -> None:
        """Let go of it."""
        self.release()

    def __del__(self) -> None:
        """Let go of a lock that nobody knows any more."""
        with contextlib.suppress(OSError, AttributeError):
            self.release()


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock on a file, where its disk has locks at all."""
    lock = Lock(path)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in NONE:
            raise
    try:
        yield
    finally:
        lock.release()


def exclude(path: Path) -> bool:
    """Return whether locks on a file of this folder's disk keep others out: one is held, and another one is tried.

    Some disks of several machines have none, and some say that they have but let everybody in.
    """
    first, second = Lock(path), Lock(path)
    try:
        return first.acquire() and not second.acquire(wait=False)
    except OSError as error:
        if error.errno not in NONE:
            raise
        return False
    finally:
        first.release()
        second.release()
