"""The folders in which data sets are built: each with a name of its own, moved into place when it is complete.

Several machines may build one set on a disk that they share and that keeps them apart by no lock: none may take what
another is building for what a killed process left.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import re
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

from benchkit.locks import system_id

ABANDONED = 86400.0
"""Seconds after its last change at which another machine's folder counts as left by a killed process."""

TRIES = 10


def building_folder(folder: Path) -> Path:
    """Return a new name beside a folder for what is being built."""
    return folder.with_name(f".{folder.name}.preparing-{_machine()}-{secrets.token_hex(4)}")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left beside a folder whose lock we hold: this machine's, and what is a day old."""
    ours = f".{folder.name}.preparing-{_machine()}-"
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.*"):
        if re.fullmatch(r"(preparing|old)(-[0-9a-f]+-[0-9a-f]+(-old)?)?", leftover.name[len(folder.name) + 2 :]):
            with suppress(FileNotFoundError):
                newest = max(path.stat().st_mtime for path in (leftover, *leftover.rglob("*")))
                if leftover.name.startswith(ours) or time.time() - newest > ABANDONED:
                    shutil.rmtree(leftover)


def put(built: Path, folder: Path) -> None:
    """Let what was built have its name, in the place of what has it already.

    Raises `OSError` when it cannot be moved; what was there then stays.
    """
    old = built.with_name(f"{built.name}-old")
    try:
        for _ in range(TRIES):
            with suppress(FileNotFoundError):
                folder.rename(old)
            try:
                built.rename(folder)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            shutil.rmtree(old, ignore_errors=True)  # another machine has put its own there since
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def _machine() -> str:
    return hashlib.sha256(system_id().encode()).hexdigest()[:8]
