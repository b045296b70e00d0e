"""A trial that goes on prefers a device of the model that it was begun on, and waits for one at most `--patience`."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from scripted_seats import ScriptedSeats, finished, scripted_sweep
from tiny_study import RECORD, study_of

from benchkit.sweep.messages import CheckpointTaken, EpochEnded, Event, Seat, Train, TrialBegan, WorkerLost
from benchkit.sweep.seats import model_of

NODES = [Seat(node="one", kind="cuda", device="A100"), Seat(node="two", kind="cuda", device="H100")]
LOST = WorkerLost(code=-9, machine=True, words="one is gone")


class Leaving(ScriptedSeats):
    """Seats of which the first is not there any more once its worker is lost."""

    gone: ClassVar[bool] = False

    def has(self, number: int) -> bool:
        return not (self.gone and number == 0)


@pytest.mark.parametrize(
    ("patience", "gone", "expected"),
    [
        (math.inf, False, [0, 0]),  # it waits for the worker that is started anew, though another seat is free
        (0.0, False, [0, 1]),  # not for longer than that
        (math.inf, True, [0, 1]),  # nor for a seat that does not come back
    ],
)
def test_a_trial_waits_for_a_seat_like_the_one_it_was_begun_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float, gone: bool, expected: list[int]
) -> None:
    monkeypatch.setattr(Leaving, "gone", gone)

    def script(order: Train, number: int) -> list[Event]:
        if order.content:
            return finished(order)
        named = {"trial": order.trial, "lease": order.lease}
        record = replace(RECORD, device=NODES[number].device)
        saved = CheckpointTaken(**named, epoch=1, content=b"checkpoint")
        return [TrialBegan(**named, epochs=9), EpochEnded(**named, record=record), saved, LOST]

    states, _ = scripted_sweep(monkeypatch, tmp_path, study_of(repeats=1), NODES, script, Leaving, patience=patience)
    assert states == {"done": 1}
    assert [number for _, number, _ in ScriptedSeats.orders] == expected


def test_of_a_processor_the_model_counts_and_not_how_much_of_it_is_in_use() -> None:
    assert model_of("EPYC 9654, 4 threads") == model_of("EPYC 9654, 96 cores") == "EPYC 9654"
    assert model_of("NVIDIA H200") == "NVIDIA H200"
