"""A worker drops a trial that is another sweep's by now, between two steps of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchkit.sweep.messages import Event, Train, TrialAnswer, TrialBegan, TrialGivenBack
from benchkit.sweep.turns import Turns
from benchkit.train import surroundings
from benchkit.train.fit import Pause


class Endless:
    """Work on trials that never end; `closed` has those that were closed."""

    shared_device = None

    def __init__(self) -> None:
        self.closed: list[int] = []

    def do(self, order: Train) -> Iterator[Event | Pause]:
        yield TrialBegan(trial=order.trial, lease=order.lease, epochs=9)
        try:
            while True:
                yield Pause.STEP
        finally:
            self.closed.append(order.trial)


def test_a_trial_that_is_anothers_by_now_is_dropped_between_two_steps_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(surroundings, "TURN", 0.0)
    told: list[Event] = []
    work = Endless()
    turns = Turns(work, told.append)  # type: ignore[arg-type]
    for trial in (1, 2):
        turns.take(Train(trial=trial, lease=3, settings={}, phase="grid", index=0, decided={}))
    turns.turn()
    turns.turn()
    turns.take(TrialAnswer(trial=1, lease=2, word="drop"))
    assert work.closed == [], "an older lease is not this one"
    turns.take(TrialAnswer(trial=1, lease=3, word="drop"))
    assert work.closed == [1] and told[-1] == TrialGivenBack(trial=1, lease=3)
    turns.turn()
    assert not turns.waiting
