"""How far a sweep is, by hand-fed events and a hand-set clock."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_study import RECORD

from benchkit.sweep.events import EpochEnded, TrialEnded, TrialStarted, WorkerLost, WorkerReady
from benchkit.sweep.pace import Pace, duration, name_of

STARTED = TrialStarted(condition="gn", phase="grid", index=0, key="k", number=0, epochs=10)
ENDED = TrialEnded(
    condition="gn", phase="grid", index=0, state="done", reason="", seconds=1.0, scores={"val.accuracy": 0.5}
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_follows_from_the_pace_of_this_stage() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    pace.stage("training", {"done": 2, "waiting": 8}, 10)
    assert (pace.finished, pace.left()) == (2, None)
    pace.event(0, WorkerReady(device="cpu"))
    pace.event(0, STARTED)
    clock.now = 110.0
    pace.event(0, EpochEnded(record=replace(RECORD, epoch=5)))
    # Half a trial in 10 seconds: 7.5 are left, at 20 seconds each.
    assert pace.left() == pytest.approx(150.0)
    clock.now = 120.0
    pace.event(0, ENDED)
    assert (pace.finished, pace.ended, pace.left()) == (3, {"done": 3}, pytest.approx(140.0))
    assert pace.devices == {0: "cpu"} and pace.running == {}


def test_epochs_of_an_earlier_sweep_do_not_count_as_pace() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    pace.stage("training", {}, 1)
    pace.event(0, replace(STARTED, epoch=8))
    clock.now = 101.0
    pace.event(0, EpochEnded(record=replace(RECORD, epoch=9)))
    assert pace.left() == pytest.approx(9.0)


def test_the_best_is_kept_and_a_lost_worker_trains_nothing() -> None:
    pace = Pace()
    pace.stage("training", {}, 3)
    pace.event(0, ENDED)
    pace.event(0, replace(ENDED, index=1, scores={"val.accuracy": 0.9}))
    pace.event(0, replace(ENDED, index=2, state="failed", scores={}))
    assert pace.best is not None and pace.best.index == 1
    pace.event(1, STARTED)
    pace.event(1, WorkerLost(code=-9))
    assert pace.running == {}


def test_names_of_trials() -> None:
    assert name_of(STARTED) == "gn repeat 0"
    assert name_of(replace(STARTED, condition="gn, search", phase="search", index=7)) == "gn, search trial 7"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (90000, "25 h 00 min"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
