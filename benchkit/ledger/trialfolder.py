"""What one trial leaves on disk: history, outcome, checkpoint, predictions, weights, log, and the lock of its owner."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from benchkit.errors import BenchkitError, LedgerError
from benchkit.results import EpochRecord, Outcome
from benchkit.storage import decode, encode, write_atomically

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
        return self.path / "predictions.safetensors"

    @property
    def weights(self) -> Path:
        """Return where the selected weights are (safetensors)."""
        return self.path / "weights.safetensors"

    def inspected(self, figure: str) -> Path:
        """Return where the arrays are that a figure took from the finished model (safetensors)."""
        return self.path / f"inspected-{figure}.safetensors"

    @property
    def trace(self) -> Path:
        """Return where a profiled trial's trace is, for Perfetto."""
        return self.path / "trace.json.gz"

    @property
    def log(self) -> Path:
        """Return where everything printed during the trial is."""
        return self.path / "log.txt"

    def own(self) -> FileLock | None:
        """Return the owner's lock, held, or None when another process lives that holds it.

        The operating system frees the lock when its holder dies, however it dies; so a free lock means no live owner.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / "owner.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

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
        write_atomically(self.path / "trial.json", json.dumps(description, indent=1).encode())

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
            text = (self.path / "history.jsonl").read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            # One call for all lines: a large study has 100,000.
            return decode(tuple[EpochRecord, ...], json.loads(f"[{','.join(whole.splitlines())}]"), "the epochs")
        except FileNotFoundError:
            return ()
        except UNREADABLE as error:
            raise self._unreadable("history.jsonl", error) from error

    def write_outcome(self, outcome: Outcome) -> None:
        """Record how the trial ended."""
        write_atomically(self.path / "result.json", json.dumps(encode(outcome), indent=1).encode())

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
        first = str(error).partition("\n")[0]
        return LedgerError(
            f"{self.path / name}: the file of a trial cannot be read: {first}",
            hint="put the file back as it was, or train the trial again: benchkit sweep STUDY --retry changed",
        )
