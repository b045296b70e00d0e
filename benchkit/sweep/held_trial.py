"""A trial that a worker has: what the sweep hands out of it, and what it writes of what it hears. Imports no torch."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

from benchkit.errors import LedgerError
from benchkit.ledger.claims import Claim, scores_of
from benchkit.results import EpochRecord, Outcome
from benchkit.storage import encode, write_atomically
from benchkit.study.tree import changed
from benchkit.sweep.machine_faults import AWAY
from benchkit.sweep.messages import (
    CheckpointTaken,
    EpochEnded,
    Event,
    FileFinished,
    OfTrial,
    Train,
    TrialAnswer,
    TrialBegan,
    TrialEnded,
    TrialProfiled,
    TrialStarted,
    TrialTaken,
    is_asked,
)
from benchkit.sweep.starts import KEY, Memory, Starts, starts_of

SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 10.0
"""Seconds between two tries of a disk that does not answer."""

T = TypeVar("T")


class HeldTrial:
    """A trial in the hands of the worker `number`, and our claim on it, which `finish` and `release` give up."""

    def __init__(self, claim: Claim, number: int, patience: float) -> None:
        """Take over the claim; a disk that does not answer is asked again for `patience` seconds."""
        self._patience = patience
        self._history: list[EpochRecord] = []
        self.claim = claim
        self.number = number
        self.id: int = claim.trial._trial_id
        self.lease = claim.lease
        self.starts = Starts()
        self.model = ""
        self.waited_for = self.given = self.saved = self.alone = self.compiles = self._end_is_written = False
        self.beside_node = self.beside_device = False
        self._known = self.starts
        self._limited = False
        self._began = time.perf_counter()
        self.taken = TrialTaken(
            condition=claim.condition.display_label,
            phase=claim.phase,
            index=claim.index,
            key=claim.condition.key,
            number=claim.trial.number,
        )

    @property
    def name(self) -> tuple[int, int]:
        """Return what messages call it: its id in the ledger and its lease."""
        return self.id, self.lease

    def begin(self, memory: Memory, before: Memory) -> Outcome | None:
        """Read how the starts before this one ended; return how the trial has ended by now, None where it has not.

        `model` is then that of the device on which it was begun, "" where it begins now.
        A kill came between its end and the ledger, or its starts were its end.
        """
        self._limited = memory.limit > 0
        outcome = self.claim.folder.read_outcome()
        if outcome is not None or self.lease == 1:
            return outcome
        if self.claim.folder.checkpoint.exists() and (history := self.claim.folder.read_history()):
            self.model = history[0].device
        self._known = starts_of(self.claim.trial.user_attrs)
        self._note(self._known.after_other_sweeps(self.lease, memory, before))
        self.alone = self.starts.alone
        return Outcome(state="failed", reason=self.starts.reason) if self.starts.failed else None

    def order(self, decided: Mapping[str, str], seconds: float) -> Train:
        """Return what a worker is told, with the checkpoint and the `seconds` left.

        Raises `LedgerError` where the checkpoint cannot be read.
        """
        claim, checkpoint = self.claim, self.claim.folder.checkpoint
        content = self._done(lambda: checkpoint.read_bytes() if checkpoint.exists() else b"")
        return Train(
            trial=self.id,
            lease=self.lease,
            settings=dict(changed(claim.condition.settings, claim.params)),
            phase=claim.phase,
            index=claim.index,
            decided=dict(decided),
            asks=claim.asks,
            seconds=seconds,
            compiles=self.compiles,
            content=b"" if self.compiles else content,
        )

    def hear(self, event: OfTrial) -> tuple[Event | None, TrialAnswer | None]:
        """Write down what is told of the trial; return what to show of it, and what to answer.

        Raises `LedgerError` when it cannot be written.
        """
        self.waited_for = is_asked(event, asks=self.claim.asks)
        if isinstance(event, TrialBegan):
            self._history = list(event.history)
        elif isinstance(event, EpochEnded):
            self._history.append(event.record)
        shown = self._done(lambda: self._written(event), lambda: self._written_again(event))
        prune = isinstance(event, EpochEnded) and self.claim.should_prune(event.record)
        return shown, self.answer("prune" if prune else "go on") if self.waited_for else None

    def answer(self, word: str) -> TrialAnswer:
        """Return the answer that its worker waits for."""
        self.waited_for = False
        return TrialAnswer(trial=self.id, lease=self.lease, word=word)  # type: ignore[arg-type]

    def _written(self, event: OfTrial) -> Event | None:
        folder = self.claim.folder
        if isinstance(event, TrialBegan):
            folder.write_history(event.history)
            return TrialStarted(**asdict(self.taken), epochs=event.epochs, epoch=len(event.history))
        if isinstance(event, EpochEnded):
            folder.append_epoch(event.record)
            return event
        if isinstance(event, CheckpointTaken):
            write_atomically(folder.checkpoint, event.content)
            if not self.saved:
                self._note(self.starts.saved(self.lease))
            self.saved = True
        elif isinstance(event, FileFinished):
            write_atomically(folder.path / Path(event.name).name, event.content)
        elif isinstance(event, TrialProfiled):
            return replace(event, trace=str(folder.path / event.trace) if event.trace else "")
        return None

    def _written_again(self, event: OfTrial) -> Event | None:
        """Write what could not be written: of an epoch nobody knows how much of its line is there."""
        if isinstance(event, EpochEnded):
            self.claim.folder.write_history(self._history)
            return event
        return self._written(event)

    def _done(self, do: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """Return what is done on disk, or done `again` where a disk did not answer.

        Raises `LedgerError` at last, and for a full or broken disk: the trial is left as it is, to be gone on with.
        """
        end, pause = time.monotonic() + self._patience, SHORTEST_PAUSE
        while True:
            try:
                return do()
            except OSError as error:
                if error.errno not in AWAY or time.monotonic() + pause >= end:
                    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                    first = "make room" if full else "see that the workspace is where it was and can be written"
                    raise LedgerError(
                        f"a trial's files cannot be written: {error}",
                        hint=f"{first}; the same command then goes on where it stopped",
                    ) from error
            time.sleep(pause)
            pause, do = min(2 * pause, LONGEST_PAUSE), again or do

    def give_back(self, starts: Starts | None = None) -> None:
        """Let go of the trial as it is, with this record of its starts; None where its end is not its own doing."""
        self._note(starts or self.starts.excused(self.lease))
        self.claim.release()

    def _note(self, starts: Starts) -> None:
        """Keep a record of the trial's starts, in the ledger where it may be asked for: writing takes its time."""
        self.starts = starts
        matters = [(one.ended, one.alone) != ((), False) for one in (starts, self._known)]
        if starts != self._known and (self._limited or any(matters)):
            self.claim.note(KEY, encode(starts))
            self._known = starts

    def write_end(self, outcome: Outcome) -> None:
        """Write into its folder how the trial ended, before `finish` records it; raise `LedgerError` as that does."""
        self._end_is_written = self._done(lambda: self.claim.write_end(outcome))

    def finish(self, outcome: Outcome) -> TrialEnded | None:
        """Record how the trial ended; return that as it is shown, None when another sweep has taken it meanwhile.

        Raises `LedgerError` when it cannot be written.
        """
        record = self.claim.record_end if self._end_is_written else self.claim.finish
        if not self._done(lambda: record(outcome)):
            return None
        return TrialEnded(
            condition=self.taken.condition,
            phase=self.taken.phase,
            index=self.taken.index,
            state=outcome.state,
            reason=outcome.reason,
            seconds=time.perf_counter() - self._began,
            scores=scores_of(outcome),
        )
