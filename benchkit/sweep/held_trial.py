"""A trial that a worker has: what the sweep hands out of it, and what it writes of what it hears. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchkit.errors import LedgerError
from benchkit.ledger.claims import Claim, scores_of
from benchkit.results import Outcome
from benchkit.storage import write_atomically
from benchkit.study.tree import changed
from benchkit.sweep.messages import (
    Answer,
    CheckpointTaken,
    EpochEnded,
    Event,
    FileFinished,
    OfTrial,
    Train,
    TrialBegan,
    TrialEnded,
    TrialProfiled,
    TrialStarted,
    TrialTaken,
)


class HeldTrial:
    """A trial in the hands of the worker `number`, and our claim on it, which `finish` and `release` give up."""

    def __init__(self, claim: Claim, number: int) -> None:
        """Take over the claim."""
        self.claim = claim
        self.number = number
        self.id: int = claim.trial._trial_id
        self.lease = claim.lease
        self.waited_for = False
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

    def order(self, decided: Mapping[str, str]) -> Train:
        """Return what a worker is told, its checkpoint in it; raise `LedgerError` where that cannot be read."""
        claim, checkpoint = self.claim, self.claim.folder.checkpoint
        with writing():
            content = checkpoint.read_bytes() if checkpoint.exists() else b""
        return Train(
            trial=self.id,
            lease=self.lease,
            settings=dict(changed(claim.condition.settings, claim.params)),
            phase=claim.phase,
            index=claim.index,
            decided=dict(decided),
            asks=claim.asks,
            content=content,
        )

    def hear(self, event: OfTrial) -> tuple[Event | None, Answer | None]:
        """Write down what is told of the trial; return what to show of it, and what to answer.

        Raises `LedgerError` when it cannot be written.
        """
        self.waited_for = isinstance(event, CheckpointTaken) or (isinstance(event, EpochEnded) and self.claim.asks)
        with writing():
            shown = self._written(event)
        prune = isinstance(event, EpochEnded) and self.claim.should_prune(event.record)
        return shown, self.answer("prune" if prune else "go on") if self.waited_for else None

    def answer(self, word: str) -> Answer:
        """Return the answer that its worker waits for."""
        self.waited_for = False
        return Answer(trial=self.id, lease=self.lease, word=word)  # type: ignore[arg-type]

    def _written(self, event: OfTrial) -> Event | None:
        folder = self.claim.folder
        if isinstance(event, TrialBegan):
            folder.write_history(event.history)
            return self._started(event)
        if isinstance(event, EpochEnded):
            folder.append_epoch(event.record)
            return event
        if isinstance(event, CheckpointTaken):
            write_atomically(folder.checkpoint, event.content)
        elif isinstance(event, FileFinished):
            write_atomically(folder.path / Path(event.name).name, event.content)
        elif isinstance(event, TrialProfiled):
            return replace(event, trace=str(folder.path / event.trace) if event.trace else "")
        return None

    def _started(self, event: TrialBegan) -> TrialStarted:
        taken = self.taken
        return TrialStarted(
            condition=taken.condition,
            phase=taken.phase,
            index=taken.index,
            key=taken.key,
            number=taken.number,
            epochs=event.epochs,
            epoch=len(event.history),
        )

    def print(self, content: bytes) -> None:
        """Add to the trial's log."""
        with writing(), self.claim.folder.log.open("ab") as log:
            log.write(content)

    def finish(self, outcome: Outcome) -> TrialEnded | None:
        """Record how the trial ended; return that as it is shown, None when another sweep has taken it meanwhile.

        Raises `LedgerError` when it cannot be written.
        """
        with writing():
            if not self.claim.finish(outcome):
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


@contextmanager
def writing() -> Iterator[None]:
    """Turn what a full or broken disk raises into a `LedgerError`: the trial is then left, to be gone on with."""
    try:
        yield
    except OSError as error:
        raise LedgerError(
            f"a trial's files cannot be written: {error}",
            hint="make room; the same command then goes on where it stopped",
        ) from error
