"""The files of a trial, whether they are still those that it left, and how the trial stands.

A finished trial's files are one list of names, sizes and digests, written last; the ledger keeps its digest beside the
trial's scores. Whoever wants to know whether they are still those that it left asks `trial_files`. How a trial stands
follows from its owner and its files. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState
from safetensors import SafetensorError, safe_open

from benchkit.errors import BenchkitError, LedgerError, first_line
from benchkit.ledger.leases import Sweep, holding, lease_of
from benchkit.locks import Lock, known_id
from benchkit.results import PREDICTIONS, STOPPED, WEIGHTS, EpochRecord, Outcome, State, inspected_name
from benchkit.storage import decode, decode_lines, encode, file_digest, write_atomically

LIST = "files.json"
REMOVED = "removed.json"
"""The files that were removed on purpose, by name, each with when; written before they are."""

UNLISTED = frozenset({LIST, REMOVED, "checkpoint.pt", "log.txt", "owner.lock"})
"""What a trial's folder holds beside its results."""

NUMBERS = (LIST, "result.json", "history.jsonl", PREDICTIONS)
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
    """Write the list of the files in a trial's folder; return what the ledger keeps of it: its digest, and where it is.

    Raises `OSError` when a file cannot be read or the list cannot be written.
    """
    listed = (path for path in folder.iterdir() if path.name not in UNLISTED and not path.name.endswith(".part"))
    paths = sorted(path for path in listed if path.is_file())
    entries = [{"name": path.name, "size": path.stat().st_size, "sha256": file_digest(path)} for path in paths]
    content = json.dumps(entries).encode()
    write_atomically(folder / LIST, content)
    return {"sha256": hashlib.sha256(content).hexdigest(), **home_of(folder)}


def home_of(folder: Path) -> dict[str, str]:
    """Return where a trial's folder is: the host's name, and the id of the workspace, where that has one."""
    known = known_id(folder.parents[3]) if len(folder.parents) > 3 else ""
    return {"host": socket.gethostname(), **({"workspace": known} if known else {})}


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
        return (replace(whole, state="elsewhere" if _is_elsewhere(folder, kept) else "lost"),)
    if hashlib.sha256(content).hexdigest() != kept["sha256"]:
        return (replace(whole, state="changed"),)
    removed = frozenset(removed_files(folder))
    listed = (TrialFile(**entry) for entry in json.loads(content))
    return tuple(replace(file, state=_state(folder, file, removed, contents=contents)) for file in listed)


def _is_elsewhere(folder: Path, kept: Mapping[str, str]) -> bool:
    """Return whether a list was never here: it is another workspace's, or a host's of another name.

    A copied workspace has the id of the first, and beginnings of trials that came to their end elsewhere.
    """
    here = home_of(folder)
    if kept.get("workspace", here.get("workspace")) != here.get("workspace"):
        return True
    return kept["host"] != here["host"] and not (folder / "result.json").exists()


def lost_or_changed(files: Sequence[TrialFile]) -> tuple[State, str] | None:
    """Return the state of a trial whose numbers do not stand any more or are not here, and the reason; else None."""
    if changed := [file.name for file in files if file.state == "changed"]:
        return "changed files", f"changed after the trial had ended: {', '.join(changed)}"
    if lost := [file.name for file in files if file.state == "lost" and file.name in NUMBERS]:
        return "missing files", f"lost after the trial had ended: {', '.join(lost)}"
    if any(file.state == "elsewhere" for file in files):
        return "files elsewhere", "trained on another machine, whose files are not here: benchkit merge brings them"
    return None


def notes_of(files: Sequence[TrialFile]) -> tuple[str, ...]:
    """Return a note for each file that was lost without taking a trial's numbers along."""
    return tuple(f"{file.name} is lost" for file in files if file.state == "lost")


def _state(folder: Path, file: TrialFile, removed: frozenset[str], *, contents: bool) -> FileState:
    path = folder / file.name
    try:
        size = path.stat().st_size
        if size != file.size or (contents and file_digest(path) != file.sha256):
            return "changed"
    except OSError:
        return "removed" if file.name in removed else "lost"
    return "here"


