"""Where a sweep is: which copy of a workspace it has before it, and which running system's locks it sees."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import uuid
from pathlib import Path

from benchkit.locks import exclude

ID = "workspace.id"
"""The file with a workspace's own id: two machines of one name and with a disk each have two of them."""

BOOT = Path("/proc/sys/kernel/random/boot_id")


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


def place_of(workspace: Path, lock: Path) -> str:
    """Return what tells processes that see each other's locks from all others; "" where locks keep nobody out."""
    own = workspace_id(workspace)
    return f"{own} {system_id()}" if exclude(lock) else ""


def system_id() -> str:
    """Return what tells this running system from others, whatever they are named."""
    with contextlib.suppress(OSError):
        return BOOT.read_text(encoding="ascii").strip()
    return f"{socket.gethostname()} {uuid.getnode():012x}"


MOUNTS = Path("/proc/self/mountinfo")

SHARED = frozenset(
    "nfs nfs4 cifs smb3 lustre gpfs beegfs ceph glusterfs afs panfs orangefs 9p fuse.sshfs fuse.glusterfs "
    "fuse.ceph fuse.gcsfuse fuse.s3fs fuse.juicefs fuse.rclone".split()
)
"""Disks of several machines, by the name that Linux gives them."""


def disk_of(folder: Path) -> str:
    """Return the kind of disk that a folder is on, as Linux names it: `ext4`, `nfs4`; "" where nobody tells."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found, kind = "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        mounted = before.split()[4].encode().decode("unicode_escape")
        if len(mounted) >= len(found) and folder.resolve().is_relative_to(mounted):
            found, kind = mounted, after.split()[0]
    return kind


def shared_disk(folder: Path) -> str:
    """Return the kind of disk that a folder is on where several machines may share it, else ""."""
    kind = disk_of(folder)
    return kind if kind in SHARED else ""
