"""What each worker slot of a sweep is at, for whoever watches: one line each, written by the sweep every few seconds.

The lines are a file beside a ledger in SQLite, and in the ledger on a server; they are read without a lock.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchkit.errors import LedgerError
from benchkit.ledger.ledger import Ledger
from benchkit.ledger.tables import study_attributes
from benchkit.storage import write_atomically
from benchkit.study import Study

FOLDER = "seats"
PREFIX = "seats "
"""What the names of the lines of sweeps begin with, among the attributes of the study."""

Line = Mapping[str, Any]
"""JSON values by name: the node, the device, the trial, its epoch and whatever else is known."""


def write_seats(ledger: Ledger, study: Study, lines: Sequence[Line]) -> None:
    """Put a sweep's lines in the place of those before; what cannot be written is left out, since training goes on."""
    holder = ledger.holder(study)
    if ledger.on_server:
        holder.show(PREFIX, lines)
        return
    with contextlib.suppress(OSError):
        write_atomically(ledger.workspace / FOLDER / f"{holder.id}.json", json.dumps(list(lines)).encode())


def read_seats(ledger: Ledger, study: Study) -> dict[str, list[dict[str, Any]]]:
    """Return the lines of the sweeps of a study that are under way, by the sweep's id; its files have them too."""
    found = {}
    for name, sweep in ledger.sweeps(study).items():
        if not sweep.lives:
            continue
        if ledger.on_server:
            lines = study_attributes(ledger.storage, study.name, PREFIX + name).get(study.name)
        else:
            lines = _read(ledger, name)
        if lines is not None:
            found[name] = lines
    return found


def forget_seats(ledger: Ledger, study: Study) -> None:
    """Remove the lines of this sweep, which ends, and of those whose records are gone."""
    own = ledger.holder(study).id
    write_seats(ledger, study, ())
    with contextlib.suppress(OSError, LedgerError):
        kept = ledger.sweeps(study).keys() - {own}
        for file in (ledger.workspace / FOLDER).glob("*.json"):
            if file.stem not in kept:
                file.unlink(missing_ok=True)


def _read(ledger: Ledger, name: str) -> list[dict[str, Any]] | None:
    try:
        lines: list[dict[str, Any]] = json.loads((ledger.workspace / FOLDER / f"{name}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return lines
