"""The files of a finished trial: one list of names, sizes and digests, and what became of each file since.

The list is written last, and the ledger keeps its digest beside the trial's scores. Whoever wants to know whether a
trial's files are still those that it left asks `trial_files`. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchkit.results import State
from benchkit.storage import write_atomically

LIST = "files.json"
REMOVED = "removed.json"
"""The names of the files that were removed on purpose; written before they are."""

UNLISTED = frozenset({LIST, REMOVED, "checkpoint.pt", "log.txt", "owner.lock"})
"""What a trial's folder holds beside its results."""

NUMBERS = (LIST, "result.json", "history.jsonl", "predictions.safetensors")
"""The files that a trial's numbers are read from: without one of them it counts no more."""

FileState = Literal["here", "changed", "elsewhere", "removed", "lost"]
"""elsewhere: on the host whose sweep trained the trial; removed: on purpose; lost: nobody knows why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFile:
    """A file that a trial left: its name in the trial's folder, bytes, sha256 in hex, and what became of it."""

    name: str
    size: int
    sha256: str
    state: FileState = "here"


def write_list(folder: Path) -> dict[str, str]:
    """Write the list of the files in a trial's folder; return what the ledger keeps of it: its digest, and the host.

    Raises `OSError` when a file cannot be read or the list cannot be written.
    """
    paths = sorted(path for path in folder.iterdir() if path.is_file() and _is_listed(path.name))
    entries = [{"name": path.name, "size": path.stat().st_size, "sha256": _digest(path)} for path in paths]
    content = json.dumps(entries, indent=1).encode()
    write_atomically(folder / LIST, content)
    return {"sha256": hashlib.sha256(content).hexdigest(), "host": socket.gethostname()}


def trial_files(folder: Path, kept: Mapping[str, str] | None, *, contents: bool = True) -> tuple[TrialFile, ...]:
    """Return the files that a finished trial left, each with what became of it, from its list.

    `kept` is what the ledger keeps of the list, None for a trial of a version without one: of such a trial only the
    outcome is known to have been there. Without `contents`, digests are left out: a file of its size counts as here.
    """
    if kept is None:
        there = (folder / "result.json").is_file()
        return (TrialFile(name="result.json", size=0, sha256="", state="here" if there else "lost"),)
    whole = TrialFile(name=LIST, size=0, sha256=kept["sha256"])
    try:
        content = (folder / LIST).read_bytes()
    except OSError:
        elsewhere = kept["host"] != socket.gethostname() and not folder.exists()
        return (replace(whole, state="elsewhere" if elsewhere else "lost"),)
    if hashlib.sha256(content).hexdigest() != kept["sha256"]:
        return (replace(whole, state="changed"),)
    removed = _removed(folder)
    listed = (TrialFile(**entry) for entry in json.loads(content))
    return tuple(replace(file, state=_state(folder, file, removed, contents=contents)) for file in listed)


def lost_or_changed(files: Sequence[TrialFile]) -> tuple[State, str] | None:
    """Return the state of a trial whose numbers do not stand any more, and which files are to blame; else None."""
    if changed := [file.name for file in files if file.state == "changed"]:
        return "changed files", f"changed after the trial had ended: {', '.join(changed)}"
    if lost := [file.name for file in files if file.state == "lost" and file.name in NUMBERS]:
        return "missing files", f"lost after the trial had ended: {', '.join(lost)}"
    return None


def notes_of(files: Sequence[TrialFile]) -> tuple[str, ...]:
    """Return a note for each file that is gone without taking a trial's numbers along."""
    return tuple(f"{file.name} is {file.state}" for file in files if file.state in ("removed", "lost"))


def _is_listed(name: str) -> bool:
    return name not in UNLISTED and not name.endswith(".part")


def _state(folder: Path, file: TrialFile, removed: frozenset[str], *, contents: bool) -> FileState:
    path = folder / file.name
    try:
        size = path.stat().st_size
        if size != file.size or (contents and _digest(path) != file.sha256):
            return "changed"
    except OSError:
        return "removed" if file.name in removed else "lost"
    return "here"


def _removed(folder: Path) -> frozenset[str]:
    try:
        return frozenset(json.loads((folder / REMOVED).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return frozenset()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