def removed_files(folder: Path) -> dict[str, str]:
    """Return the files of a trial's folder that were removed on purpose, by name, with when (ISO 8601, UTC)."""
    try:
        return dict(json.loads((folder / REMOVED).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def write_removed(folder: Path, removed: Mapping[str, str]) -> None:
    """Write down which files of a trial's folder are removed, before they are."""
    write_atomically(folder / REMOVED, json.dumps(removed, indent=1).encode())


UNREADABLE = (OSError, ValueError, BenchkitError)
"""What reading a file of a trial raises that is not what was written."""

EPOCH_KEYS, OUTCOME_KEYS = (frozenset(field.name for field in fields(kind)) for kind in (EpochRecord, Outcome))


RESULTS = ("result.json", "history.jsonl", "checkpoint.pt", "trial.json")
"""The files that only a trial's training writes."""


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """The files of one trial, by name."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Return where the state after the last saved epoch is."""
        return self.path / "checkpoint.pt"

    @property
    def predictions(self) -> Path:
        """Return where the logits on val and test are (safetensors)."""
        return self.path / PREDICTIONS

    @property
    def weights(self) -> Path:
        """Return where the selected weights are (safetensors)."""
        return self.path / WEIGHTS

    def inspected(self, figure: str) -> Path:
        """Return where the arrays are that a figure took from the finished model (safetensors)."""
        return self.path / inspected_name(figure)

    @property
    def trace(self) -> Path:
        """Return where a profiled trial's trace is, for Perfetto."""
        return self.path / "trace.json.gz"

    @property
    def log(self) -> Path:
        """Return where everything printed during the trial is."""
        return self.path / "log.txt"

    def own(self) -> Lock | None:
        """Return the owner's lock, held, or None when another process lives that holds it.

        The operating system frees the lock when its holder dies, however it dies; so a free lock means no live owner.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = Lock(self.path / "owner.lock")
        return lock if lock.acquire(wait=False) else None

    def owned(self) -> bool:
        """Return whether a live process holds the trial."""
        if not (self.path / "owner.lock").exists():
            return False
        lock = self.own()
        if lock is not None:
            lock.release()
        return lock is None

    def results(self) -> tuple[str, ...]:
        """Return the names of the files in which a trial's training is, none for one that nobody has begun."""
        return tuple(name for name in RESULTS if (self.path / name).exists())

    def write_description(self, description: Mapping[str, Any]) -> None:
        """Write down which trial this is, from which a lost ledger is made again."""
        write_atomically(self.path / "trial.json", json.dumps(description).encode())

    def append_epoch(self, record: EpochRecord) -> None:
        """Add one epoch to the history file."""
        with (self.path / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(encode(record)) + "\n")

    def write_history(self, history: Iterable[EpochRecord]) -> None:
        """Replace the history file, as when a trial goes on from its checkpoint."""
        text = "".join(json.dumps(encode(record)) + "\n" for record in history)
        write_atomically(self.path / "history.jsonl", text.encode())

    def read_history(self) -> tuple[EpochRecord, ...]:
        """Return the epochs on file; a last line that was cut off by a kill is left out.

        Raises `LedgerError` when the file cannot be read; keys that only a newer version knows are left out.
        """
        try:
            content = (self.path / "history.jsonl").read_bytes()
            return decode_lines(EpochRecord, content[: content.rfind(b"\n") + 1], "the epochs")
        except FileNotFoundError:
            return ()
        except UNREADABLE as error:
            raise self._unreadable("history.jsonl", error) from error

    def write_outcome(self, outcome: Outcome) -> None:
        """Record how the trial ended."""
        write_atomically(self.path / "result.json", json.dumps(encode(outcome)).encode())

    def read_outcome(self) -> Outcome | None:
        """Return how the trial ended, or None while it has not; raise `LedgerError` when the file cannot be read."""
        try:
            return decode(Outcome, json.loads((self.path / "result.json").read_text(encoding="utf-8")), "the outcome")
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            raise self._unreadable("result.json", error) from error

    def check_predictions(self) -> None:
        """Raise `LedgerError` when there are stored logits that cannot be read."""
        try:
            with safe_open(self.predictions, framework="numpy") as logits:
                logits.keys()
        except FileNotFoundError:
            return
        except (OSError, SafetensorError) as error:
            raise self._unreadable(self.predictions.name, error) from error

    def newer_keys(self) -> tuple[str, ...]:
        """Return the keys of the history and the outcome, both readable, that only a newer version knows."""
        found: set[str] = set()
        for name, known in (("history.jsonl", EPOCH_KEYS), ("result.json", OUTCOME_KEYS)):
            if (self.path / name).exists():
                with (self.path / name).open(encoding="utf-8") as file:
                    table = json.loads((file.readline() or "{}") if name == "history.jsonl" else file.read())
                found |= set(table) - known
        return tuple(sorted(found))

    def _unreadable(self, name: str, error: Exception) -> LedgerError:
        return LedgerError(
            f"{self.path / name}: the file of a trial cannot be read: {first_line(error)}",
            hint="put the file back as it was, or train the trial again: benchkit sweep STUDY --retry changed",
        )


def occupied(folder: Path, results: Sequence[str]) -> LedgerError:
    """Return the error of a trial whose folder holds the results of another one, which must not be written over."""
    return LedgerError(
        f"{folder}: the folder of a trial that is to be trained holds another's results ({', '.join(results)}), which "
        f"the ledger does not know",
        hint="benchkit ledger rebuild makes a lost ledger again from these folders; or name another --workspace",
    )


STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.WAITING: "waiting",
}


def finished_state(trial: FrozenTrial) -> State:
    """Return how a finished trial ended; Optuna has no word of its own for diverged."""
    return STATES.get(trial.state) or ("diverged" if trial.user_attrs.get("state") == "diverged" else "failed")


def state_of(trial: FrozenTrial, folder: TrialFolder, sweeps: Mapping[str, Sweep], *, files: bool = True) -> State:
    """Return the state of a trial in benchkit's words; a running trial whose owner is gone is stale.

    `sweeps` are the records of the study's sweeps. With `files`, a finished trial that lacks files, or has some of
    other sizes, is told so; contents are not read.
    """
    if trial.state is TrialState.RUNNING:
        return "running" if is_alive(trial, folder, sweeps) else "stale"
    if files and trial.state.is_finished():
        broken = lost_or_changed(trial_files(folder.path, trial.user_attrs.get("files"), contents=False))
        return broken[0] if broken else finished_state(trial)
    return finished_state(trial)


def numbers_of(
    trial: FrozenTrial, folder: TrialFolder, sweeps: Mapping[str, Sweep]
) -> tuple[State, tuple[EpochRecord, ...], Outcome | None]:
    """Return a trial's state, its history and its outcome, none of the last two where its files do not stand any more.

    Every file of a finished trial is held against its digest; the reason is then that of the outcome.
    """
    kept = trial.user_attrs.get("files")
    finished = trial.state.is_finished()
    files = trial_files(folder.path, kept) if finished else ()
    state, broken = state_of(trial, folder, sweeps, files=False), lost_or_changed(files)
    if broken is None:
        try:
            lease = lease_of(trial) if state == "stale" else None
            stopped = Outcome(state="stale", reason=STOPPED) if lease and not lease.owner else None
            return state, folder.read_history(), _noted(folder, files, kept) if finished else stopped
        except LedgerError as error:
            broken = ("changed files" if finished else state), error.what
    return broken[0], (), Outcome(state=broken[0], reason=broken[1])


def _noted(folder: TrialFolder, files: Sequence[TrialFile], kept: object) -> Outcome | None:
    """Return the outcome on file, with a note of what is gone and of what only a newer version understands."""
    outcome = folder.read_outcome()
    if kept is None:
        folder.check_predictions()
    notes = notes_of(files)
    if newer := folder.newer_keys():
        notes = (*notes, f"written by a newer version: not read are {', '.join(newer)}")
    return replace(outcome, notes=(*outcome.notes, *notes)) if outcome and notes else outcome


def is_alive(trial: FrozenTrial, folder: TrialFolder, sweeps: Mapping[str, Sweep]) -> bool:
    """Return whether the owner of a running trial lives: by its lock here, by its sweep's record on another machine."""
    holder = holding(trial, sweeps)
    return folder.owned() if holder is None or holder.here else holder.lives
