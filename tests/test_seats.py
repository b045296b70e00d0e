"""Seats that come and go: new ones are used, surplus ones are given back, and one that is gone is not waited for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tiny_study import FACTOR, study_of

from benchkit.errors import BenchkitError
from benchkit.sweep import seats as seats_module
from benchkit.sweep.devices import Device
from benchkit.sweep.messages import Job, Seat, WorkerReady
from benchkit.sweep.pool import Pool
from benchkit.sweep.seats import IDLE_PATIENCE, LOOK_EVERY, SURPLUS, Seats


class Line:
    """A line to nobody."""

    ended = None

    def __init__(self, device: Device, told: list[str]) -> None:
        self.device, self.told = device, told
        told.append(f"start {device.node}")

    def send(self, whole: bytes) -> None:
        return

    def stop(self) -> None:
        self.told.append(f"stop {self.device.node}")

    def kill(self) -> None:
        return


class World:
    """Nodes that come and go, a clock, and what happened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *nodes: str) -> None:
        self.now, self.told, self.said = 1000.0, [], []  # type: ignore[var-annotated]
        self.nodes = list(nodes)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

        def opened(device: Device, *_: Any) -> Any:
            return Line(device, self.told)

        self.pool = Pool(self.offered(), 1, folder, opened, self.offered)
        job = Job(task="train", study=study_of(FACTOR), data_root=folder)
        self.seats = Seats(self.pool, job, self.said.append)

    def offered(self) -> list[Device]:
        return [Device(kind="cpu", node=name, place=name) for name in self.nodes]

    def ready(self, *numbers: int) -> None:
        for number in numbers:
            self.seats.is_ready(number, WorkerReady(device="cpu", seat=Seat(node=str(number), kind="cpu")))

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.seats.refresh()


def test_a_seat_that_comes_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world = World(monkeypatch, tmp_path, "a")
    world.seats.start_all()
    world.nodes.append("b")
    world.later(LOOK_EVERY / 2)
    assert world.told == ["start a"]
    world.later(LOOK_EVERY / 2)
    assert world.told == ["start a", "start b"] and world.seats.starting == {0, 1}


def test_surplus_seats_are_given_back_but_for_one_and_taken_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World(monkeypatch, tmp_path, "a", "b", "c")
    world.seats.start_all()
    world.ready(0, 1, 2)
    world.seats.take(0)
    world.later(SURPLUS - 1)
    assert world.told[3:] == []
    world.later(2)
    assert world.told[3:] == ["stop b", "stop c"], "the seat that has a trial stays"
    world.seats.lost(1, "ended", idle=True)
    world.nodes.remove("a")
    world.seats.lost(0, "a is gone", idle=False)
    assert world.told[5:] == ["start b", "start c"] or world.seats.starting == {1, 2}
    world.ready(1, 2)
    world.later(SURPLUS + 1)
    assert len(world.seats.free) == 1, "one looks for what another sweep leaves"


def test_no_worker_is_started_on_a_node_that_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world = World(monkeypatch, tmp_path, "a")
    world.seats.start_all()
    world.ready(0)
    world.nodes.clear()
    world.seats.lost(0, "a is gone", idle=True)
    assert world.told == ["start a"] and world.said == ["no seat is left; waiting for another one to come"]
    world.seats.refuse_none(60, tmp_path)
    world.later(61)
    with pytest.raises(BenchkitError, match="a is gone"):
        world.seats.refuse_none(60, tmp_path)
    world.nodes.append("b")
    world.later(LOOK_EVERY)
    world.seats.refuse_none(60, tmp_path)
    assert world.told == ["start a", "start b"]


def test_seats_that_were_all_set_aside_are_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world = World(monkeypatch, tmp_path, "a")
    world.seats.start_all()
    for _ in range(IDLE_PATIENCE):
        world.seats.lost(0, "ended", idle=True)
    with pytest.raises(BenchkitError, match="workers end before they train anything, the last ended"):
        world.seats.refuse_none(60, tmp_path)
    assert seats_module.SURPLUS <= 30


def test_a_seat_that_gets_ready_late_on_a_node_to_blame_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World(monkeypatch, tmp_path, "a", "b", "c")
    world.seats.start_all()
    full = WorkerReady(device="cpu", seat=Seat(node="full", kind="cpu"))
    world.seats.is_ready(0, full)
    world.seats.set_aside(0, "No space left on device", "node")
    world.seats.is_ready(1, full)
    world.ready(2)
    assert set(world.seats.aside) == {0, 1} and set(world.seats.free) == {2}
    assert world.said == ["set aside: cpu on full: No space left on device"]
    assert world.told[3:] == ["stop a", "stop b"]
