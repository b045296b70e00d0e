"""What one trial leaves on disk: history, outcome, checkpoint, predictions, weights, log, and the lock of its owner."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from benchkit.atomic_write import write_atomically
from benchkit.codec import decode, encode
from benchkit.results import EpochRecord, Outcome


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

    def append_epoch(self, record: EpochRecord) -> None:
        """Add one epoch to the history file."""
        with (self.path / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(encode(record)) + "\n")

    def write_history(self, history: Iterable[EpochRecord]) -> None:
        """Replace the history file, as when a trial goes on from its checkpoint."""
        text = "".join(json.dumps(encode(record)) + "\n" for record in history)
        write_atomically(self.path / "history.jsonl", text.encode())

    def read_history(self) -> tuple[EpochRecord, ...]:
        """Return the epochs on file; a last line that was cut off by a kill is left out."""
        try:
            text = (self.path / "history.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return ()
        whole = text[: text.rfind("\n") + 1]
        records = json.loads(f"[{','.join(whole.splitlines())}]")  # one call: a large study has 100,000 lines
        return tuple(EpochRecord(**record) for record in records)

    def write_outcome(self, outcome: Outcome) -> None:
        """Record how the trial ended."""
        write_atomically(self.path / "result.json", json.dumps(encode(outcome), indent=1).encode())

    def read_outcome(self) -> Outcome | None:
        """Return how the trial ended, or None while it has not."""
        try:
            text = (self.path / "result.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return decode(Outcome, json.loads(text))
