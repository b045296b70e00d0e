"""Where a sweep is: which copy of a workspace it has before it, and which running system's locks it sees."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from benchkit.locks import exclude, system_id

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


def place_of(workspace: Path, lock: Path) -> str:
    """Return what tells processes that see each other's locks from all others; "" where locks keep nobody out."""
    own = workspace_id(workspace)
    return f"{own} {system_id()}" if exclude(lock) else ""
