"""Which attempt at a trial counts, and in which state it is."""

from __future__ import annotations

import datetime
import socket
import time
from collections.abc import Callable, Iterable, Sequence

from optuna.trial import FrozenTrial, TrialState

from benchkit.ledger.trialfolder import TrialFolder
from benchkit.plan import Condition
from benchkit.results import State

HEARTBEAT = 120.0
"""Seconds after which a running trial of another machine, not heard of, counts as stale."""

STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.WAITING: "waiting",
}


def effective(trials: Iterable[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Return the trial that counts for each index, by index: the latest attempt, and of two queued at once the first.

    Trials without an index, which others put into the storage, never count.
    """
    counted: dict[int, FrozenTrial] = {}
    for trial in trials:
        if "index" not in trial.user_attrs:
            continue
        index, attempt = trial.user_attrs["index"], trial.user_attrs["attempt"]
        current = counted.get(index)
        if current is None or (attempt, -trial.number) > (current.user_attrs["attempt"], -current.number):
            counted[index] = trial
    return dict(sorted(counted.items()))


class Attempts:
    """All attempts at a study's trials, read at one time."""

    def __init__(self, read: Callable[[Condition], Sequence[FrozenTrial]]) -> None:
        """Take the attempts at a condition's trials, in the order in which they were queued, from `read`."""
        self.of = read

    def counted(self, condition: Condition) -> dict[int, FrozenTrial]:
        """Return the trial that counts for each index of a condition, by index."""
        return effective(self.of(condition))

    def finished(self, condition: Condition) -> list[FrozenTrial]:
        """Return the trials of a condition that count and have ended, in the order of their indices."""
        return [trial for trial in self.counted(condition).values() if trial.state.is_finished()]

    def ended(self, condition: Condition, count: int) -> int:
        """Return how many of the first `count` trials of a condition have ended."""
        return sum(int(trial.user_attrs["index"]) < count for trial in self.finished(condition))


def finished_state(trial: FrozenTrial) -> State:
    """Return how a finished trial ended; Optuna has no word of its own for diverged."""
    return STATES.get(trial.state) or ("diverged" if trial.user_attrs.get("state") == "diverged" else "failed")


def state_of(trial: FrozenTrial, folder: TrialFolder) -> State:
    """Return the state of a trial in benchkit's words; a running trial whose owner is gone is stale."""
    if trial.state is TrialState.RUNNING:
        return "running" if is_alive(trial, folder) else "stale"
    return finished_state(trial)


def is_alive(trial: FrozenTrial, folder: TrialFolder) -> bool:
    """Return whether the owner of a running trial lives: by its lock here, by its heartbeat on another machine."""
    if "worker" not in trial.user_attrs and not folder.path.exists():  # claimed just now on another machine
        started = trial.datetime_start or datetime.datetime.fromtimestamp(0)
        return time.time() - started.timestamp() < HEARTBEAT
    return lives_elsewhere(trial) or folder.owned()


def lives_elsewhere(trial: FrozenTrial) -> bool:
    """Return whether a worker of another machine that has the trial gave a sign of life lately."""
    worker = trial.user_attrs.get("worker", {"host": socket.gethostname()})
    return worker["host"] != socket.gethostname() and time.time() - float(worker["seen"]) < HEARTBEAT


def next_attempt(trial: FrozenTrial | None, retry: Sequence[State]) -> int | None:
    """Return the number of the attempt to queue after a trial (None: there is none yet), or None for no attempt."""
    if trial is None:
        return 0
    again = trial.state.is_finished() and finished_state(trial) in retry
    return int(trial.user_attrs["attempt"]) + 1 if again else None
