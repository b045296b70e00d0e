"""What each seat of a sweep is at, as one line of JSON beside the ledger, for whoever looks from outside.

A sweep writes all of its lines together, at most every few seconds, as a new file in the place of the old one: readers
need no lock and see no half of it. What is not renewed any more is left out by them. Where the ledger is on a server,
and sweeps may have a disk each, it has the lines in the file's place.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchkit.errors import BenchkitError
from benchkit.ledger import Ledger
from benchkit.ledger.tables import is_on_server
from benchkit.results import Trial
from benchkit.storage import decode, encode, write_atomically
from benchkit.study import Study
from benchkit.sweep.messages import (
    EpochEnded,
    Event,
    SeatsElsewhere,
    TrialEnded,
    TrialStarted,
    WorkerIdle,
    WorkerLost,
    WorkerReady,
)
from benchkit.sweep.progress import View, ViewBeside, trial_name

EVERY = 5.0
"""Seconds between two writings."""

SHOWN = "seats "
"""What the names of lines in the ledger begin with."""

STALE = 60.0
"""Seconds after which lines that were not renewed are those of a sweep that is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatLine:
    """A seat: its node and device, and the trial there with its last epoch, if there is one.

    `images_per_second`, `joules` (0 where nobody knows), `processor` (cores in use) and `device_use` (a share, None
    where nobody knows) are those of that epoch. `log` is the trial's. `at` is when it was written, in seconds since
    1970.
    """

    study: str
    node: str
    device: str
    trial: str = ""
    epoch: int = 0
    epochs: int = 0
    images_per_second: float = 0.0
    processor: float = 0.0
    device_use: float | None = None
    joules: float = 0.0
    log: str = ""
    at: float = 0.0

    @property
    def words(self) -> str:
        """Return the line as people read it."""
        if not self.trial:
            return f"{self.device} on {self.node}: no trial"
        used = "" if self.device_use is None else f", device {self.device_use:.0%} in use"
        joules = f", {self.joules:,.0f} J an epoch" if self.joules else ""
        speed = (
            f", {self.images_per_second:,.0f} images/s, {self.processor:.1f} cores{used}{joules}" if self.epoch else ""
        )
        return f"{self.device} on {self.node}: {self.trial}, epoch {self.epoch}/{self.epochs}{speed}; {self.log}"


Tell = Callable[[list[Any]], list[Any]]
"""Puts a sweep's lines, JSON values, in the place of those before; returns the lists of the study's other sweeps."""


class SeatLines(ViewBeside):
    """A view of a sweep that notes what its seats are at, and passes everything on to another view."""

    def __init__(
        self, view: View, logs: Path, study: str, log_of: Callable[[str, int], Path], tell: Tell | None = None
    ) -> None:
        """Write into the folder `logs`, or by `tell`.

        `log_of` tells a trial's log by the key of its condition and its number.
        """
        super().__init__(view)
        self._tell = tell
        self._file = logs / f"seats-{secrets.token_hex(8)}.jsonl"
        for left in logs.glob("seats-*.jsonl") if tell is None else ():
            with suppress(FileNotFoundError):  # another sweep was faster
                if time.time() - left.stat().st_mtime > STALE:
                    left.unlink()
        self._study = study
        self._log_of = log_of
        self._lines: dict[int, SeatLine] = {}
        self._trials: dict[int, TrialStarted] = {}
        self._written = float("-inf")
        self._elsewhere: tuple[str, ...] = ()

    def event(self, worker: int, event: Event) -> None:
        """Note what a seat is at."""
        self._note(worker, event)
        self._write()
        super().event(worker, event)

    def tick(self) -> None:
        """Write when it is time to."""
        self._write()
        super().tick()

    def close(self) -> None:
        """Take the lines away: the sweep ends."""
        if self._tell is not None:
            self._tell([])
        self._file.unlink(missing_ok=True)

    def _note(self, worker: int, event: Event) -> None:
        line = self._lines.get(worker)
        if isinstance(event, WorkerReady):
            self._lines[worker] = SeatLine(study=self._study, node=event.seat.node, device=event.device)
        elif isinstance(event, WorkerLost):
            self._lines.pop(worker, None)
        elif line is None:
            return
        elif isinstance(event, TrialStarted):
            self._trials[worker] = event
            name = trial_name(event.condition, event.phase, event.index)
            self._lines[worker] = replace(self._idle(line), trial=name, epoch=event.epoch, epochs=event.epochs)
        elif isinstance(event, EpochEnded):
            record = event.record
            self._lines[worker] = replace(
                line,
                epoch=record.epoch,
                images_per_second=record.images_per_second,
                joules=record.energy,
                processor=event.processor,
                device_use=event.device_use,
            )
        elif isinstance(event, TrialEnded | WorkerIdle):
            self._lines[worker] = self._idle(line)

    def _idle(self, line: SeatLine) -> SeatLine:
        return SeatLine(study=line.study, node=line.node, device=line.device)

    def _write(self) -> None:
        if time.monotonic() - self._written < EVERY:
            return
        self._written = time.monotonic()
        for worker, line in self._lines.items():
            if line.trial and not line.log:
                started = self._trials[worker]
                self._lines[worker] = replace(line, log=str(self._log_of(started.key, started.number)))
        lines = [encode(replace(line, at=time.time())) for line in self._lines.values()]
        if self._tell is not None:
            others = _read(self._tell(lines))
        else:
            write_atomically(self._file, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
            others = read_seats(self._file.parent, self._study, time.time(), but=self._file)
        if (words := tuple(line.words for line in others)) != self._elsewhere:
            self._elsewhere = words
            self._view.event(0, SeatsElsewhere(words=words))


def tell_of(ledger: Ledger, study: Study) -> Tell | None:
    """Return how lines get into a ledger on a server, None for one in a file."""
    return partial(ledger.holder(study).show, SHOWN) if ledger.on_server else None


def seats_of(workspace: Path, storage: str, study: str) -> list[SeatLine]:
    """Return the seats of all sweeps of a study that are under way."""
    if not is_on_server(storage):
        return read_seats(workspace / "logs", study, time.time())
    return _read(Ledger(workspace, storage).shown(study, SHOWN))


def recorded_epochs(trials: Iterable[Trial]) -> dict[str, int]:
    """Return the last epochs that the records of the trials under way hold, by the names that lines give them.

    Lines are older than that by up to `EVERY` seconds.
    """
    under_way = [trial for trial in trials if trial.state == "running" and trial.history]
    return {trial_name(t.condition.label, t.phase, t.index): t.history[-1].epoch for t in under_way}


def ended_names(trials: Iterable[Trial]) -> set[str]:
    """Return the names of the trials that nobody is at, as lines give them."""
    return {trial_name(t.condition.label, t.phase, t.index) for t in trials if t.state not in ("running", "waiting")}


def _read(told: Iterable[list[Any]]) -> list[SeatLine]:
    return [decode(SeatLine, line) for lines in told for line in lines]


def read_seats(logs: Path, study: str, now: float, but: Path | None = None) -> list[SeatLine]:
    """Return the seats of all sweeps of a study that write into the folder `logs`, but for those that went silent.

    The sweep that writes the file `but` is left out.
    """
    found = []
    for file in sorted(file for file in logs.glob("seats-*.jsonl") if file != but):
        try:
            lines = [decode(SeatLine, json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError, BenchkitError):
            continue  # gone since, or of another version
        found += [line for line in lines if line.study == study and now - line.at < STALE]
    return found
