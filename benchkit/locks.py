"""Locks between processes, and the disks and machines on which they hold.

A lock is on a file, and the operating system frees it when its holder ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

TAKEN = (errno.EAGAIN, errno.EACCES)
NONE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""What the system says where a disk has no locks."""

BOOT = Path("/proc/sys/kernel/random/boot_id")
MOUNTS = Path("/proc/self/mountinfo")

SHARED = frozenset(
    "nfs nfs4 cifs smb3 lustre gpfs beegfs ceph glusterfs afs panfs orangefs 9p fuse.sshfs fuse.glusterfs "
    "fuse.ceph fuse.gcsfuse fuse.s3fs fuse.juicefs fuse.rclone".split()
)
"""Disks of several machines, by the name that Linux gives them."""


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
        try:  # no module is there any more where the interpreter ends
            self.release()
        except (OSError, AttributeError):
            pass


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


def system_id() -> str:
    """Return what tells this running system from others, whatever they are named."""
    with contextlib.suppress(OSError):
        return BOOT.read_text(encoding="ascii").strip()
    return f"{socket.gethostname()} {uuid.getnode():012x}"


def disk_of(folder: Path) -> str:
    """Return the kind of disk that a folder is on, as Linux names it: `ext4`, `nfs4`; "" where nobody tells."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found, kind, resolved = "", "", folder.resolve()
    for line in lines:
        before, _, after = line.partition(" - ")
        mounted = before.split()[4].encode("latin-1", "backslashreplace").decode("unicode_escape")
        if len(mounted) >= len(found) and resolved.is_relative_to(mounted):
            found, kind = mounted, after.split()[0]
    return kind


def shared_disk(folder: Path) -> str:
    """Return the kind of disk that a folder is on where several machines may share it, else ""."""
    kind = disk_of(folder)
    return kind if kind in SHARED else ""


ID = "workspace.id"
"""The file with a workspace's own id: two machines of one name and with a disk each have two of them."""


def workspace_id(workspace: Path) -> str:
    """Return the id of a workspace, which is made up when it has none; of several that do so at once one wins.

    Raises `OSError` when the file can be neither read nor written.
    """
    file = workspace / ID
    if not file.exists():
        made = workspace / f".{secrets.token_hex(8)}.part"
        made.write_text(secrets.token_hex(8), encoding="ascii")
        try:
            os.link(made, file)
        except FileExistsError:
            pass
        except OSError:  # a disk without hard links
            made.replace(file)
        made.unlink(missing_ok=True)
    return file.read_text(encoding="ascii").strip()


def known_id(workspace: Path) -> str:
    """Return the id of a workspace, "" where it has none."""
    try:
        return (workspace / ID).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def place_of(workspace: Path, lock: Path, *, copies: bool = False) -> str:
    """Return what tells processes that see each other's locks from all others; "" where locks keep nobody out.

    A copy of a workspace has the id of the first, and locks of its own. Where `copies` may share a ledger, they are
    told apart by the lock's own file.
    """
    own = workspace_id(workspace)
    if not exclude(lock):
        return ""
    file = lock.stat()
    return f"{own} {system_id()}{f' {file.st_dev:x}:{file.st_ino:x}' if copies else ''}"
