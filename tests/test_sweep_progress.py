"""How far a sweep is, by hand-fed events and a hand-set clock."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_study import RECORD

from benchkit.analysis.wording import duration
from benchkit.sweep.messages import EpochEnded, TrialEnded, TrialStarted, WorkerLost, WorkerReady
from benchkit.sweep.progress import Progress, trial_name

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
    progress = Progress(clock=clock)
    progress.stage("training", {"done": 2, "waiting": 8}, 10)
    assert (progress.finished, progress.left()) == (2, None)
    progress.event(0, WorkerReady(device="cpu"))
    progress.event(0, STARTED)
    clock.now = 110.0
    progress.event(0, EpochEnded(record=replace(RECORD, epoch=5)))
    # Half a trial in 10 seconds: 7.5 are left, at 20 seconds each.
    assert progress.left() == pytest.approx(150.0)
    clock.now = 120.0
    progress.event(0, ENDED)
    assert (progress.finished, progress.ended, progress.left()) == (3, {"done": 3}, pytest.approx(140.0))
    assert progress.devices == {0: "cpu"} and progress.running == {}


def test_epochs_of_an_earlier_sweep_do_not_count_as_pace() -> None:
    clock = Clock()
    progress = Progress(clock=clock)
    progress.stage("training", {}, 1)
    progress.event(0, replace(STARTED, epoch=8))
    clock.now = 101.0
    progress.event(0, EpochEnded(record=replace(RECORD, epoch=9)))
    assert progress.left() == pytest.approx(9.0)


def test_the_best_is_kept_and_a_lost_worker_trains_nothing() -> None:
    progress = Progress()
    progress.stage("training", {}, 3)
    progress.event(0, ENDED)
    progress.event(0, replace(ENDED, index=1, scores={"val.accuracy": 0.9}))
    progress.event(0, replace(ENDED, index=2, state="failed", scores={}))
    assert progress.best is not None and progress.best.index == 1
    progress.event(1, STARTED)
    progress.event(1, WorkerLost(code=-9))
    assert progress.running == {}


def test_names_of_trials() -> None:
    assert trial_name("gn", "grid", 0) == "gn repeat 0"
    assert trial_name("gn, search", "search", 6) == "gn, search trial 7"


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
    assert duration(seconds, whole=True) == words
